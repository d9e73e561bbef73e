//! Calls that fail, or are not answered: every job runs once, and none stays without a slot.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use phalanx_core::backend::{
    AttemptEnd, DeleteOutcome, JobState, LimitedQueue, NewJob, Settlement, TaskStore, WorkerCall,
};
use phalanx_core::config::Config;
use phalanx_core::task::Task;
use tokio::sync::Semaphore;

use crate::faulty_store::{Fault, FaultyStore};
use crate::harness::{Harness, Limited, Plain, Tracked, eventually};

/// A short time-out, so that lost answers are known to be lost soon.
fn hasty(config: &mut Config) {
    config.redis.command_timeout = Duration::from_millis(100);
}

/// The store has lost the list of the node's attempts, whose jobs wait in a queue that is paused.
async fn lose_attempts(harness: &Harness, store: &FaultyStore) {
    harness.node.tasks().pause("default").await.unwrap();
    let generation = harness.node.generation();
    store.inner.give_back(generation, generation, "w").await.unwrap();
}

#[tokio::test]
async fn lost_answers_lose_no_job_and_repeat_none() {
    let store = FaultyStore::new();
    let harness = Harness::start_with(hasty, Some(store.clone())).await;
    for (round, fault) in [Fault::AnswerLost, Fault::Lost, Fault::Refused, Fault::AnswerLost].into_iter().enumerate() {
        // The fetch fails, then the settlement.
        for faults in [vec![fault], vec![Fault::AnswerLost, fault]] {
            let name = format!("{round}-{}", faults.len());
            store.fail(faults);
            let id = harness.enqueue::<Plain>(&name, &[]).await;
            harness.until_state(&id, JobState::Done).await;
            eventually("all faults have been", async || store.is_through()).await;
            let runs = harness.log.entries().iter().filter(|entry| **entry == format!("{name} 1")).count();
            assert_eq!(runs, 1, "{name} {fault:?}");
        }
    }
    let generation = harness.node.generation();
    eventually("no attempt is left", async || store.attempts(generation).await.unwrap().is_empty()).await;
    assert_eq!(harness.engine.stop().await.abandoned, 0);
}

/// The answer that was lost said so too.
#[tokio::test]
async fn a_job_that_was_deleted_while_it_waited_does_not_run_when_the_answer_to_its_fetch_was_lost() {
    let store = FaultyStore::new();
    let harness = Harness::start_with(hasty, Some(store.clone())).await;
    harness.node.tasks().pause("default").await.unwrap();
    let [deleted, other] =
        [harness.enqueue::<Plain>("deleted", &[]).await, harness.enqueue::<Plain>("other", &[]).await];
    assert_eq!(harness.node.tasks().delete(&deleted).await.unwrap(), DeleteOutcome::Marked);
    store.fail([Fault::AnswerLost]);
    harness.node.tasks().resume("default").await.unwrap();
    harness.until_state(&other, JobState::Done).await;
    harness.until_state(&deleted, JobState::Unknown).await;
    assert_eq!(harness.log.entries(), ["other 1"]);
    harness.engine.stop().await;
}

#[tokio::test]
async fn an_attempt_that_the_store_lost_is_listed_again_and_not_cancelled() {
    let store = FaultyStore::new();
    let harness = Harness::start_with(hasty, Some(store.clone())).await;
    let id = harness.enqueue::<Plain>("a", &["wait"]).await;
    harness.until_waiting(1).await;
    lose_attempts(&harness, &store).await;
    // It answers the next call as one that has no lease of this node.
    store.fail([Fault::Reaped]);
    eventually("the attempt is listed again", async || store.relisted.lock().unwrap().len() == 1).await;
    harness.log.go_on.add_permits(1);
    harness.until_state(&id, JobState::Done).await;
    harness.engine.stop().await;
}

/// The mark of that is lost with all else.
#[tokio::test]
async fn an_attempt_of_a_tracked_task_is_listed_again_as_such() {
    let store = FaultyStore::new();
    let harness = Harness::start_with(hasty, Some(store.clone())).await;
    let tracked = harness.enqueue::<Tracked>("a", &["wait"]).await;
    let id = harness.enqueue::<Plain>("b", &["wait"]).await;
    harness.until_waiting(2).await;
    lose_attempts(&harness, &store).await;
    store.fail([Fault::Reaped]);
    eventually("both are listed again", async || store.relisted.lock().unwrap().len() == 2).await;
    assert_eq!(*store.relisted_tracked.lock().unwrap(), [Arc::from(&*tracked)]);
    harness.log.go_on.add_permits(2);
    harness.until_state(&tracked, JobState::Done).await;
    harness.until_state(&id, JobState::Done).await;
    harness.engine.stop().await;
}

