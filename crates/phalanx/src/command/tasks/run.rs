//! Carries out the command `tasks`, as a guest of the cluster.

use std::process::ExitCode;
use std::time::Duration;

use phalanx_core::backend::{DeleteOutcome, JobState};
use phalanx_core::task::EnqueueOptions;
use phalanx_core::{ActionError, Node, Tasks};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::super::confirm::{can_ask, confirm, needs_yes};
use super::super::describe;
use super::super::output::Printed;
use super::super::visit::{self, VisitLimit};
use super::print::{self, ListRow};
use super::{ListPart, NewTask, TasksCommand, TasksOperation};
use crate::app::{App, failed};
use crate::settings::Settings;

/// The pause between two looks of a watch.
const WATCH_PAUSE: Duration = Duration::from_secs(2);

/// Entries of a list that are read at a time: each job may have 1 MiB.
const PAGE: usize = 100;

/// Runs a command. Exit codes: 0, or 1 with the reason on stderr if it could not be carried out.
pub(crate) fn run(app: App, settings: Settings, command: TasksCommand) -> ExitCode {
    let TasksCommand { operation, as_json, yes } = command;
    let asks = operation.is_destructive() && !yes;
    if asks && !can_ask() {
        failed(&needs_yes(app.name(), &settings));
        return ExitCode::from(2);
    }
    visit::run(app, settings, as_json, VisitLimit::Entrance, async |node, _| {
        if asks {
            confirm(node, &question(node.tasks(), &operation).await.map_err(|error| describe(&error))?)?;
        }
        match operation {
            TasksOperation::Series { minutes, is_watched: true } => watch(node.tasks(), minutes, as_json).await,
            operation => carry_out(node, operation).await,
        }
    })
}

/// The question before an operation that is destructive, with the number of jobs.
async fn question(tasks: &Tasks, operation: &TasksOperation) -> Result<String, ActionError> {
    Ok(match operation {
        TasksOperation::Cancel(id) => format!("cancel 1 job, {id},"),
        TasksOperation::Delete(id) => format!("delete 1 job, {id},"),
        _ => format!("have {} failed jobs run again", tasks.stats().await?.failed),
    })
}

async fn carry_out(node: &Node, operation: TasksOperation) -> Result<Printed, String> {
    let (tasks, now_ms) = (node.tasks(), node.now_ms());
    let done = match operation {
        TasksOperation::Stats => tasks.stats().await.map(|stats| print::stats(&stats, now_ms)),
        TasksOperation::Series { minutes, .. } => series(tasks, minutes).await,
        TasksOperation::Waiting(queue, page) => {
            let read = async |skip, limit| {
                let texts = tasks.waiting(&queue, skip, limit).await?;
                Ok(texts.iter().map(|text| print::waiting(text, now_ms)).collect())
            };
            pages(page, read).await.map(|rows| print::list(print::WAITING, rows))
        }
        TasksOperation::Running(page) => {
            let read = async |skip, limit| Ok(tasks.running(skip, limit).await?.iter().map(print::running).collect());
            pages(page, read).await.map(|rows| print::list(print::RUNNING, rows))
        }
        TasksOperation::Failed(page) => {
            let read = async |skip, limit| Ok(tasks.failed(skip, limit).await?.iter().map(print::failed).collect());
            pages(page, read).await.map(|rows| print::list(print::FAILED, rows))
        }
        TasksOperation::Enqueue(job) => enqueue(tasks, job).await,
        TasksOperation::Retry(id) => retry(tasks, &id).await,
        TasksOperation::RetryAll => {
            tasks.retry_all_failed().await.map(|count| Printed::one(count, json!({ "retried": count })))
        }
        TasksOperation::Cancel(id) => cancel(tasks, &id).await,
        TasksOperation::Delete(id) => delete(tasks, &id).await,
        TasksOperation::Pause(queue) => {
            let line = json!({ "queue": queue, "paused": true });
            tasks.pause(&queue).await.map(|()| Printed::one(format!("{queue} is paused"), line))
        }
        TasksOperation::Resume(queue) => {
            let line = json!({ "queue": queue, "paused": false });
            tasks.resume(&queue).await.map(|()| Printed::one(format!("{queue} is resumed"), line))
        }
        TasksOperation::QuietNodes => tasks
            .quiet_nodes()
            .await
            .map(|nodes| print::list(print::NODES, nodes.into_iter().map(print::node).collect())),
        TasksOperation::Quiet(node) => {
            let line = json!({ "node": node, "quiet": true });
            tasks.quiet(&node).await.map(|()| Printed::one(format!("{node} is quiet"), line))
        }
        TasksOperation::EndQuiet(node) => {
            let line = json!({ "node": node, "quiet": false });
            tasks.end_quiet(&node).await.map(|()| Printed::one(format!("{node} fetches jobs"), line))
        }
    };
    done.map_err(|error| describe(&error))
}

