//! The tour's tasks, on real processes with the embedded backend.

mod jobs;
mod results;
mod stopping;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::client::{get, post_json};

/// The limit for every wait.
const SOON: Duration = Duration::from_secs(30);

/// Enqueues a job over HTTP, and returns its id.
async fn enqueue(addr: SocketAddr, name: &str, input: Value) -> String {
    enqueue_with(addr, json!({ "name": name, "input": input })).await
}

async fn enqueue_with(addr: SocketAddr, job: Value) -> String {
    let answer = post_json(addr, "/api/tasks", &job.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    assert_eq!(answer["enqueued"], true, "{answer}");
    answer["id"].as_str().unwrap().to_owned()
}

async fn state(addr: SocketAddr, id: &str) -> String {
    get(addr, &format!("/api/tasks/{id}")).await.json()["state"].as_str().unwrap_or_default().to_owned()
}

async fn counter(addr: SocketAddr, name: &str) -> i64 {
    get(addr, &format!("/api/counters/{name}")).await.json()["value"].as_i64().unwrap()
}

async fn until_state(addr: SocketAddr, id: &str, expected: &str) {
    eventually(&format!("the job is {expected}"), async || state(addr, id).await == expected).await;
}

/// Polls a condition until it is true.
async fn eventually(description: &str, mut condition: impl AsyncFnMut() -> bool) {
    let polling = async {
        while !condition().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, polling).await.expect(description);
}
