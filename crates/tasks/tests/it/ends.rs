//! How attempts end, and what becomes of their jobs.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use phalanx_core::backend::{DeleteOutcome, JobState};
use phalanx_core::task::{EnqueueOptions, MAX_DELAY};
use serde_json::json;

use crate::faulty_store::FaultyStore;
use crate::harness::{Blocking, Harness, Hasty, Plain, Tracked, eventually, work};

#[tokio::test]
async fn a_job_runs_once_and_is_done() {
    let harness = Harness::start().await;
    let id = harness.enqueue::<Plain>("a", &[]).await;
    harness.until_state(&id, JobState::Done).await;
    assert_eq!(harness.log.entries(), ["a 1"]);
    assert_eq!(harness.node.tasks().stats().await.unwrap().processed, 1);
    harness.engine.stop().await;
}

#[tokio::test]
async fn a_job_that_fails_is_repeated_until_it_succeeds_and_its_fence_rises() {
    let harness = Harness::start().await;
    let id = harness.enqueue::<Plain>("a", &["error", "panic"]).await;
    harness.until_state(&id, JobState::Done).await;
    assert_eq!(harness.log.entries(), ["a 1", "a 2", "a 3"]);
    let fences = harness.log.fences.lock().unwrap().clone();
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
    harness.engine.stop().await;
}

#[tokio::test]
async fn a_job_without_attempts_left_is_failed_and_can_be_retried() {
    let harness = Harness::start().await;
    let id = harness.enqueue::<Plain>("a", &["error", "error", "error"]).await;
    harness.until_state(&id, JobState::Failed).await;
    harness.until_logged("a failed: internal, internal error: disk full").await;
    let tasks = harness.node.tasks();
    let failed = tasks.failed(0, 10).await.unwrap().remove(0);
    assert_eq!((failed.task.as_str(), failed.queue.as_str(), failed.counters.attempts), ("plain", "default", 3));
    assert_eq!((failed.exception.as_str(), failed.error.as_str()), ("internal", "internal error: disk full"));
    assert!(tasks.retry_failed(&failed).await.unwrap());
    assert!(!tasks.retry_failed(&failed).await.unwrap(), "it is no longer there");
    harness.until_state(&id, JobState::Done).await;
    assert_eq!(harness.log.entries().last().map(String::as_str), Some("a 1"), "its counters are new");
    harness.engine.stop().await;
}

#[tokio::test]
async fn kinds_of_errors_that_are_final_are_not_repeated() {
    let harness = Harness::start().await;
    let id = harness.enqueue::<Plain>("a", &["conflict"]).await;
    harness.until_state(&id, JobState::Failed).await;
    harness.until_logged("a failed: conflict, taken").await;
    harness.engine.stop().await;
}

#[tokio::test]
async fn a_task_decides_about_its_job() {
    let harness = Harness::start().await;
    let snoozed = harness.enqueue::<Plain>("snoozed", &["snooze", "snooze", "snooze", "snooze"]).await;
    let retried = harness.enqueue::<Plain>("retried", &["retry"]).await;
    let discarded = harness.enqueue::<Plain>("discarded", &["discard"]).await;
    let cancelled = harness.enqueue::<Plain>("cancelled", &["cancel"]).await;
    harness.until_state(&snoozed, JobState::Done).await;
    harness.until_state(&retried, JobState::Done).await;
    harness.until_state(&discarded, JobState::Unknown).await;
    harness.until_state(&cancelled, JobState::Failed).await;
    harness.until_logged("cancelled failed: cancelled, unsubscribed").await;
    let entries = harness.log.entries();
    let of = |name: &str| entries.iter().filter(|entry| entry.starts_with(name)).cloned().collect::<Vec<_>>();
    assert_eq!(of("snoozed"), ["snoozed 1"; 5], "snoozing does not count");
    assert_eq!(of("retried"), ["retried 1", "retried 2"]);
    assert_eq!(harness.node.tasks().stats().await.unwrap().failed, 1);
    harness.engine.stop().await;
}

