//! Progress, results, and heartbeats.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures_util::FutureExt;
use phalanx_core::backend::{DeleteOutcome, JobState, ResultMissing};
use phalanx_core::task::{JobStatus, MAX_WAITERS};
use tokio::time::Instant;

use crate::faulty_store::FaultyStore;
use crate::harness::{Blocking, Harness, Hasty, Plain, SOON, Tracked, eventually, work};

async fn status(harness: &Harness, id: &str) -> JobStatus {
    harness.node.tasks().status(id).await.unwrap()
}

fn text(json: &Option<Box<serde_json::value::RawValue>>) -> &str {
    json.as_ref().map_or("", |json| json.get())
}

#[tokio::test]
async fn progress_is_written_five_times_a_second_and_its_last_value_always() {
    let store = FaultyStore::new();
    let harness = Harness::start_with(|_| {}, Some(store.clone())).await;
    let started = Instant::now();
    let id = harness.enqueue::<Plain>("a", &["report"]).await;
    eventually("a progress is seen", async || status(&harness, &id).await.progress.is_some()).await;
    let seen = status(&harness, &id).await;
    assert_eq!((seen.node.as_deref(), seen.attempt), (Some(harness.node.id()), Some(1)));
    harness.until_state(&id, JobState::Done).await;
    let (writes, most) = (store.reports.load(SeqCst), started.elapsed().as_millis() / 200 + 1);
    let done = status(&harness, &id).await;
    assert_eq!((text(&done.progress), text(&done.result)), (r#""last""#, ""));
    println!("{writes} writes of 701 values in {:?}", started.elapsed());
    assert!(writes > 0 && writes as u128 <= most, "{writes} writes");
    harness.engine.stop().await;
}

#[tokio::test]
async fn the_result_of_a_tracked_task_is_kept_unless_it_is_too_large() {
    let harness = Harness::start().await;
    let id = harness.enqueue::<Tracked>("a", &["error"]).await;
    harness.until_state(&id, JobState::Done).await;
    let done = status(&harness, &id).await;
    assert_eq!((text(&done.result), done.attempt), (r#""a""#, Some(2)));
    let large = harness.enqueue::<Tracked>(&"x".repeat(64 * 1024 - 1), &[]).await;
    harness.until_state(&large, JobState::Done).await;
    let large = status(&harness, &large).await;
    assert_eq!((text(&large.result), large.result_missing), ("", Some(ResultMissing::TooLarge)));
    assert_eq!(large.value::<String>().unwrap_err().code(), "no_result");
    harness.engine.stop().await;
}

#[tokio::test]
async fn a_caller_waits_for_the_end_of_a_tracked_job() {
    let harness = Harness::start().await;
    let tasks = harness.node.tasks().clone();
    let id = harness.enqueue::<Tracked>("a", &["wait"]).await;
    harness.until_waiting(1).await;
    let late = tasks.wait(&id, Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(late.code(), "timeout");
    let waiting = tokio::spawn({
        let (tasks, id) = (tasks.clone(), id.clone());
        async move { tasks.wait(&id, SOON).await }
    });
    harness.log.go_on.add_permits(1);
    assert_eq!(waiting.await.unwrap().unwrap().value::<String>().unwrap(), "a");
    let again = tasks.wait(&id, Duration::ZERO).await.unwrap();
    assert_eq!(again.value::<String>().unwrap(), "a", "it is over");
    let failing = harness.enqueue::<Tracked>("b", &["conflict"]).await;
    let failed = tasks.wait(&failing, SOON).await.unwrap();
    assert_eq!(failed.value::<String>().unwrap_err().code(), "job_failed");
    let plain = harness.enqueue::<Plain>("c", &["pending"]).await;
    for id in [&*plain, "never"] {
        assert_eq!(tasks.wait(id, SOON).await.unwrap_err().code(), "not_tracked");
    }
    tasks.delete(&plain).await.unwrap();
    harness.engine.stop().await;
}

/// One that runs, and one that waits, which is dropped when a slot is free. The store has to ask whether that is tracked: the node may
/// not have its task.
#[tokio::test]
async fn a_caller_learns_that_its_job_was_deleted() {
    let store = FaultyStore::new();
    let harness = Harness::start_with(|config| config.tasks.concurrency = 1, Some(store.clone())).await;
    let tasks = harness.node.tasks().clone();
    let (runs, waits) =
        (harness.enqueue::<Tracked>("a", &["pending"]).await, harness.enqueue::<Tracked>("b", &[]).await);
    eventually("one runs", async || harness.log.entries().len() == 1).await;
    assert_eq!(tasks.delete(&waits).await.unwrap(), DeleteOutcome::Marked);
    tasks.delete(&runs).await.unwrap();
    for id in [&runs, &waits] {
        let dropped = tasks.wait(id, SOON).await.unwrap();
        assert_eq!(dropped.value::<String>().unwrap_err().code(), "job_dropped");
    }
    assert_eq!(*store.reported.lock().unwrap(), [runs, waits]);
    harness.engine.stop().await;
}

#[tokio::test]
async fn no_more_callers_wait_than_a_node_has_room_for() {
    let harness = Harness::start().await;
    let tasks = harness.node.tasks().clone();
    let id = harness.enqueue::<Tracked>("a", &["wait"]).await;
    let mut waiting: Vec<_> = (0..MAX_WAITERS).map(|_| Box::pin(tasks.wait(&id, SOON))).collect();
    for caller in &mut waiting {
        assert!(caller.as_mut().now_or_never().is_none());
    }
    assert_eq!(tasks.wait(&id, SOON).await.unwrap_err().code(), "unavailable");
    harness.log.go_on.add_permits(1);
    for caller in waiting {
        assert_eq!(caller.await.unwrap().state, JobState::Done);
    }
    harness.engine.stop().await;
}

#[tokio::test]
async fn a_progress_that_is_too_large_is_refused() {
    let harness = Harness::start().await;
    let id = harness.enqueue::<Plain>("a", &["report too much", "report too much", "report too much"]).await;
    harness.until_state(&id, JobState::Failed).await;
    let failed = harness.node.tasks().failed(0, 1).await.unwrap();
    assert_eq!(failed[0].exception, "payload_too_large");
    assert_eq!(text(&status(&harness, &id).await.progress), "");
    harness.engine.stop().await;
}

/// Its deadline is 50 ms.
#[tokio::test]
async fn heartbeats_move_the_deadline() {
    let harness = Harness::start().await;
    let started = Instant::now();
    let id = harness.enqueue::<Hasty>("a", &["beat"]).await;
    harness.until_waiting(1).await;
    eventually("the deadline is over", async || started.elapsed().as_millis() > 1000).await;
    assert!(matches!(status(&harness, &id).await.state, JobState::Running(_)));
    harness.log.go_on.add_permits(1);
    harness.until_state(&id, JobState::Done).await;
    harness.engine.stop().await;
}

#[tokio::test]
async fn a_heartbeat_ends_an_attempt_that_blocks_its_thread_when_its_job_is_deleted() {
    let harness = Harness::start().await;
    let input = work("a", &["beat and block"]);
    let id = harness.node.tasks().enqueue::<Blocking>(input).await.unwrap().id;
    harness.until_waiting(1).await;
    let deleted = harness.node.tasks().delete(&id).await.unwrap();
    assert!(matches!(deleted, DeleteOutcome::Cancelling(_)), "{deleted:?}");
    harness.until_state(&id, JobState::Unknown).await;
    assert_eq!(harness.log.entries(), ["a 1"], "it is not repeated, and has not failed");
    harness.engine.stop().await;
}
