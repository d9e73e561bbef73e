//! A node with jobs stops.

use std::time::Duration;

use phalanx_testkit::{Process, Signal};
use serde_json::json;
use tokio::time::Instant;

use super::{enqueue, eventually};
use crate::client::get;

#[tokio::test]
async fn a_node_that_stops_finishes_the_attempts_that_run() {
    let mut node = Process::start("tour", &[]).await;
    enqueue(node.addr, "sleep", json!({ "ms": 600 })).await;
    eventually("it runs", async || get(node.addr, "/api/tasks").await.json()["running"] == json!(1)).await;
    let started = Instant::now();
    node.signal(Signal::TERM);
    assert_eq!(node.ended().await.code(), Some(0), "{}", node.stderr());
    println!("stopped after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(15));
    assert!(!node.stderr().contains("could not be settled"), "{}", node.stderr());
}

#[tokio::test]
async fn attempts_that_outlast_the_grace_are_given_back_and_the_exit_is_clean() {
    let mut node = Process::start("tour", &[("PHALANX__GENERAL__GRACE", "300ms")]).await;
    enqueue(node.addr, "sleep", json!({ "ms": 600_000 })).await;
    enqueue(node.addr, "block", json!({ "ms": 60_000 })).await;
    eventually("they run", async || get(node.addr, "/api/tasks").await.json()["running"] == json!(2)).await;
    let started = Instant::now();
    node.signal(Signal::TERM);
    assert_eq!(node.ended().await.code(), Some(0), "{}", node.stderr());
    println!("stopped after {:?}, grace 300 ms", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(15));
}
