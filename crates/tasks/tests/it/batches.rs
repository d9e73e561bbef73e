//! Batches, by the author's handle.

use std::time::Duration;

use phalanx_core::ActionError;
use phalanx_core::answer::{IntoAnswer, answering};
use phalanx_core::backend::{BatchStage, JobState};
use phalanx_core::config::Config;
use phalanx_core::task::{
    BatchOptions, EnqueueOptions, JobBatch, MAX_BATCH_DEADLINE, Task, TaskContext, TaskDef, decode_input,
};

use crate::harness::{Harness, Log, PLAIN, Plain, Work, eventually, work};

/// Logs the numbers of its batch.
struct Report;

impl Task for Report {
    type Input = Work;
    const DEF: TaskDef = TaskDef {
        name: "report",
        run: |ctx, body| {
            answering(async move {
                let input: Work = match body.params(&ctx).await {
                    Ok(params) => decode_input(&params)?,
                    Err(outcome) => return outcome,
                };
                let ctx = TaskContext::of(&ctx)?;
                let status = ctx.batch().expect("it completes one").status().await?;
                let numbers = [status.total, status.done, status.failed, status.deleted];
                let stage = status.stage.as_str();
                ctx.node().state::<Log>().unwrap().add(format!("{} {stage} {numbers:?}", input.name));
                ().into_answer()
            })
        },
        ..PLAIN
    };
}

/// Creates a batch of three, and fails in its first attempt before it adds the last one, and in its second after the seal.
struct Album;

impl Task for Album {
    type Input = Work;
    const DEF: TaskDef = TaskDef {
        name: "album",
        run: |ctx, _| {
            answering(async move {
                let ctx = TaskContext::of(&ctx)?;
                let options = BatchOptions::new().completion::<Report>(work("over", &[]))?;
                let batch = ctx.tasks().create_batch(options).await?;
                for name in ["a", "b"] {
                    batch.add::<Plain>(work(name, &[])).await?;
                }
                if ctx.attempt() == 1 {
                    return Err(ActionError::internal("disk full"));
                }
                batch.add_many::<Plain>([work("a", &[])], &EnqueueOptions::new()).await?;
                let total = batch.seal().await?.total;
                ctx.node().state::<Log>().unwrap().add(format!("sealed with {total}"));
                if ctx.attempt() == 2 {
                    return Err(ActionError::internal("disk full"));
                }
                batch.seal().await?;
                ().into_answer()
            })
        },
        ..PLAIN
    };
}

#[tokio::test]
async fn a_job_that_runs_again_goes_on_with_its_batch() {
    let harness = Harness::start_tasks(vec![Plain::DEF, Report::DEF, Album::DEF], |_| {}, None).await.unwrap();
    for run in 1..=2 {
        let album = harness.enqueue::<Album>("album", &[]).await;
        harness.until_state(&album, JobState::Done).await;
        let of = |start: &str| harness.log.entries().iter().filter(|entry| entry.starts_with(start)).count();
        eventually("its completion ran", async || of("over") == run).await;
        assert_eq!(
            (of("over finished [3, 3, 0, 0]"), of("sealed with 3"), of("a "), of("b ")),
            (run, 2 * run, 2 * run, run)
        );
    }
    harness.engine.stop().await;
}

async fn start(change: impl FnOnce(&mut Config)) -> Harness {
    Harness::start_tasks(vec![Plain::DEF, Report::DEF], change, None).await.unwrap()
}

async fn create(harness: &Harness, options: BatchOptions) -> JobBatch {
    let options = options.completion::<Report>(work("over", &[])).unwrap();
    harness.node.tasks().create_batch(options).await.unwrap()
}

