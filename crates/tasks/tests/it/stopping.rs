//! A node stops: attempts finish, or their jobs go back.

use std::time::Duration;

use phalanx_core::backend::JobState;
use phalanx_core::config::Config;

use crate::harness::{Blocking, Harness, Plain};

#[tokio::test]
async fn attempts_that_end_within_the_grace_are_finished_and_nothing_new_begins() {
    let harness = Harness::start_with(|config| config.tasks.concurrency = 1, None).await;
    let running = harness.enqueue::<Plain>("running", &["wait"]).await;
    harness.until_waiting(1).await;
    let waiting = harness.enqueue::<Plain>("waiting", &[]).await;
    let engine = harness.engine.clone();
    let stopping = tokio::spawn(async move { engine.stop().await });
    harness.engine.shutdown().requested().await;
    harness.log.go_on.add_permits(1);
    assert_eq!(stopping.await.unwrap().abandoned, 0);
    let store = harness.engine.task_store().unwrap();
    assert_eq!(store.status(&running).await.unwrap().state, JobState::Done);
    assert_eq!(store.status(&waiting).await.unwrap().state, JobState::Waiting);
    assert_eq!(harness.log.entries(), ["running 1"]);
}

#[tokio::test]
async fn what_does_not_end_within_the_grace_is_given_back_without_counting() {
    let change = |config: &mut Config| config.general.grace = Duration::from_millis(200);
    let harness = Harness::start_with(change, None).await;
    let endless = harness.enqueue::<Plain>("endless", &["pending"]).await;
    let blocking = harness.enqueue::<Blocking>("blocking", &["block"]).await;
    harness.until_waiting(1).await;
    harness.until_logged("endless 1").await;
    let started = tokio::time::Instant::now();
    assert_eq!(harness.engine.stop().await.abandoned, 0);
    println!("stopped within {:?}, grace 200ms", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(6));
    let store = harness.engine.task_store().unwrap().clone();
    for id in [&endless, &blocking] {
        assert_eq!(store.status(id).await.unwrap().state, JobState::Waiting);
    }
    harness.log.go_on.add_permits(1);
    // Another node takes them from the same store: their first attempts, again.
    let next = Harness::start_with(change, Some(store)).await;
    next.until_logged("endless 1").await;
    next.until_logged("blocking 1").await;
    next.log.go_on.add_permits(1);
    next.until_state(&blocking, JobState::Done).await;
    next.engine.stop().await;
}
