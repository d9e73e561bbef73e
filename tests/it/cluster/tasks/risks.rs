//! A Redis that may lose jobs is named by the nodes that have tasks.

use phalanx_testkit::{Process, Redis, Signal};

use super::super::{SOON, until};
use crate::client::get;

const RISK: &str = "jobs may be lost";

/// Stops a node, and returns its log.
async fn log_of(mut node: Process) -> String {
    node.signal(Signal::TERM);
    let status = node.ended().await;
    let log = node.stderr();
    assert!(status.success() && !log.contains("redis refuses"), "{status}: {log}");
    log
}

#[tokio::test]
async fn a_redis_that_may_lose_jobs_is_named_once_and_rights_to_ask_are_not_needed() {
    let redis = Redis::start().await;
    for setting in ["maxmemory-policy allkeys-lru", "maxmemory 1gb", "appendonly no"] {
        redis.command(&format!("CONFIG SET {setting}")).await;
    }
    let node = super::start_node(&redis.url(), "without-rights").await;
    until("Redis refuses to tell", SOON, async || redis.command("ACL LOG").await.contains("\r\ninfo\r\n")).await;
    // The node has read the refusal once a later command on the same connection is answered.
    assert_eq!(get(node.addr, "/api/tasks").await.status, 200);
    let log = log_of(node).await;
    assert!(!log.contains(RISK), "{log}");

    redis.command("ACL SETUSER phalanx +info +config|get").await;
    let node = super::start_node(&redis.url(), "with-rights").await;
    until("both are named", SOON, async || node.stderr().matches(RISK).count() >= 2).await;
    let log = log_of(node).await;
    for risk in ["set its maxmemory-policy to noeviction, it is allkeys-lru", "Redis keeps them in memory only"] {
        assert_eq!(log.matches(risk).count(), 1, "{log}");
    }
}
