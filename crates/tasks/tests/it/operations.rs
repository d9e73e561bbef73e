//! What operators see of a node's attempts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use phalanx_core::Locks;
use phalanx_core::backend::JobState;

use crate::harness::{Harness, Plain, eventually};

#[tokio::test]
async fn attempts_that_run_are_listed_with_their_node_and_age() {
    let harness = Harness::start().await;
    let tasks = harness.node.tasks();
    assert!(tasks.running(0, 10).await.unwrap().is_empty());
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let id = harness.enqueue::<Plain>("waits", &["error", "wait"]).await;
    harness.until_waiting(1).await;
    let running = tasks.running(0, 10).await.unwrap();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - before;
    let [attempt] = &running[..] else { panic!("{running:?}") };
    assert_eq!((&*attempt.id, &*attempt.task, &*attempt.queue), (&*id, "plain", "default"));
    assert_eq!((attempt.attempt, attempt.deaths), (2, 0));
    assert_eq!((attempt.generation, attempt.node.as_deref()), (harness.node.generation(), Some("node")));
    let age = attempt.age.unwrap();
    assert!(age <= since + Duration::from_millis(1), "{age:?} {since:?}");
    harness.log.go_on.add_permits(1);
    harness.until_state(&id, JobState::Done).await;
    assert!(tasks.running(0, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn one_caller_at_a_time_retries_all_failed_jobs() {
    let harness = Harness::start().await;
    let id = harness.enqueue::<Plain>("fails", &["conflict", "ok"]).await;
    harness.until_state(&id, JobState::Failed).await;
    let (tasks, locks) = (harness.node.tasks(), harness.node.locks());
    let lock = locks.lock("phalanx:tasks:retry", Locks::LEASE, Duration::ZERO).await.unwrap();
    assert_eq!(tasks.retry_all_failed().await.unwrap_err().code(), "conflict");
    drop(lock);
    eventually("the lock is released", async || tasks.retry_all_failed().await.is_ok_and(|retried| retried == 1)).await;
    harness.until_state(&id, JobState::Done).await;
}