/// The last minutes of each task.
async fn series(tasks: &Tasks, minutes: u64) -> Result<Printed, ActionError> {
    let series = tasks.last_minutes(minutes).await?;
    Ok(print::list(print::SERIES, series.iter().map(print::series).collect()))
}

/// Prints them again and again, until the reader of stdout leaves. An interrupt ends the process: it has nothing to undo.
async fn watch(tasks: &Tasks, minutes: u64, as_json: bool) -> Result<Printed, String> {
    loop {
        let printed = series(tasks, minutes).await.map_err(|error| describe(&error))?;
        if !printed.print_again(as_json).map_err(|error| format!("stdout: {error}"))? {
            return Ok(Printed::default());
        }
        sleep(WATCH_PAUSE).await;
    }
}

/// Reads a list in parts, until it ends or the limit is reached.
async fn pages<const COLUMNS: usize>(
    page: ListPart,
    read: impl AsyncFn(usize, usize) -> Result<Vec<ListRow<COLUMNS>>, ActionError>,
) -> Result<Vec<ListRow<COLUMNS>>, ActionError> {
    let mut all = Vec::new();
    while all.len() < page.limit {
        let wanted = PAGE.min(page.limit - all.len());
        let mut more = read(page.skip.saturating_add(all.len()), wanted).await?;
        let is_last = more.len() < wanted;
        all.append(&mut more);
        if is_last {
            break;
        }
    }
    Ok(all)
}

async fn enqueue(tasks: &Tasks, job: NewTask) -> Result<Printed, ActionError> {
    let mut options = EnqueueOptions::new();
    if let Some(queue) = job.queue {
        options = options.queue(queue);
    }
    if let Some(id) = job.id {
        options = options.id(id);
    }
    if let Some(key) = job.unique {
        options = options.unique(key);
    }
    if let Some(delay) = job.delay {
        options = options.delay(delay);
    }
    let input = job.input.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let stored = tasks.enqueue_named(&job.name, &input, options).await?;
    Ok(Printed::one(&stored.id, json!({ "id": &*stored.id, "enqueued": stored.enqueued })))
}

async fn retry(tasks: &Tasks, id: &str) -> Result<Printed, ActionError> {
    let failed = tasks.find_failed(id).await?.ok_or_else(|| ActionError::not_found("no failed job has that id"))?;
    if !tasks.retry_failed(&failed).await? {
        return Err(ActionError::conflict("the job is not among the failed ones any more, or cannot run"));
    }
    Ok(Printed::one(1, json!({ "retried": 1 })))
}

async fn cancel(tasks: &Tasks, id: &str) -> Result<Printed, ActionError> {
    let over = match tasks.status(id).await?.state {
        JobState::Failed => "the job has failed: `delete` removes it from the failed ones",
        JobState::Done => "the job is done",
        JobState::Dropped => "the job was deleted, discarded, or has expired",
        _ => return delete(tasks, id).await,
    };
    Err(ActionError::conflict(over))
}

async fn delete(tasks: &Tasks, id: &str) -> Result<Printed, ActionError> {
    let (outcome, meaning) = match tasks.delete(id).await? {
        DeleteOutcome::Deleted => ("deleted", "deleted"),
        DeleteOutcome::Marked => ("marked", "marked: it is dropped instead of run"),
        DeleteOutcome::Cancelling(_) => ("cancelling", "cancelling: it ends at its next await, and does not run again"),
        DeleteOutcome::NotFound => return Err(ActionError::not_found("there is no such job")),
    };
    Ok(Printed::one(meaning, json!({ "id": id, "outcome": outcome })))
}