#[tokio::test]
async fn the_longest_pause_of_a_job_is_that_of_one_that_is_enqueued() {
    let harness = Harness::start().await;
    for end in ["snooze for ever", "retry never"] {
        let id = harness.enqueue::<Plain>(end, &[end]).await;
        let is_delayed = async || match harness.node.tasks().status(&id).await.unwrap().state {
            JobState::Delayed(due_ms) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                let left = Duration::from_millis(due_ms).saturating_sub(now);
                assert!(left <= MAX_DELAY && left > MAX_DELAY - Duration::from_secs(60), "{end}: {left:?}");
                true
            }
            _ => false,
        };
        eventually(end, is_delayed).await;
    }
    harness.engine.stop().await;
}

#[tokio::test]
async fn an_attempt_ends_at_its_deadline() {
    let harness = Harness::start().await;
    let id = harness.enqueue::<Hasty>("a", &["pending"]).await;
    harness.until_state(&id, JobState::Failed).await;
    harness.until_logged("a failed: timeout, the deadline of the task passed").await;
    harness.engine.stop().await;
}

#[tokio::test]
async fn a_task_that_blocks_its_thread_is_settled_and_keeps_its_slot_until_it_returns() {
    let harness = Harness::start_with(|config| config.tasks.concurrency = 1, None).await;
    let blocked = harness.enqueue::<Hasty>("blocked", &["block"]).await;
    harness.until_state(&blocked, JobState::Failed).await;
    eventually("the node is not ready", async || !harness.node.health().is_empty()).await;
    assert_eq!(harness.node.health(), ["all tasks block their threads"]);
    let next = harness.enqueue::<Plain>("next", &[]).await;
    assert_eq!(harness.node.tasks().status(&next).await.unwrap().state, JobState::Waiting);
    harness.log.go_on.add_permits(1);
    harness.until_state(&next, JobState::Done).await;
    eventually("the node is ready again", async || harness.node.health().is_empty()).await;
    harness.engine.stop().await;
}

/// They run on other nodes, and here once a thread has returned.
#[tokio::test]
async fn jobs_that_wait_for_a_thread_are_given_back_if_all_threads_are_blocked() {
    let harness = Harness::start_with(|config| config.tasks.threads = 1, None).await;
    let blocking = harness.enqueue::<Plain>("blocking", &["block"]).await;
    harness.until_waiting(1).await;
    let other = harness.enqueue::<Plain>("other", &[]).await;
    harness.until_state(&other, JobState::Running(harness.node.generation())).await;
    harness.until_state(&other, JobState::Waiting).await;
    assert_eq!(harness.node.health(), ["all tasks block their threads"]);
    harness.log.go_on.add_permits(1);
    for id in [blocking, other] {
        harness.until_state(&id, JobState::Done).await;
    }
    assert_eq!(harness.log.entries(), ["blocking 1", "other 1"]);
    eventually("it is ready again", async || harness.node.health().is_empty()).await;
    harness.engine.stop().await;
}

/// An attempt that is expected to end at once is polled on the thread of the worker's loop.
#[tokio::test]
async fn a_task_that_was_quick_and_blocks_stops_nothing_else() {
    let harness = Harness::start_with(|config| config.tasks.threads = 1, None).await;
    for n in 0.. {
        let name = format!("quick {n}");
        let quick = harness.enqueue::<Plain>(&name, &[]).await;
        harness.until_state(&quick, JobState::Done).await;
        let name = format!("blocking {n}");
        let blocking = harness.enqueue::<Plain>(&name, &["block, named"]).await;
        harness.until_waiting(n + 1).await;
        let is_on_loop = harness.log.entries().contains(&format!("{name} on phalanx-worker"));
        if is_on_loop {
            let started = tokio::time::Instant::now();
            let other = harness.enqueue::<Tracked>("other", &[]).await;
            harness.until_state(&other, JobState::Done).await;
            println!("another job was done after {:?}", started.elapsed());
            let same = harness.enqueue::<Plain>("same", &[]).await;
            harness.until_state(&same, JobState::Done).await;
        }
        harness.log.go_on.add_permits(1);
        harness.until_state(&blocking, JobState::Done).await;
        if is_on_loop {
            break;
        }
    }
    assert_eq!(harness.node.health(), Vec::<String>::new());
    harness.engine.stop().await;
}

