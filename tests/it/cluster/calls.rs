use std::time::Duration;

use phalanx_testkit::{Signal, check_time, print};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{AT_ONCE, Cluster, apply, nodes_of, until};
use crate::client::{Socket, get, post_json};

#[tokio::test]
async fn a_connection_of_any_node_is_reached_from_every_other() {
    let cluster = Cluster::start(3).await;
    for owner in 0..3 {
        let mut socket = Socket::connect(cluster.addr(owner)).await;
        let id = socket.id();
        for caller in 0..3 {
            let addr = cluster.addr(caller);
            assert_eq!(apply(addr, &id, "set", json!(["by", caller])).await.json()["result"], true);
            assert_eq!(apply(addr, &id, "get", json!(["by"])).await.json()["result"], caller);
            let authorized = apply(addr, &id, "authorize", json!({ "level": caller })).await.json();
            assert_eq!(authorized["result"]["now"], caller as f64, "{authorized}");
            assert_eq!(apply(addr, &id, "", json!(null)).await.json()["result"]["id"], id);
            assert_eq!(apply(addr, &id, "sendMessage", json!({ "from": caller })).await.status, 200);
            assert_eq!(socket.read().await["from"], caller);
            for (method, args, status, code) in [
                ("explode", json!(null), 404, "unknown_method"),
                ("authorize", json!({ "level": "high" }), 422, "invalid_input"),
                ("set", json!([]), 422, "invalid_input"),
                ("roomAdd", json!(["nowhere"]), 404, "not_found"),
            ] {
                let refused = apply(addr, &id, method, args).await;
                assert_eq!((refused.status, refused.error_code().as_str()), (status, code), "{caller} to {owner}");
            }
            let wrong = apply(addr, &id, "authorize", json!({ "level": "high" })).await.json();
            assert_eq!(wrong["error"]["details"][0]["path"], "level", "{wrong}");
        }
        let far = cluster.addr((owner + 1) % 3);
        assert_eq!(apply(far, &id, "roomAdd", json!(["otherRoom"])).await.json()["result"], true);
        assert_eq!(apply(far, &id, "destroy", json!(null)).await.status, 200);
        assert_eq!(socket.closed().await, 4500);
        until("no node finds it", Duration::from_secs(5), async || {
            apply(far, &id, "details", json!(null)).await.error_code() == "not_found"
        })
        .await;
    }
}

#[tokio::test]
async fn an_unknown_connection_is_not_found_at_once() {
    let cluster = Cluster::start(3).await;
    let generation = cluster.generation(1).await;
    for id in [
        format!("{generation}-aaaaaaaaaaaaaaaaaaaaaa"), // of a live node
        "aaaaaaaaaa-aaaaaaaaaaaaaaaaaaaaaa".to_owned(), // of a node that never existed
        "made-up".to_owned(),
    ] {
        let started = Instant::now();
        assert_eq!(apply(cluster.addr(0), &id, "details", json!(null)).await.error_code(), "not_found", "{id}");
        let took = started.elapsed();
        check_time(&format!("{id} is not found"), took, AT_ONCE);
    }
}

/// A subscriber of every channel counts two messages for each call, however many nodes there are.
#[tokio::test]
async fn a_call_costs_two_messages_and_reaches_no_other_node() {
    const CALLS: usize = 20;
    for count in [3, 9] {
        let cluster = Cluster::start(count).await;
        let socket = Socket::connect(cluster.addr(1)).await;
        let (owner, caller) = (cluster.generation(1).await, cluster.generation(0).await);
        // The first message of a node is preceded by its hello.
        assert_eq!(apply(cluster.addr(0), &socket.id(), "set", json!(["k", 1])).await.status, 200);
        let (watch, before) = (cluster.redis.watch().await, cluster.redis.ran("publish").await);
        for _ in 0..CALLS {
            assert_eq!(apply(cluster.addr(0), &socket.id(), "set", json!(["k", 1])).await.status, 200);
        }
        let published = cluster.redis.ran("publish").await - before;
        print(format_args!("{count} nodes: {published} messages for {CALLS} calls"));
        assert_eq!(published, 2 * CALLS as u64);
        until("all messages are seen", Duration::from_secs(5), async || watch.seen().len() == 2 * CALLS).await;
        let pair = [format!("tour:node:{owner}"), format!("tour:node:{caller}")];
        assert_eq!(watch.seen(), pair.iter().cycle().take(2 * CALLS).cloned().collect::<Vec<_>>(), "{count} nodes");
    }
}

