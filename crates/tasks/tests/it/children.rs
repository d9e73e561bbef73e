//! Jobs that attempts enqueue: at once, and by their success.

use std::sync::Arc;
use std::time::Duration;

use phalanx_core::ActionError;
use phalanx_core::answer::{IntoAnswer, answering};
use phalanx_core::backend::{JobState, TaskStore};
use phalanx_core::config::Config;
use phalanx_core::task::{EnqueueOptions, MAX_FOLLOW_UPS, Task, TaskContext, TaskDef, decode_input};

use crate::faulty_store::{Fault, FaultyStore};
use crate::harness::{Harness, Log, PLAIN, Plain, Work, eventually, work};

/// Enqueues three jobs, two of them alike: at once, or, if its first end is `after`, by its success. Then ends as its last ends say,
/// one for each attempt.
struct Parent;

impl Task for Parent {
    type Input = Work;
    const DEF: TaskDef = TaskDef {
        name: "parent",
        on_failed: Some(|ctx, _| Box::pin(follow_failure(ctx))),
        run: |ctx, body| {
            answering(async move {
                let input: Work = match body.params(&ctx).await {
                    Ok(params) => decode_input(&params)?,
                    Err(outcome) => return outcome,
                };
                let ctx = TaskContext::of(&ctx)?;
                let tasks = ctx.tasks();
                for name in ["a", "b", "a"] {
                    let child = work(name, &[]);
                    if input.ends[0] == "after" {
                        tasks.after::<Plain>(child).await?;
                    } else {
                        let stored = tasks.enqueue::<Plain>(child).await?;
                        ctx.node().state::<Log>().unwrap().add(format!(
                            "{} stored: {}",
                            ctx.attempt(),
                            stored.enqueued
                        ));
                    }
                }
                if input.ends[0] == "too many" {
                    for number in 0..=MAX_FOLLOW_UPS {
                        tasks.after::<Plain>(work(&number.to_string(), &[])).await?;
                    }
                }
                if input.ends[0] == "with an id" {
                    tasks.after_with::<Plain>(work("c", &[]), EnqueueOptions::new().id("mine")).await?;
                }
                match input.ends.get(ctx.attempt() as usize).map_or("ok", String::as_str) {
                    "ok" => ().into_answer(),
                    _ => Err(ActionError::internal("disk full")),
                }
            })
        },
        ..PLAIN
    };
}

/// The job has not succeeded: nothing can follow.
async fn follow_failure(ctx: TaskContext) {
    let refused = ctx.tasks().after::<Plain>(work("c", &[])).await.unwrap_err();
    ctx.node().state::<Log>().unwrap().add(format!("refused: {}", refused.code()));
}

async fn start(store: Option<Arc<FaultyStore>>) -> Harness {
    let store = store.map(|store| store as Arc<dyn TaskStore>);
    // A short time-out, so that lost answers are known to be lost soon.
    let hasty = |config: &mut Config| config.redis.command_timeout = Duration::from_millis(100);
    Harness::start_tasks(vec![Plain::DEF, Parent::DEF], hasty, store).await.unwrap()
}

/// How often children ran, once nothing is left.
async fn runs(harness: &Harness) -> usize {
    eventually("nothing is left", async || {
        let stats = harness.node.tasks().stats().await.unwrap();
        stats.running + stats.delayed + stats.queues.iter().map(|(_, length)| length).sum::<u64>() == 0
    })
    .await;
    harness.log.entries().iter().filter(|entry| matches!(entry.as_str(), "a 1" | "b 1")).count()
}

#[tokio::test]
async fn an_attempt_that_runs_again_enqueues_its_jobs_once() {
    let harness = start(None).await;
    let id = harness.enqueue::<Parent>("p", &["at once", "error", "ok"]).await;
    harness.until_state(&id, JobState::Done).await;
    assert_eq!(runs(&harness).await, 3);
    let entries = harness.log.entries();
    let stored = |entry: &str| entries.iter().filter(|found| *found == entry).count();
    assert_eq!((stored("1 stored: true"), stored("2 stored: false")), (3, 3), "{entries:?}");
    harness.engine.stop().await;
}

#[tokio::test]
async fn follow_on_jobs_are_enqueued_by_the_success_of_their_job_alone() {
    let harness = start(None).await;
    harness.enqueue::<Parent>("p", &["after", "error", "error", "error"]).await;
    harness.until_logged("refused: task_ended").await;
    assert_eq!(runs(&harness).await, 0);
    let id = harness.enqueue::<Parent>("p", &["after", "error", "ok"]).await;
    harness.until_state(&id, JobState::Done).await;
    assert_eq!(runs(&harness).await, 3);
    harness.engine.stop().await;
}

/// The settlement is sent again: whether its first sending took effect is not known.
#[tokio::test]
async fn a_settlement_whose_answer_is_lost_stores_follow_on_jobs_once() {
    let store = FaultyStore::new();
    let harness = start(Some(store.clone())).await;
    for (round, fault) in [Fault::AnswerLost, Fault::Lost, Fault::Refused].into_iter().enumerate() {
        // The answer to the fetch is lost as well, so that the next call settles.
        store.fail([Fault::AnswerLost, fault]);
        let id = harness.enqueue::<Parent>("p", &["after"]).await;
        harness.until_state(&id, JobState::Done).await;
        assert_eq!(runs(&harness).await, 3 * (round + 1), "{fault:?}");
        assert!(store.is_through());
    }
    harness.engine.stop().await;
}

#[tokio::test]
async fn misuse_of_follow_on_jobs_is_refused_by_its_name() {
    let harness = start(None).await;
    let refused = harness.node.tasks().after::<Plain>(work("a", &[])).await.unwrap_err();
    assert_eq!(refused.code(), "no_attempt");
    for (end, code) in [("too many", "payload_too_large"), ("with an id", "invalid_input")] {
        let id = harness.enqueue::<Parent>("p", &[end]).await;
        harness.until_state(&id, JobState::Failed).await;
        let failed = harness.node.tasks().find_failed(&id).await.unwrap().unwrap();
        assert_eq!(failed.exception, code);
    }
    harness.engine.stop().await;
}