#[tokio::test]
async fn blocking_tasks_have_threads_of_their_own() {
    let change = |config: &mut phalanx_core::config::Config| config.tasks.threads = 1;
    let harness = Harness::start_with(change, None).await;
    for n in 0..10 {
        let quick = harness.enqueue::<Blocking>(&format!("quick {n}"), &[]).await; // most of them end at once
        harness.until_state(&quick, JobState::Done).await;
    }
    let blocking = [
        harness.enqueue::<Blocking>("a", &["block, named"]).await,
        harness.enqueue::<Blocking>("b", &["block, named"]).await,
        harness.enqueue::<Blocking>("c", &["block, named"]).await,
    ];
    harness.until_waiting(3).await;
    assert!(!harness.log.entries().iter().any(|entry| entry.ends_with("phalanx-worker")));
    let plain = harness.enqueue::<Plain>("plain", &[]).await;
    harness.until_state(&plain, JobState::Done).await;
    harness.log.go_on.add_permits(3);
    for id in blocking {
        harness.until_state(&id, JobState::Done).await;
    }
    harness.engine.stop().await;
}

#[tokio::test]
async fn no_more_jobs_run_at_once_than_there_are_slots() {
    let harness = Harness::start_with(|config| config.tasks.concurrency = 2, None).await;
    let options = EnqueueOptions::new();
    let inputs = (0..5).map(|n| work(&n.to_string(), &["wait"]));
    let ids = harness.node.tasks().enqueue_many::<Plain>(inputs, &options).await.unwrap();
    for _ in 0..5 {
        eventually("a job waits", async || harness.node.tasks().stats().await.unwrap().running >= 1).await;
        assert!(harness.node.tasks().stats().await.unwrap().running <= 2);
        harness.log.go_on.add_permits(1);
    }
    for id in ids {
        harness.until_state(&id, JobState::Done).await;
    }
    harness.engine.stop().await;
}

#[tokio::test]
async fn queues_are_served_in_their_order_and_paused_ones_not_at_all() {
    let change = |config: &mut phalanx_core::config::Config| {
        config.tasks.concurrency = 1;
        config.tasks.queues = vec!["high".to_owned(), "*".to_owned()];
    };
    let harness = Harness::start_with(change, None).await;
    let tasks = harness.node.tasks();
    tasks.pause("high").await.unwrap();
    tasks.pause("default").await.unwrap();
    let low = harness.enqueue::<Plain>("low", &[]).await;
    let high = tasks.enqueue_with::<Plain>(work("high", &[]), EnqueueOptions::new().queue("high")).await.unwrap();
    assert_eq!(tasks.stats().await.unwrap().paused, ["default", "high"]);
    assert_eq!(tasks.status(&low).await.unwrap().state, JobState::Waiting);
    tasks.resume("high").await.unwrap();
    harness.until_state(&high.id, JobState::Done).await;
    assert_eq!(tasks.status(&low).await.unwrap().state, JobState::Waiting);
    tasks.resume("default").await.unwrap();
    harness.until_state(&low, JobState::Done).await;
    assert_eq!(harness.log.entries(), ["high 1", "low 1"]);
    harness.engine.stop().await;
}

#[tokio::test]
async fn delayed_jobs_run_when_they_are_due_and_late_ones_are_dropped() {
    let harness = Harness::start().await;
    let tasks = harness.node.tasks();
    let started = tokio::time::Instant::now();
    let delay = Duration::from_millis(300);
    let delayed = tasks.enqueue_in::<Plain>(work("delayed", &[]), delay).await.unwrap();
    let expired = EnqueueOptions::new().expires_in(Duration::ZERO).delay(Duration::from_millis(20));
    let expired = tasks.enqueue_with::<Plain>(work("expired", &[]), expired).await.unwrap();
    harness.until_state(&delayed.id, JobState::Done).await;
    println!("due after {delay:?}, done after {:?}", started.elapsed());
    assert!(started.elapsed() >= delay);
    harness.until_state(&expired.id, JobState::Unknown).await;
    assert_eq!(harness.log.entries(), ["delayed 1"]);
    harness.engine.stop().await;
}

