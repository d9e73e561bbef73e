//! Processes that run parts of a node.

use phalanx_testkit::{Process, Redis, Signal};
use serde_json::json;

use super::{SOON, until};
use crate::client::{get, request};

/// Starts a tour with these roles.
async fn start(redis: &Redis, roles: &str, id: &str) -> Process {
    start_with(redis, roles, id, &[]).await
}

async fn start_with(redis: &Redis, roles: &str, id: &str, more: &[(&str, &str)]) -> Process {
    let url = redis.url();
    let environment = [("REDIS_URL", &*url), ("PHALANX__GENERAL__ROLES", roles), ("PHALANX_TITLE", id)];
    let environment = [&environment, more].concat();
    let mut node = Process::spawn("tour", &environment);
    if roles.contains("web") {
        node.ready().await;
    } else {
        let is_ready = async || node.stderr().contains("lifecycle: ready");
        until("it is ready", SOON, is_ready).await;
    }
    node
}

#[tokio::test]
async fn a_job_is_enqueued_run_and_made_due_by_processes_of_three_roles() {
    let redis = Redis::start().await;
    let web = start(&redis, "web", "front").await;
    let post = async |delay: u64| {
        let body = json!({ "name": "noop", "delayMs": delay }).to_string();
        request(web.addr, "POST /api/tasks", &["content-type: application/json"], body.as_bytes()).await.json()
    };
    let stats = async || {
        let stats = get(web.addr, "/api/tasks").await.json();
        [&stats["processed"], &stats["delayed"]].map(|number| number.as_u64().unwrap_or_else(|| panic!("{stats}")))
    };
    for delay in [0, 200] {
        assert_eq!(post(delay).await["enqueued"], true);
    }
    let missing = async || {
        let text = web.stderr();
        ["worker", "scheduler"].iter().all(|role| text.contains(&format!("see general.roles role=\"{role}\"")))
    };
    until("it warns of the roles that no node has", SOON, missing).await;
    assert_eq!(stats().await, [0, 1]);
    let mut worker = start(&redis, "worker", "back").await;
    until("the worker runs one", SOON, async || stats().await == [1, 1]).await;
    let mut scheduler = start(&redis, "scheduler", "clock").await;
    until("the other was made due, and run", SOON, async || stats().await == [2, 0]).await;
    let nodes = get(web.addr, "/api/nodes").await.json();
    let roles: Vec<_> = nodes["nodes"].as_array().unwrap().iter().map(|node| node["roles"].clone()).collect();
    assert_eq!(roles, [json!(["worker"]), json!(["scheduler"]), json!(["web"])], "{nodes}");
    for process in [&mut worker, &mut scheduler] {
        process.signal(Signal::TERM);
        assert!(process.ended().await.success(), "{}", process.stderr());
        assert_eq!(process.rest_of_stdout().await[0], "ready, without clients");
    }
}

#[tokio::test]
async fn a_node_without_places_for_jobs_does_not_count_as_a_worker() {
    let redis = Redis::start().await;
    let full = start_with(&redis, "web,worker,scheduler", "full", &[("TOUR_WORKERS", "0")]).await;
    let web = start(&redis, "web", "front").await;
    for node in [&full, &web] {
        let missing = "see general.roles role=\"worker\"";
        until("it warns that no node runs jobs", SOON, async || node.stderr().contains(missing)).await;
        assert!(!node.stderr().contains("role=\"scheduler\""), "{}", node.stderr());
    }
    let nodes = get(web.addr, "/api/nodes").await.json();
    let full = nodes["nodes"].as_array().unwrap().iter().find(|node| node["id"] == "full").unwrap();
    assert_eq!(full["roles"], json!(["web", "scheduler"]));
}