#[tokio::test]
async fn all_nodes_are_called_at_once_and_those_that_do_not_answer_are_named() {
    let cluster = Cluster::start(3).await;
    assert_eq!(nodes_of(cluster.addr(0)).await, ["n0", "n1", "n2"]);
    let called = get(cluster.addr(0), "/api/nodes/ask").await.json();
    let answers: Vec<&str> = called["answers"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((answers, &called["missing"]), (vec!["n0", "n1", "n2"], &json!([])));
    cluster.nodes[2].freeze();
    let called = get(cluster.addr(0), "/api/nodes/ask?timeoutMs=300").await.json();
    assert_eq!(called["missing"], json!(["n2"]), "{called}");
    cluster.nodes[2].thaw();
}

#[tokio::test]
async fn a_call_waits_as_long_as_its_timeout() {
    let cluster = Cluster::start(2).await;
    let socket = Socket::connect(cluster.addr(1)).await;
    let apply_within = async |id: &str, limit: u64| {
        let body = json!({ "method": "authorize", "args": { "level": 1 }, "timeoutMs": limit }).to_string();
        let started = Instant::now();
        let answer = post_json(cluster.addr(0), &format!("/api/connections/{id}/apply"), &body).await;
        (answer.error_code(), started.elapsed())
    };
    assert_eq!(apply_within(&socket.id(), u64::MAX).await.0, "");
    let called = get(cluster.addr(0), &format!("/api/nodes/ask?timeoutMs={}", u64::MAX)).await.json();
    assert_eq!(called["missing"], json!([]), "{called}");
    cluster.nodes[1].freeze();
    let (code, took) = apply_within(&socket.id(), 300).await;
    assert_eq!(code, "late");
    check_time("a call with a timeout of 300 ms", took, Duration::from_millis(300));
    assert!(took >= Duration::from_millis(300), "{took:?}");
    // An id that names no node is looked up on all nodes; one that is found dead meanwhile need not answer.
    let (code, took) = apply_within("made-up", 600_000).await;
    assert_eq!(code, "not_found");
    print(format_args!("not found {took:?} after its node froze"));
}

#[tokio::test]
async fn a_call_that_timed_out_does_not_run_once_its_node_thaws() {
    let cluster = Cluster::start(2).await;
    let socket = Socket::connect(cluster.addr(1)).await;
    cluster.nodes[1].freeze();
    let frozen = Instant::now();
    let body = json!({ "method": "set", "args": ["k", "late"], "timeoutMs": 300 }).to_string();
    let answer = post_json(cluster.addr(0), &format!("/api/connections/{}/apply", socket.id()), &body).await;
    assert_eq!(answer.error_code(), "late");
    // Each node knows Redis's clock within a round trip: right at the deadline the call may still run.
    sleep_until(frozen + Duration::from_secs(1)).await; // the length of the freeze is the fault
    cluster.nodes[1].thaw();
    until("the call is dropped", super::SOON, async || {
        let metrics = String::from_utf8(get(cluster.nodes[1].admin, "/metrics").await.body).unwrap();
        metrics.contains("phalanx_bus_dropped_total{reason=\"call_too_late\"} 1\n")
    })
    .await;
    let value = apply(cluster.addr(1), &socket.id(), "get", json!(["k"])).await.json();
    assert_eq!(value["result"], json!(null));
}

#[tokio::test]
async fn a_cluster_may_use_another_database_of_its_redis() {
    let redis = phalanx_testkit::Redis::start().await;
    let url = format!("{}/1", redis.url());
    let nodes = super::start_nodes(&url, 2, super::PRESENCE).await;
    until("both are listed", super::SOON, async || nodes_of(nodes[0].addr).await.len() == 2).await;
    let socket = Socket::join(nodes[1].addr, "defaultRoom").await;
    assert_eq!(apply(nodes[0].addr, &socket.id(), "set", json!(["k", 1])).await.status, 200);
    assert_eq!(super::members(nodes[0].addr, "defaultRoom").await, 1);
    assert_eq!(redis.command("DBSIZE").await, ":0\r\n", "database 0 is empty");
}

#[tokio::test]
async fn a_stopped_node_is_removed_at_once_and_its_members_with_it() {
    let mut cluster = Cluster::start(2).await;
    let leaver = Socket::join(cluster.addr(1), "defaultRoom").await;
    let mut observer = Socket::join(cluster.addr(0), "defaultRoom").await;
    cluster.nodes[1].signal(Signal::TERM);
    assert_eq!(super::node_death::next_presence(&mut observer, "leave").await, leaver.id());
    assert!(cluster.nodes[1].ended().await.success());
    assert_eq!(nodes_of(cluster.addr(0)).await, ["n0"]);
    assert_eq!(super::members(cluster.addr(0), "defaultRoom").await, 1);
    assert_eq!(apply(cluster.addr(0), &leaver.id(), "details", json!(null)).await.error_code(), "not_found");
}
