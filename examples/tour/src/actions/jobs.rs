//! Actions about the task queue.

use std::collections::BTreeMap;

use phalanx::jobs::{DeleteOutcome, JobView};
use phalanx::prelude::*;
use serde_json::{Map, Value};

#[input]
#[expect(non_snake_case, reason = "a field is named as it is on the wire")]
pub(crate) struct Job {
    name: String,
    input: Option<Map<String, Value>>,
    queue: Option<String>,
    delayMs: Option<f64>,
    at: Option<u64>,
    unique: Option<String>,
}

#[output]
pub(crate) struct Enqueued {
    id: String,
    enqueued: bool,
}

/// Enqueues a job.
#[action(name = "taskEnqueue", post = "/tasks")]
pub(crate) async fn task_enqueue(ctx: Context, job: Job) -> Result<Enqueued, ActionError> {
    let mut options = EnqueueOptions::new();
    if let Some(queue) = job.queue {
        options = options.queue(queue);
    }
    if let Some(delay) = job.delayMs {
        options = options.delay_ms(delay);
    }
    if let Some(at) = job.at {
        options = options.at_ms(at);
    }
    if let Some(key) = job.unique {
        options = options.unique(key);
    }
    let input = Value::Object(job.input.unwrap_or_default());
    let job = ctx.tasks().enqueue_named(&job.name, &input, options).await?;
    Ok(Enqueued { id: job.id.to_string(), enqueued: job.enqueued })
}

#[output]
pub(crate) struct Stats {
    queues: BTreeMap<String, Queue>,
    running: u64,
    delayed: u64,
    failed: u64,
    processed: u64,
    workers: Vec<String>,
}

#[output]
pub(crate) struct Queue {
    length: u64,
}

/// Returns the numbers of the task queue.
#[action(name = "taskStats", get = "/tasks")]
pub(crate) async fn task_stats(ctx: Context) -> Result<Stats, ActionError> {
    let stats = ctx.tasks().stats().await?;
    Ok(Stats {
        queues: stats.queues.into_iter().map(|(name, length)| (name, Queue { length })).collect(),
        running: stats.running,
        delayed: stats.delayed,
        failed: stats.failed,
        processed: stats.processed,
        workers: stats.workers,
    })
}

#[input]
pub(crate) struct JobId {
    id: String,
}

/// Returns the status of a job.
#[action(name = "taskStatus", get = "/tasks/{id}")]
pub(crate) async fn task_status(ctx: Context, input: JobId) -> Result<JobView, ActionError> {
    ctx.tasks().status(&input.id).await.map(JobView::from)
}

#[output]
pub(crate) struct Deleted {
    outcome: String,
}

/// Deletes a job.
#[action(name = "taskDelete", delete = "/tasks/{id}")]
pub(crate) async fn task_delete(ctx: Context, input: JobId) -> Result<Deleted, ActionError> {
    let outcome = match ctx.tasks().delete(&input.id).await? {
        DeleteOutcome::Deleted => "deleted",
        DeleteOutcome::Marked => "marked",
        DeleteOutcome::Cancelling(_) => "cancelling",
        DeleteOutcome::NotFound => "not_found",
    };
    Ok(Deleted { outcome: outcome.to_owned() })
}

#[output]
pub(crate) struct Retried {
    retried: usize,
}

/// Has all failed jobs run again.
#[action(name = "taskRetryAll", post = "/failed/retry")]
pub(crate) async fn task_retry_all(ctx: Context) -> Result<Retried, ActionError> {
    Ok(Retried { retried: ctx.tasks().retry_all_failed().await? })
}

#[input]
pub(crate) struct QueueName {
    name: String,
}

/// Pauses a queue on all nodes.
#[action(name = "queuePause", post = "/queues/{name}/pause")]
pub(crate) async fn queue_pause(ctx: Context, input: QueueName) -> Result<(), ActionError> {
    ctx.tasks().pause(&input.name).await
}

/// Resumes a queue.
#[action(name = "queueResume", post = "/queues/{name}/resume")]
pub(crate) async fn queue_resume(ctx: Context, input: QueueName) -> Result<(), ActionError> {
    ctx.tasks().resume(&input.name).await
}