#[tokio::test]
async fn a_job_is_deleted_in_each_state() {
    let harness = Harness::start_with(|config| config.tasks.concurrency = 1, None).await;
    let tasks = harness.node.tasks();
    let running = harness.enqueue::<Plain>("running", &["pending"]).await;
    harness.until_logged("running 1").await;
    let waiting = harness.enqueue::<Plain>("waiting", &[]).await;
    let delayed = tasks.enqueue_in::<Plain>(work("delayed", &[]), Duration::from_secs(60)).await.unwrap().id;
    assert_eq!(tasks.delete(&waiting).await.unwrap(), DeleteOutcome::Marked);
    assert_eq!(tasks.delete(&delayed).await.unwrap(), DeleteOutcome::Deleted);
    assert_eq!(tasks.delete(&running).await.unwrap(), DeleteOutcome::Cancelling(harness.node.generation()));
    for id in [&running, &waiting, &delayed] {
        harness.until_state(id, JobState::Unknown).await;
    }
    assert_eq!(tasks.delete(&running).await.unwrap(), DeleteOutcome::NotFound);
    assert_eq!(harness.log.entries(), ["running 1"]);
    harness.engine.stop().await;
}

#[tokio::test]
async fn all_failed_jobs_are_retried_once_even_those_that_fail_again_at_once() {
    let store = FaultyStore::new();
    let harness = Harness::start_with(|_| {}, Some(store.clone())).await;
    let tasks = harness.node.tasks();
    let inputs = (0..250).map(|n| work(&n.to_string(), &["conflict", "conflict"]));
    tasks.enqueue_many::<Plain>(inputs, &EnqueueOptions::new()).await.unwrap();
    eventually("all failed", async || tasks.stats().await.unwrap().failed == 250).await;
    assert_eq!(tasks.retry_all_failed().await.unwrap(), 250);
    assert_eq!(store.takes.load(SeqCst), 3, "a hundred in one step");
    eventually("all failed again", async || tasks.stats().await.unwrap().failed == 250).await;
    let runs = harness.log.entries().iter().filter(|entry| entry.ends_with(" 1")).count();
    assert_eq!(runs, 500);
    harness.engine.stop().await;
}

#[tokio::test]
async fn jobs_that_this_node_cannot_run_wait_for_one_that_can() {
    let harness = Harness::start_with(|config| config.tasks.unknown_grace = Duration::from_secs(3600), None).await;
    let store = harness.engine.task_store().unwrap().clone();
    let job = |id: &str, text: String| phalanx_core::backend::NewJob::new(id, "default", text);
    let text = |class: &str, args: serde_json::Value, id: &str| {
        json!({ "class": class, "queue": "default", "args": [args], "id": id }).to_string()
    };
    let jobs = [
        job("new", text("new", json!({}), "new")),
        job("shape", text("plain", json!({ "title": "a" }), "shape")),
        job("text", "{nonsense".to_owned()),
    ];
    store.enqueue(&jobs, u64::MAX).await.unwrap();
    eventually("an unknown class is parked", async || store.stats().await.unwrap().parked == 1).await;
    let is_delayed = async || matches!(store.status("shape").await.unwrap().state, JobState::Delayed(_));
    eventually("an undecodable input comes back later", is_delayed).await;
    eventually("an unreadable job failed", async || store.stats().await.unwrap().failed == 1).await;
    let failed = harness.node.tasks().failed(0, 1).await.unwrap().remove(0);
    assert_eq!(failed.exception, "unreadable");
    assert!(failed.payload.get().contains("{nonsense"), "{}", failed.payload);
    harness.engine.stop().await;
}

#[tokio::test]
async fn after_the_grace_a_job_that_no_node_can_run_fails() {
    let harness = Harness::start_with(|config| config.tasks.unknown_grace = Duration::ZERO, None).await;
    let store = harness.engine.task_store().unwrap().clone();
    let job = |id: &str, class: &str| {
        phalanx_core::backend::NewJob::new(
            id,
            "default",
            json!({ "class": class, "queue": "default", "args": [{ "title": "a" }], "id": id }).to_string(),
        )
    };
    store.enqueue(&[job("new", "new"), job("shape", "plain")], u64::MAX).await.unwrap();
    harness.until_state("new", JobState::Failed).await;
    harness.until_state("shape", JobState::Failed).await;
    let mut failed = harness.node.tasks().failed(0, 2).await.unwrap();
    failed.sort_by_key(|failed| failed.task.clone());
    let exceptions: Vec<_> = failed.iter().map(|failed| (failed.task.as_str(), failed.exception.as_str())).collect();
    assert_eq!(exceptions, [("new", "unknown_task"), ("plain", "invalid_input")]);
    harness.engine.stop().await;
}
