//! `on_failed` of jobs that failed in no attempt of this node.

use std::sync::Arc;
use std::time::Duration;

use phalanx_core::Generation;
use phalanx_core::backend::{AttemptEnd, JobState, NewJob, Settlement, SystemClock, TaskStore, WorkerCall};
use phalanx_core::memory::MemoryTasks;

use crate::harness::Harness;

fn job(id: &str, class: &str, input: &str) -> NewJob {
    let text = format!(r#"{{"class":"{class}","queue":"default","args":[{input}],"id":"{id}"}}"#);
    NewJob::new(id, "default", text)
}

/// Three nodes die of the first job of the queue.
async fn convict(store: &MemoryTasks) {
    let dead = Generation::random();
    for token in 1..=3 {
        let call = WorkerCall {
            generation: dead,
            settlements: &[],
            first_token: token,
            wanted: 1,
            queues: &["default".into()],
            limits: &[],
            limited: &[],
            fetch_until_us: u64::MAX,
            takes_suspect: true,
            max_bytes: 1000,
        };
        assert_eq!(store.exchange(&call).await.unwrap().fetched.len(), 1);
        store.give_back(dead, dead, "w").await.unwrap();
    }
}

#[tokio::test]
async fn a_node_that_knows_the_task_of_a_convicted_job_runs_its_on_failed_once() {
    let store = Arc::new(MemoryTasks::new(Arc::new(SystemClock::new()), 1000));
    for id in ["a", "b"] {
        let input = format!(r#"{{"name":"{id}","ends":[]}}"#);
        store.enqueue(&[job(id, if id == "a" { "plain" } else { "another" }, &input)], u64::MAX).await.unwrap();
        convict(&store).await;
    }
    let harness = Harness::start_with(|_| {}, Some(store.clone())).await;
    harness.until_logged("a failed: poison, three nodes died while they ran it").await;
    let left = store.take_unattended(&["plain", "another"], 9).await.unwrap();
    assert_eq!(left.len(), 1, "that of a task which the node does not have");
    harness.engine.stop().await;
    assert_eq!(harness.log.entries().len(), 1);
}

/// An input that is no object is not decodable before an attempt begins.
#[tokio::test]
async fn the_on_failed_of_a_job_runs_whose_input_never_was_decodable() {
    let harness = Harness::start_with(|config| config.tasks.unknown_grace = Duration::ZERO, None).await;
    let store = harness.engine.task_store().unwrap().clone();
    let jobs = [job("list", "plain", "1,2"), job("shape", "plain", r#"{"title":1}"#)];
    store.enqueue(&jobs, u64::MAX).await.unwrap();
    for id in ["list", "shape"] {
        harness.until_state(id, JobState::Failed).await;
        crate::harness::eventually("on_failed ran", async || {
            let start = format!("{id} failed: invalid_input, ");
            harness.log.entries().iter().any(|entry| entry.starts_with(&start))
        })
        .await;
    }
    harness.engine.stop().await;
}

/// No node was there for long, and the first one that comes has the task.
#[tokio::test]
async fn a_job_that_was_parked_for_too_long_runs_on_a_node_that_knows_its_task() {
    let store = Arc::new(MemoryTasks::new(Arc::new(SystemClock::new()), 1000));
    let parked = [("new", "plain"), ("old", "another")].map(|(id, class)| job(id, class, r#"{"name":"a","ends":[]}"#));
    store.enqueue(&parked, u64::MAX).await.unwrap();
    let mut call = WorkerCall {
        generation: Generation::random(),
        settlements: &[],
        first_token: 1,
        wanted: 2,
        queues: &["default".into()],
        limits: &[],
        limited: &[],
        fetch_until_us: u64::MAX,
        takes_suspect: true,
        max_bytes: 1000,
    };
    let fetched = store.exchange(&call).await.unwrap().fetched;
    let parks = fetched.into_iter().zip(["plain", "another"]).map(|(job, class)| Settlement {
        attempt: job.attempt,
        id: None,
        end: AttemptEnd::Park { class: class.into() },
        unique: None,
        report: None,
        consequences: None,
    });
    let parks: Vec<Settlement> = parks.collect();
    (call.settlements, call.wanted) = (&parks, 0);
    store.exchange(&call).await.unwrap();
    let harness = Harness::start_with(|config| config.tasks.unknown_grace = Duration::ZERO, Some(store)).await;
    harness.until_state("old", JobState::Failed).await;
    harness.until_state("new", JobState::Done).await;
    harness.engine.stop().await;
}