/// Another node may fetch before this one calls again.
#[tokio::test]
async fn attempts_are_listed_again_with_the_limits_of_their_queues() {
    let store = FaultyStore::new();
    let harness = Harness::start_tasks(vec![Plain::DEF, Limited::DEF], hasty, Some(store.clone())).await.unwrap();
    let id = harness.enqueue::<Limited>("a", &["wait"]).await;
    harness.until_waiting(1).await;
    harness.node.tasks().pause("limited").await.unwrap();
    lose_attempts(&harness, &store).await;
    store.fail([Fault::Reaped]);
    eventually("the attempt is listed again", async || store.relisted.lock().unwrap().len() == 1).await;
    let limits = LimitedQueue::new("limited", Limited::DEF.limits);
    assert_eq!(*store.relisted_limits.lock().unwrap(), [limits]);
    assert!(store.relisted_tracked.lock().unwrap().is_empty());
    harness.log.go_on.add_permits(1);
    harness.until_state(&id, JobState::Done).await;
    harness.engine.stop().await;
}

#[tokio::test]
async fn a_settlement_without_a_lease_waits_until_its_attempt_is_listed_again() {
    let store = FaultyStore::new();
    let change = |config: &mut Config| {
        hasty(config);
        config.tasks.concurrency = 1; // so that nothing is sent before the settlement
    };
    let harness = Harness::start_with(change, Some(store.clone())).await;
    let id = harness.enqueue::<Plain>("a", &["wait"]).await;
    harness.until_waiting(1).await;
    lose_attempts(&harness, &store).await;
    store.fail([Fault::Reaped]);
    harness.log.go_on.add_permits(1);
    harness.until_state(&id, JobState::Done).await;
    assert_eq!(store.relisted.lock().unwrap().len(), 1);
    harness.engine.stop().await;
}

/// It has come back, empty, before a call could fail. The job of an attempt that is to run again would be lost.
#[tokio::test]
async fn a_settlement_that_the_store_does_not_know_shows_that_it_lost_data() {
    let store = FaultyStore::new();
    let harness = Harness::start_with(hasty, Some(store.clone())).await;
    let id = harness.enqueue::<Plain>("a", &["wait, then fail"]).await;
    harness.until_waiting(1).await;
    let attempts = store.inner.attempts(harness.node.generation()).await.unwrap();
    let done = attempts.iter().map(|job| Settlement {
        attempt: job.attempt.clone(),
        id: None,
        end: AttemptEnd::Dropped,
        unique: None,
        report: None,
        consequences: None,
    });
    let call = WorkerCall {
        generation: harness.node.generation(),
        settlements: &done.collect::<Vec<_>>(),
        first_token: 1,
        wanted: 0,
        queues: &[],
        limits: &[],
        limited: &[],
        fetch_until_us: 0,
        takes_suspect: false,
        max_bytes: 1,
    };
    store.inner.exchange(&call).await.unwrap();
    harness.log.go_on.add_permits(1);
    harness.until_state(&id, JobState::Done).await;
    assert_eq!(harness.log.entries(), ["a 1", "a 2"]);
    assert_eq!(store.relisted.lock().unwrap().len(), 1);
    harness.engine.stop().await;
}

#[tokio::test]
async fn a_settlement_that_was_lost_with_the_data_of_the_store_is_repeated() {
    let store = FaultyStore::new();
    let change = |config: &mut Config| {
        hasty(config);
        config.tasks.concurrency = 2;
    };
    let harness = Harness::start_with(change, Some(store.clone())).await;
    let ids = [harness.enqueue::<Plain>("a", &["wait"]).await, harness.enqueue::<Plain>("b", &["wait"]).await];
    harness.until_waiting(2).await;
    lose_attempts(&harness, &store).await;
    store.fail([Fault::Lost]);
    harness.log.go_on.add_permits(1);
    eventually("both are listed again", async || store.relisted.lock().unwrap().len() == 2).await;
    harness.log.go_on.add_permits(1);
    for id in &ids {
        harness.until_state(id, JobState::Done).await;
    }
    harness.engine.stop().await;
}

