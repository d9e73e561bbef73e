//! What operators see of a node's attempts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::harness::{Harness, Plain};

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
    harness.until_state(&id, phalanx_core::backend::JobState::Done).await;
    assert!(tasks.running(0, 10).await.unwrap().is_empty());
}