#[tokio::test]
async fn a_batch_counts_its_members_and_runs_its_completion_once() {
    let harness = start(|_| {}).await;
    let batch = create(&harness, BatchOptions::new()).await;
    batch.add::<Plain>(work("a", &["error"])).await.unwrap();
    let fails = batch.add::<Plain>(work("b", &["conflict"])).await.unwrap();
    batch.add::<Plain>(work("c", &["discard"])).await.unwrap();
    let many = batch.add_many::<Plain>(["d", "e"].map(|name| work(name, &[])), &EnqueueOptions::new()).await.unwrap();
    harness.until_state(&fails.id, JobState::Failed).await;
    eventually("all ended", async || batch.status().await.unwrap().pending() == 0).await;
    let open = batch.status().await.unwrap();
    assert_eq!((open.stage, open.total, open.done, open.failed, open.deleted), (BatchStage::Open, 5, 3, 1, 1));
    assert_eq!(batch.seal().await.unwrap().stage, BatchStage::Finished);
    harness.until_logged("over finished [5, 3, 1, 1]").await;
    // Retried, it changes nothing.
    let failed = harness.node.tasks().failed(0, 1).await.unwrap().remove(0);
    assert!(harness.node.tasks().retry_failed(&failed).await.unwrap());
    harness.until_state(&fails.id, JobState::Done).await;
    assert_eq!(batch.status().await.unwrap().failed, 1);
    assert_eq!(harness.log.entries().iter().filter(|entry| entry.starts_with("over")).count(), 1);
    assert_eq!(harness.node.tasks().status(&many[1]).await.unwrap().state, JobState::Done);
    harness.engine.stop().await;
}

#[tokio::test]
async fn misuse_of_a_batch_is_refused_by_its_name() {
    let harness = start(|config| config.tasks.concurrency = 0).await;
    let tasks = harness.node.tasks();
    let code = |error: phalanx_core::ActionError| error.code().to_owned();
    for deadline in [Duration::ZERO, MAX_BATCH_DEADLINE + Duration::from_secs(1)] {
        let refused = tasks.create_batch(BatchOptions::new().deadline(deadline)).await;
        assert_eq!(refused.map(drop).map_err(code), Err("invalid_input".to_owned()));
    }
    let unknown = tasks.batch("made up");
    let refused = unknown.add::<Plain>(work("a", &[])).await;
    assert_eq!(refused.map(drop).map_err(code), Err("unknown_batch".to_owned()));
    assert_eq!(unknown.seal().await.map(drop).map_err(code), Err("unknown_batch".to_owned()));
    assert_eq!(unknown.status().await.map(drop).map_err(code), Err("unknown_batch".to_owned()));
    let batch = create(&harness, BatchOptions::new()).await;
    batch.add::<Plain>(work("a", &[])).await.unwrap();
    assert_eq!(tasks.batch(batch.id().clone()).seal().await.unwrap().stage, BatchStage::Sealed);
    let refused = batch.add_many::<Plain>([work("b", &[])], &EnqueueOptions::new()).await;
    assert_eq!(refused.map(drop).map_err(code), Err("batch_sealed".to_owned()));
    assert_eq!(batch.seal().await.map(drop).map_err(code), Err("batch_sealed".to_owned()));
    let invalid = batch.add_named("plain", &serde_json::json!({}), EnqueueOptions::new()).await;
    assert_eq!(invalid.map(drop).map_err(code), Err("invalid_input".to_owned()));
    assert_eq!(batch.status().await.unwrap().total, 1);
    let empty = create(&harness, BatchOptions::new()).await;
    assert_eq!(empty.seal().await.unwrap().stage, BatchStage::Finished);
    let waiting = tasks.waiting("default", 0, 9).await.unwrap();
    let completion = String::from_utf8_lossy(waiting.last().unwrap());
    assert!(!completion.contains("enqueued_at"), "when it was enqueued is not known before: {completion}");
    harness.engine.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_not_over_by_its_deadline_expires() {
    let harness = start(|_| {}).await;
    let batch = create(&harness, BatchOptions::new().deadline(Duration::from_millis(30))).await;
    batch.add::<Plain>(work("a", &["wait"])).await.unwrap();
    batch.seal().await.unwrap();
    harness.until_logged("over expired [1, 0, 0, 0]").await;
    harness.log.go_on.add_permits(1);
    let refused = batch.add::<Plain>(work("b", &[])).await.unwrap_err();
    assert_eq!(refused.code(), "batch_expired");
    harness.engine.stop().await;
}