/// One attempt was settled by a call without an answer, and another is settled while the list is on its way: neither is on it,
/// and the store has lost nothing.
#[tokio::test]
async fn attempts_that_are_settled_while_the_list_is_read_are_not_taken_for_lost() {
    let store = FaultyStore::new();
    let harness = Harness::start_with(hasty, Some(store.clone())).await;
    let first = harness.enqueue::<Plain>("a", &["wait"]).await;
    harness.until_waiting(1).await;
    let second = harness.enqueue::<Plain>("b", &["wait"]).await;
    harness.until_waiting(2).await;
    let held = store.list_hold.lock().await;
    let lists = store.lists.load(SeqCst);
    store.fail([Fault::AnswerLost]);
    harness.log.go_on.add_permits(1);
    eventually("the attempts are being listed", async || store.lists.load(SeqCst) > lists).await;
    harness.log.go_on.add_permits(1);
    for id in [first, second] {
        harness.until_state(&id, JobState::Done).await;
    }
    drop(held);
    // After the list the node fetches again with all of its slots.
    let ids = [harness.enqueue::<Plain>("c", &["wait"]).await, harness.enqueue::<Plain>("d", &["wait"]).await];
    harness.until_waiting(4).await;
    harness.log.go_on.add_permits(2);
    for id in ids {
        harness.until_state(&id, JobState::Done).await;
    }
    harness.engine.stop().await;
    assert_eq!(*store.relisted.lock().unwrap(), [0_u64; 0]);
    assert_eq!(store.stats().await.unwrap().processed, 4, "none was settled twice");
}

#[tokio::test]
async fn an_attempt_that_is_being_listed_again_is_settled_after_that() {
    let store = FaultyStore::new();
    let harness = Harness::start_with(hasty, Some(store.clone())).await;
    let id = harness.enqueue::<Plain>("a", &["wait"]).await;
    harness.until_waiting(1).await;
    lose_attempts(&harness, &store).await;
    let held = store.relist_hold.lock().await;
    store.fail([Fault::Reaped]);
    eventually("the attempt is being listed again", async || store.relisted.lock().unwrap().len() == 1).await;
    harness.log.go_on.add_permits(1);
    // Long enough for a settlement that does not wait to be refused.
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(held);
    harness.until_state(&id, JobState::Done).await;
    assert_eq!(harness.log.entries(), ["a 1"]);
    harness.engine.stop().await;
}

#[tokio::test]
async fn a_job_that_a_lost_answer_brought_has_a_slot_until_the_list_shows_it() {
    let store = FaultyStore::new();
    let change = |config: &mut Config| {
        hasty(config);
        config.tasks.concurrency = 1;
    };
    let harness = Harness::start_with(change, Some(store.clone())).await;
    let held = store.list_hold.lock().await;
    store.fail([Fault::AnswerLost]);
    let first = harness.enqueue::<Plain>("a", &["wait"]).await;
    eventually("the attempts are being listed", async || store.lists.load(SeqCst) == 1).await;
    let second = harness.enqueue::<Plain>("b", &[]).await;
    // Long enough to fetch it, were the slot free.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(store.status(&second).await.unwrap().state, JobState::Waiting);
    drop(held);
    harness.until_waiting(1).await;
    assert_eq!(store.status(&second).await.unwrap().state, JobState::Waiting);
    harness.log.go_on.add_permits(1);
    for id in [first, second] {
        harness.until_state(&id, JobState::Done).await;
    }
    harness.engine.stop().await;
}

#[tokio::test]
async fn a_node_does_not_stop_before_the_list_shows_what_it_fetched() {
    let store = FaultyStore::new();
    let harness = Harness::start_with(hasty, Some(store.clone())).await;
    let held = store.list_hold.lock().await;
    store.fail([Fault::AnswerLost]);
    let id = harness.enqueue::<Plain>("a", &[]).await;
    eventually("the attempts are being listed", async || store.lists.load(SeqCst) == 1).await;
    let engine = harness.engine.clone();
    let stopping = tokio::spawn(async move { engine.stop().await });
    // Long enough for a worker that does not wait to end.
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(held);
    assert_eq!(stopping.await.unwrap().abandoned, 0);
    assert_eq!(store.status(&id).await.unwrap().state, JobState::Done);
}

