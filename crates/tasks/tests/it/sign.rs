//! What a node shows to resque's tools, and learns from them.

use phalanx_core::backend::JobState;
use serde_json::Value;

use crate::faulty_store::FaultyStore;
use crate::harness::{Harness, Plain, eventually};

#[tokio::test]
async fn a_job_that_runs_for_a_second_is_shown_until_it_ends_and_the_worker_until_the_node_stops() {
    let store = FaultyStore::new();
    let harness = Harness::start_with(|_| {}, Some(store.clone())).await;
    let last = || store.signs.lock().unwrap().last().cloned();
    let quick = harness.enqueue::<Plain>("quick", &[]).await;
    harness.until_state(&quick, JobState::Done).await;
    assert_eq!(last(), Some(None));
    let job = harness.enqueue::<Plain>("waits", &["wait"]).await;
    eventually("it is shown", async || matches!(last(), Some(Some(_)))).await;
    let shown: Value = serde_json::from_str(&last().flatten().unwrap()).unwrap();
    assert_eq!(shown["payload"]["id"], *job);
    assert_eq!(
        (&shown["queue"], shown["worker"].as_str().map(|name| name.starts_with("node:"))),
        (&"default".into(), Some(true))
    );
    assert!(shown["run_at"].as_str().is_some_and(|at| at.contains("GMT+0000")), "{shown}");
    harness.log.go_on.add_permits(1);
    eventually("it has ended", async || last() == Some(None)).await;
    assert_eq!(store.signs.lock().unwrap().len(), 3, "once for each change");
    harness.engine.stop().await;
    assert_eq!(last(), Some(Some("removed".to_owned())));
}

#[tokio::test]
async fn a_node_fetches_no_jobs_of_queues_that_another_cluster_uses() {
    let store = FaultyStore::new();
    *store.other_cluster.lock().unwrap() = Some("shop".to_owned());
    let harness = Harness::start_with(|_| {}, Some(store.clone())).await;
    let job = harness.enqueue::<Plain>("waits", &[]).await;
    eventually("it looks again", async || store.signs.lock().unwrap().len() >= 2).await;
    assert_eq!(harness.node.tasks().status(&job).await.unwrap().state, JobState::Waiting);
    assert!(harness.node.health().is_empty(), "it serves clients");
    *store.other_cluster.lock().unwrap() = None;
    harness.until_state(&job, JobState::Done).await;
}

#[tokio::test]
async fn a_node_that_shares_its_queues_fetches_jobs() {
    let store = FaultyStore::new();
    *store.other_cluster.lock().unwrap() = Some("shop".to_owned());
    let harness = Harness::start_with(|config| config.tasks.shared_prefix = true, Some(store.clone())).await;
    let job = harness.enqueue::<Plain>("runs", &[]).await;
    harness.until_state(&job, JobState::Done).await;
}
