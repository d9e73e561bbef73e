//! Nodes that fetch nothing because an operator wants it.

use phalanx_core::backend::JobState;

use crate::harness::{Harness, Plain};

#[tokio::test]
async fn a_quiet_node_finishes_what_it_runs_and_fetches_nothing() {
    let harness = Harness::start().await;
    let tasks = harness.node.tasks();
    let first = harness.enqueue::<Plain>("first", &["wait"]).await;
    harness.until_waiting(1).await;
    for _ in 0..2 {
        tasks.quiet("node").await.unwrap();
        assert!(tasks.is_quiet());
    }
    assert_eq!(tasks.quiet_nodes().await.unwrap(), [("node".to_owned(), Some(true))].into());
    let second = harness.enqueue::<Plain>("second", &[]).await;
    harness.log.go_on.add_permits(1);
    harness.until_state(&first, JobState::Done).await; // its settlement would have fetched the second one
    assert_eq!(tasks.status(&second).await.unwrap().state, JobState::Waiting);
    tasks.end_quiet("node").await.unwrap();
    harness.until_state(&second, JobState::Done).await;
    assert_eq!(tasks.quiet_nodes().await.unwrap(), [("node".to_owned(), Some(false))].into());
    assert_eq!(tasks.quiet("none").await.unwrap_err().code(), "not_found");
}

#[tokio::test]
async fn a_quiet_node_stops_as_any_other() {
    let harness = Harness::start().await;
    harness.node.tasks().quiet("node").await.unwrap();
    let job = harness.enqueue::<Plain>("waits", &[]).await;
    assert_eq!(harness.engine.stop().await.abandoned, 0);
    assert_eq!(harness.node.tasks().status(&job).await.unwrap().state, JobState::Waiting);
}
