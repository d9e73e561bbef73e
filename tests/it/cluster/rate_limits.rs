//! Rate limits over several nodes, and while their Redis is away.

use std::time::Duration;

use phalanx::RunningApp;
use phalanx::config::Config;
use phalanx::prelude::*;
use phalanx_testkit::Redis;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::SOON;
use crate::app::settings;
use crate::client::get;

const CALLS: usize = 20;
const WINDOW: Duration = Duration::from_secs(1);

/// Few calls in a short time.
#[action(get, limit = "20/1s")]
async fn often(_ctx: Context) -> Result<u32, ActionError> {
    Ok(1)
}

/// Few calls in a long time, and it ends before a command to a Redis that is away does.
#[action(get, deadline = "1s", limit = "5/1h")]
async fn seldom(_ctx: Context) -> Result<u32, ActionError> {
    Ok(1)
}

/// Has no limit.
#[action(get)]
async fn free(_ctx: Context) -> Result<u32, ActionError> {
    Ok(1)
}

async fn node(id: &str, redis: &Redis, change: impl FnOnce(&mut Config)) -> RunningApp {
    let mut config = settings();
    config.general.id = id.to_owned();
    change(&mut config);
    let app = App::new("laws").actions(actions![often, seldom, free]);
    app.start_in_cluster(config, &redis.url()).await.unwrap()
}

async fn status(node: &RunningApp, path: &str) -> u16 {
    get(node.addr(), path).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn no_window_sees_more_calls_than_the_limit_whichever_nodes_they_are_sent_to() {
    let redis = Redis::start().await;
    let mut nodes = Vec::new();
    for id in ["one", "two", "three"] {
        nodes.push(node(id, &redis, |_| {}).await);
    }
    // Eight adversaries at each node, which send the next request when the last one is answered: whenever there is room, it is
    // used at once.
    let (mut adversaries, end) = (JoinSet::new(), Instant::now() + 6 * WINDOW);
    for addr in nodes.iter().map(RunningApp::addr).cycle().take(24) {
        adversaries.spawn(async move {
            let mut counted = Vec::new();
            while Instant::now() < end {
                let sent = Instant::now();
                match get(addr, "/api/often").await.status {
                    200 => counted.push((sent, Instant::now())),
                    429 => {}
                    other => panic!("{other}"),
                }
            }
            counted
        });
    }
    let counted: Vec<_> = adversaries.join_all().await.into_iter().flatten().collect();
    assert!(counted.len() >= 4 * CALLS, "the limit is used: {}", counted.len());
    // A call was counted between its request and its answer. So those that lie in a window with both are at most so many.
    for (start, _) in &counted {
        let within = counted.iter().filter(|(sent, answered)| sent >= start && *answered < *start + WINDOW).count();
        assert!(within <= CALLS, "{within} calls within {WINDOW:?}");
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_refused_call_costs_redis_no_command() {
    let redis = Redis::start().await;
    let (one, two) = (node("one", &redis, |_| {}).await, node("two", &redis, |_| {}).await);
    for node in [&one, &two, &one, &two, &one] {
        assert_eq!(status(node, "/api/seldom").await, 200);
    }
    assert_eq!(status(&two, "/api/seldom").await, 429, "it learns that by the one command that is left");
    let (gets, start) = (redis.ran("get").await, Instant::now());
    for _ in 0..200 {
        assert_eq!((status(&one, "/api/seldom").await, status(&two, "/api/seldom").await), (429, 429));
    }
    // The renewal of a lease has a GET as well, each second.
    let of_leases = 2 * (start.elapsed().as_secs() + 2);
    let gets = redis.ran("get").await - gets;
    assert!(gets <= of_leases, "{gets} for 400 refused calls");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn each_node_has_the_limit_for_itself_while_redis_is_frozen() {
    let redis = Redis::start().await;
    let (one, two) = (node("one", &redis, |_| {}).await, node("two", &redis, |_| {}).await);
    assert_eq!(status(&one, "/api/seldom").await, 200);
    redis.freeze();
    for node in [&one, &two] {
        let mut statuses = Vec::new();
        for _ in 0..7 {
            statuses.push(status(node, "/api/seldom").await);
            assert_eq!(status(node, "/api/free").await, 200);
        }
        assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429]);
    }
    let metrics = String::from_utf8(get(one.admin_addr().unwrap(), "/metrics").await.body).unwrap();
    assert!(metrics.contains("phalanx_limited_calls_alone_total{limit=\"seldom\"}"), "{metrics}");
    redis.thaw();
    let back = async {
        while redis.command("EXISTS phalanx:laws:limit:{a:127.0.0.1}:often:1000").await != ":1\r\n" {
            status(&one, "/api/often").await;
        }
    };
    tokio::time::timeout(SOON, back).await.expect("the nodes ask Redis again");
    one.stop().await;
    two.stop().await;
}
