//! Checkpoints.

use phalanx_core::answer::{IntoAnswer, answering};
use phalanx_core::backend::{JobState, NewJob};
use phalanx_core::task::{MAX_CHECKPOINT_BYTES, Task, TaskContext, TaskDef, decode_input};

use crate::harness::{Harness, Log, PLAIN, Work, work};

/// Logs the last checkpoint, stores the number of its attempt, and fails until the third.
struct Stepping;

impl Task for Stepping {
    type Input = Work;
    const DEF: TaskDef = TaskDef {
        name: "stepping",
        run: |ctx, body| {
            answering(async move {
                let input: Work = match body.params(&ctx).await {
                    Ok(params) => decode_input(&params)?,
                    Err(outcome) => return outcome,
                };
                let ctx = TaskContext::of(&ctx)?;
                let last: Option<u32> = ctx.last_checkpoint().await?;
                ctx.node().state::<Log>().unwrap().add(format!("{} {last:?}", ctx.attempt()));
                match input.ends.first().map_or("", String::as_str) {
                    "too large" => ctx.checkpoint(&"x".repeat(MAX_CHECKPOINT_BYTES - 1)).await?,
                    _ => ctx.checkpoint(&ctx.attempt()).await?,
                }
                if ctx.attempt() < 3 {
                    return Err(phalanx_core::ActionError::internal("disk full"));
                }
                ().into_answer()
            })
        },
        ..PLAIN
    };
}

async fn start() -> Harness {
    Harness::start_tasks(vec![Stepping::DEF], |_| {}, None).await.unwrap()
}

#[tokio::test]
async fn the_next_attempt_has_the_last_checkpoint_and_the_success_removes_it() {
    let harness = start().await;
    let id = harness.enqueue::<Stepping>("a", &[]).await;
    harness.until_state(&id, JobState::Done).await;
    assert_eq!(harness.log.entries(), ["1 None", "2 Some(1)", "3 Some(2)"]);
    let left = harness.engine.task_store().unwrap().checkpoint(&id).await.unwrap();
    assert_eq!(left, None);
    harness.engine.stop().await;
}

#[tokio::test]
async fn a_checkpoint_that_is_too_large_is_refused() {
    let harness = start().await;
    let id = harness.enqueue::<Stepping>("a", &["too large"]).await;
    harness.until_state(&id, JobState::Failed).await;
    let failed = harness.node.tasks().find_failed(&id).await.unwrap().unwrap();
    assert_eq!(failed.exception, "payload_too_large");
    harness.engine.stop().await;
}

#[tokio::test]
async fn a_job_of_another_program_has_no_checkpoint() {
    let harness = start().await;
    let text = r#"{"class":"stepping","queue":"default","args":[{"name":"a","ends":[]}]}"#;
    let input = work("a", &[]);
    let job = NewJob::new(input.name.as_str(), "default", text);
    harness.engine.task_store().unwrap().enqueue(&[job], u64::MAX).await.unwrap();
    crate::harness::eventually("it has failed", async || {
        harness.node.tasks().failed(0, 1).await.unwrap().iter().any(|failed| failed.exception == "no_id")
    })
    .await;
    harness.engine.stop().await;
}
