//! Actions about batches of jobs.

use std::time::Duration;

use phalanx::jobs::{BatchOptions, BatchStatus};
use phalanx::prelude::*;
use serde_json::{Map, Value};

use crate::tasks::batch_over;

#[input]
#[expect(non_snake_case, reason = "a field is named as it is on the wire")]
pub(crate) struct Member {
    name: String,
    input: Option<Map<String, Value>>,
    delayMs: Option<f64>,
}

#[input]
#[expect(non_snake_case, reason = "a field is named as it is on the wire")]
pub(crate) struct NewBatch {
    members: Vec<Member>,
    deadlineMs: Option<u64>,
    /// Without it the batch is sealed.
    open: Option<bool>,
}

#[output]
pub(crate) struct CreatedBatch {
    id: String,
    members: Vec<String>,
}

/// Creates a batch of jobs, whose end appends its numbers to the list `batches`.
#[action(name = "batchCreate", post = "/batches", deadline = "0")]
pub(crate) async fn batch_create(ctx: Context, input: NewBatch) -> Result<CreatedBatch, ActionError> {
    let mut options = BatchOptions::new().completion::<batch_over>(NoInput {})?;
    if let Some(deadline) = input.deadlineMs {
        options = options.deadline(Duration::from_millis(deadline));
    }
    let batch = ctx.tasks().create_batch(options).await?;
    let mut members = Vec::with_capacity(input.members.len());
    for member in input.members {
        let mut options = EnqueueOptions::new();
        if let Some(delay) = member.delayMs {
            options = options.delay_ms(delay);
        }
        let input = Value::Object(member.input.unwrap_or_default());
        members.push(batch.add_named(&member.name, &input, options).await?.id.to_string());
    }
    if !input.open.unwrap_or_default() {
        batch.seal().await?;
    }
    Ok(CreatedBatch { id: batch.id().to_string(), members })
}

#[input]
pub(crate) struct BatchId {
    id: String,
}

#[output]
pub(crate) struct BatchNumbers {
    stage: String,
    total: u64,
    pending: u64,
    done: u64,
    failed: u64,
    deleted: u64,
    completion: Option<String>,
}

impl From<BatchStatus> for BatchNumbers {
    fn from(status: BatchStatus) -> Self {
        Self {
            stage: status.stage.as_str().to_owned(),
            total: status.total,
            pending: status.pending(),
            done: status.done,
            failed: status.failed,
            deleted: status.deleted,
            completion: status.completion.map(|id| id.to_string()),
        }
    }
}

/// Returns the numbers of a batch.
#[action(name = "batchStatus", get = "/batches/{id}")]
pub(crate) async fn batch_status(ctx: Context, input: BatchId) -> Result<BatchNumbers, ActionError> {
    Ok(ctx.tasks().batch(input.id).status().await?.into())
}

/// Seals a batch.
#[action(name = "batchSeal", post = "/batches/{id}/seal")]
pub(crate) async fn batch_seal(ctx: Context, input: BatchId) -> Result<BatchNumbers, ActionError> {
    Ok(ctx.tasks().batch(input.id).seal().await?.into())
}
