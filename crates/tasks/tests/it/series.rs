//! The minute series that a node adds to.

use phalanx_core::backend::{JobState, TaskStore};

use crate::faulty_store::FaultyStore;
use crate::harness::{Harness, Plain, Tracked};

#[tokio::test]
async fn a_node_that_stops_has_counted_all_its_attempts() {
    let store = FaultyStore::new();
    let harness = Harness::start_with(|_| {}, Some(store.clone())).await;
    let started = harness.engine.clock().now_ms() / 60_000;
    let (retried, failed) =
        (harness.enqueue::<Plain>("a", &["error"]).await, harness.enqueue::<Plain>("b", &["conflict"]).await);
    let (snoozed, done) =
        (harness.enqueue::<Plain>("c", &["snooze"]).await, harness.enqueue::<Tracked>("d", &[]).await);
    for (id, state) in
        [(retried, JobState::Done), (failed, JobState::Failed), (snoozed, JobState::Done), (done, JobState::Done)]
    {
        harness.until_state(&id, state).await;
    }
    let node = harness.node.clone();
    harness.engine.stop().await;
    let minutes = store.minutes(started, started + 5).await.unwrap();
    let sum = |task: &str| {
        let of_task = minutes.iter().filter(|minute| *minute.task == *task);
        of_task.fold((0, 0), |(processed, failed), minute| (processed + minute.processed, failed + minute.failed))
    };
    assert_eq!((sum("plain"), sum("tracked")), ((4, 2), (1, 0)), "a snooze is no end: {minutes:?}");
    let series = node.tasks().last_minutes(10).await.unwrap();
    let names: Vec<_> = series.iter().map(|series| (&*series.task, series.processed, series.failed)).collect();
    assert_eq!(names, [("plain", 4, 2), ("tracked", 1, 0)]);
    assert!(series.iter().all(|series| series.p50 <= series.p99), "{series:?}");
    assert!(node.tasks().minutes(10).await.unwrap().iter().all(|minute| minute.from_ms >= started * 60_000));
}