/// A reaper gives back what it fetched, if it fetched anything.
#[tokio::test]
async fn a_store_that_does_not_answer_delays_a_stop_for_three_seconds_at_most() {
    let store = FaultyStore::new();
    let harness = Harness::start_with(hasty, Some(store.clone())).await;
    let _held = store.list_hold.lock().await;
    store.fail([Fault::AnswerLost]);
    harness.enqueue::<Plain>("a", &[]).await;
    eventually("the attempts are being listed", async || store.lists.load(SeqCst) == 1).await;
    let stopping = tokio::time::timeout(Duration::from_secs(9), harness.engine.stop());
    assert_eq!(stopping.await.expect("the grace is 30 s").abandoned, 0);
}

#[tokio::test]
async fn jobs_run_while_a_settlement_waits_for_a_spoilt_key() {
    let store = FaultyStore::new();
    let harness = Harness::start_with(|config| config.tasks.concurrency = 1, Some(store.clone())).await;
    let stuck = harness.enqueue::<Plain>("stuck", &["wait"]).await;
    harness.until_waiting(1).await;
    store.fail([Fault::Spoilt]);
    harness.log.go_on.add_permits(1);
    eventually("a key is spoilt", async || store.is_through()).await;
    let next = harness.enqueue::<Plain>("next", &[]).await;
    harness.until_state(&next, JobState::Done).await;
    let running = JobState::Running(harness.node.generation());
    assert_eq!(store.status(&stuck).await.unwrap().state, running, "its settlement is not repeated yet");
    harness.until_state(&stuck, JobState::Done).await;
    harness.engine.stop().await;
}

#[tokio::test]
async fn parked_jobs_are_looked_for_by_one_call_at_a_time() {
    let store = FaultyStore::new();
    let held = store.look_hold.lock().await;
    let harness = Harness::start_with(hasty, Some(store.clone())).await;
    eventually("a call is under way", async || store.looks.load(SeqCst) == 1).await;
    // Longer than its period of a second.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(store.looks.load(SeqCst), 1);
    drop(held);
    eventually("the next call follows", async || store.looks.load(SeqCst) > 1).await;
    harness.engine.stop().await;
}

#[tokio::test]
async fn a_node_that_cannot_settle_says_how_much_it_leaves() {
    let store = FaultyStore::new();
    let change = |config: &mut Config| {
        hasty(config);
        config.general.grace = Duration::from_millis(200);
    };
    let harness = Harness::start_with(change, Some(store.clone())).await;
    harness.enqueue::<Plain>("a", &["wait"]).await;
    harness.until_waiting(1).await;
    store.fail([Fault::Lost; 100]);
    harness.log.go_on.add_permits(1);
    assert_eq!(harness.engine.stop().await.abandoned, 1);
}

#[tokio::test]
async fn a_node_whose_worker_panicked_is_not_ready() {
    let store = FaultyStore::new();
    let harness = Harness::start_with(hasty, Some(store.clone())).await;
    assert!(harness.node.health().is_empty());
    store.fail([Fault::Panic]);
    harness.enqueue::<Plain>("a", &[]).await;
    let problem = vec!["the worker of tasks has panicked".to_owned()];
    eventually("the node says so", async || harness.node.health() == problem).await;
    assert_eq!(harness.engine.stop().await.abandoned, 1);
}

/// Else the store would wait for the node while it handles the other one.
#[tokio::test]
async fn the_call_that_follows_a_reply_is_sent_before_another_reply_is_looked_at() {
    let (store, answers) = (FaultyStore::new(), Arc::new(Semaphore::new(0)));
    *store.answers.lock().unwrap() = Some(answers.clone());
    let harness = Harness::start_with(|config| config.tasks.concurrency = 2, Some(store.clone())).await;
    // They are settled, as parked, without an attempt on another thread.
    let job = |n: usize| NewJob::new(n.to_string(), "default", r#"{"class":"unknown","queue":"default","args":[]}"#);
    store.enqueue(&(0..8).map(job).collect::<Vec<_>>(), u64::MAX).await.unwrap();
    let steps = async |count: usize| {
        eventually("steps were taken", async || store.steps.lock().unwrap().len() >= count).await;
        std::mem::take(&mut *store.steps.lock().unwrap())
    };
    assert_eq!(steps(1).await, ["sent"]);
    answers.add_permits(1);
    assert_eq!(steps(3).await, ["answered", "sent", "sent"], "two calls take turns");
    answers.add_permits(2);
    assert_eq!(steps(4).await, ["answered", "sent", "answered", "sent"]);
    *store.answers.lock().unwrap() = None;
    answers.add_permits(2);
    harness.engine.stop().await;
}
