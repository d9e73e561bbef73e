//! Several clusters on one Redis, and a Redis in cluster mode.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use phalanx::RunningApp;
use phalanx::prelude::*;
use phalanx_testkit::{Process, Redis};

use super::{SOON, config, until};
use crate::client::{Socket, get};

static RUNS: AtomicUsize = AtomicUsize::new(0);

/// Counts the nodes that ran it.
#[remote]
async fn count_run(_ctx: Context) -> Result<(), ActionError> {
    RUNS.fetch_add(1, Relaxed);
    Ok(())
}

#[tokio::test]
async fn two_databases_of_one_redis_exchange_nothing() {
    let redis = Redis::start().await;
    let start = async |database: u32| -> RunningApp {
        let mut config = config(&format!("in{database}"));
        config.rooms.start = vec!["den".to_owned()];
        let url = format!("redis://{}/{database}", redis.addr());
        App::new("tour").remotes(remotes![count_run]).start_in_cluster(config, &url).await.unwrap()
    };
    let (production, staging) = (start(0).await, start(1).await);
    let mut member = Socket::join(production.addr(), "den").await;
    let watch = redis.watch().await;
    staging.node().rooms().say("den", "staging").await.unwrap();
    production.node().rooms().say("den", "production").await.unwrap();
    assert_eq!(member.next_in("user").await["message"], "production", "the first that it receives");
    until("both are published", SOON, async || watch.seen().len() >= 2).await;
    for channel in ["tour:room:den", "tour@1:room:den"] {
        assert!(watch.seen().iter().any(|seen| seen == channel), "{:?}", watch.seen());
    }
    for node in [&staging, &production] {
        let all =
            node.node().cluster().call_all::<count_run>(NoInput::default(), Duration::from_secs(5)).await.unwrap();
        assert_eq!((all.replies.len(), all.missing.len()), (1, 0));
    }
    assert_eq!(RUNS.load(Relaxed), 2);
    tokio::join!(production.stop(), staging.stop());
}

#[tokio::test]
async fn clusters_that_share_a_prefix_are_warned_of() {
    let redis = Redis::start().await;
    let url = redis.url();
    let _tour = super::start_node(&url, "one").await;
    let node = Process::start("tour", &[("REDIS_URL", url.as_str()), ("PHALANX__CLUSTER__NAME", "laws")]).await;
    until("it warns", SOON, async || node.stderr().contains("other clusters use the same keys")).await;
    assert!(node.stderr().contains("tour"), "{}", node.stderr());
    // It serves clients, and fetches none of the other one's jobs.
    until("it says so", SOON, async || node.stderr().contains("another cluster uses the queues below tasks.prefix"))
        .await;
    let metrics = String::from_utf8(get(node.admin, "/metrics").await.body).unwrap();
    assert!(metrics.contains("phalanx_tasks_foreign_queues 1"), "{metrics}");
    assert_eq!(get(node.admin, "/readyz").await.status, 200);
}

/// In other databases than 0 the channels of both have different names.
#[tokio::test]
async fn a_node_of_the_last_release_is_warned_of_where_both_exchange_nothing() {
    let redis = Redis::start().await;
    let record = r#"{"id":"old","version":"1","startedAt":1,"roles":["web"],"protocol":1}"#;
    redis.command(&format!("HSET phalanx:tour:nodes aaaaaaaaaa '{record}'")).await;
    assert_eq!(redis.command("COPY phalanx:tour:nodes phalanx:tour:nodes DB 1").await, ":1\r\n");
    for (database, warns) in [(0, false), (1, true)] {
        let url = format!("redis://{}/{database}", redis.addr());
        let node = Process::start("tour", &[("REDIS_URL", url.as_str())]).await;
        let nodes = async || super::nodes_of(node.addr).await;
        until("it knows the other", SOON, async || nodes().await.iter().any(|id| id == "old")).await;
        if warns {
            until("it warns", SOON, async || node.stderr().contains("a node of an earlier release")).await;
        }
        assert_eq!(node.stderr().contains("stop all nodes, then start the new ones"), warns, "database {database}");
    }
}

#[tokio::test]
async fn a_name_that_could_meet_another_ends_the_boot() {
    for name in ["shop@1", "shop:room:x"] {
        let refused = phalanx_testkit::run("tour", &[], &[("PHALANX__CLUSTER__NAME", name)]).await;
        let text = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(text.contains("cluster.name must be 1 to 64 characters"), "{text}");
    }
    let mut named = config("node");
    named.admin.bind = String::new();
    let refused = App::new("my shop").start_in_cluster(named, "redis://127.0.0.1:1").await.err().unwrap().to_string();
    assert!(refused.contains("set cluster.name"), "{refused}");
}

/// Starts a node whose keys share a slot.
pub(super) async fn start_in_one_slot(url: &str, title: &str) -> Process {
    let environment = [
        ("REDIS_URL", url),
        ("PHALANX_TITLE", title),
        ("PHALANX__CLUSTER__NAME", "{tour}"),
        ("PHALANX__REDIS__PREFIX", "{tour}:actionhero:"),
        ("PHALANX__TASKS__PREFIX", "{tour}:resque:"),
    ];
    Process::start("tour", &environment).await
}

#[tokio::test]
async fn a_redis_in_cluster_mode_is_named_with_the_settings_that_it_needs() {
    let redis = Redis::start_in_cluster_mode().await;
    let url = format!("redis://{}", redis.addr());
    let environment = [("REDIS_URL", url.as_str()), ("PHALANX__REDIS__BOOT_TIMEOUT", "1s")];
    let refused = phalanx_testkit::run("tour", &[], &environment).await;
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("{tour}") && text.contains("cluster.name") && text.contains("redis.prefix"), "{text}");
    assert!(text.contains("tasks.prefix"), "{text}");
    let node = start_in_one_slot(&url, "node").await;
    let mut member = Socket::join(node.addr, "otherRoom").await;
    member.send(r#"{"event":"say","room":"otherRoom","message":"hello"}"#).await;
    assert_eq!(member.next_in("user").await["message"], "hello");
    assert!(!node.stderr().contains("redis refuses"), "{}", node.stderr());
}
