//! The tasks of the tour.

use std::time::Duration;

use phalanx::TaskDef;
use phalanx::config::Config;
use phalanx::prelude::*;
use serde_json::{Value, json};

/// Does nothing.
#[task]
pub(crate) async fn noop(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

#[input]
pub(crate) struct Time {
    ms: u64,
}

/// Waits.
#[task]
pub(crate) async fn sleep(_ctx: TaskContext, input: Time) -> Result<(), ActionError> {
    tokio::time::sleep(Duration::from_millis(input.ms)).await;
    Ok(())
}

/// The same; it ends where its node cannot count on its lease.
#[task(exclusive)]
pub(crate) async fn exclusive(_ctx: TaskContext, input: Time) -> Result<(), ActionError> {
    tokio::time::sleep(Duration::from_millis(input.ms)).await;
    Ok(())
}

/// Blocks its thread, and has one of its own.
#[task(blocking, attempts = 3, backoff = "100ms", max_backoff = "100ms")]
#[expect(clippy::disallowed_methods, reason = "that is what it is for")]
pub(crate) async fn block(_ctx: TaskContext, input: Time) -> Result<(), ActionError> {
    std::thread::sleep(Duration::from_millis(input.ms));
    Ok(())
}

/// Blocks a thread that others share, by mistake.
#[task(attempts = 3, backoff = "100ms", max_backoff = "100ms")]
#[expect(clippy::disallowed_methods, reason = "that is what it is for")]
pub(crate) async fn freeze(_ctx: TaskContext, input: Time) -> Result<(), ActionError> {
    std::thread::sleep(Duration::from_millis(input.ms));
    Ok(())
}

#[input]
pub(crate) struct Name {
    name: String,
}

/// Adds 1 to a counter.
#[task]
pub(crate) async fn count(ctx: TaskContext, input: Name) -> Result<(), ActionError> {
    ctx.cache().increment(&format!("counter:{}", input.name), 1).await?;
    Ok(())
}

#[input]
pub(crate) struct Amount {
    name: String,
    by: i64,
}

/// The same in a later version of the tour, where the amount is a field that earlier jobs lack.
#[task(name = "count")]
pub(crate) async fn count_2(ctx: TaskContext, input: Amount) -> Result<(), ActionError> {
    ctx.cache().increment(&format!("counter:{}", input.name), input.by).await?;
    Ok(())
}

#[input]
pub(crate) struct Steps {
    steps: u32,
    ms: u64,
}

#[output]
pub(crate) struct StepsTaken {
    steps: u32,
}

/// Takes steps of so many milliseconds, and reports each.
#[task(tracked)]
pub(crate) async fn progress(ctx: TaskContext, input: Steps) -> Result<StepsTaken, ActionError> {
    for step in 1..=input.steps {
        tokio::time::sleep(Duration::from_millis(input.ms)).await;
        ctx.heartbeat()?;
        ctx.progress(&json!({ "step": step, "steps": input.steps }))?;
    }
    Ok(StepsTaken { steps: input.steps })
}

#[input]
pub(crate) struct Entry {
    list: String,
    value: Value,
}

/// Appends to a list.
#[task]
pub(crate) async fn record(ctx: TaskContext, input: Entry) -> Result<(), ActionError> {
    ctx.cache().push(&input.list, &input.value).await?;
    Ok(())
}

#[input]
pub(crate) struct Message {
    message: String,
}

/// Never succeeds.
#[task(attempts = 3, backoff = "100ms", max_backoff = "100ms", on_failed = record_failure)]
pub(crate) async fn fail(_ctx: TaskContext, input: Message) -> Result<(), ActionError> {
    tracing::info!("fails as requested");
    Err(ActionError::conflict(input.message))
}

/// Appends the job that failed to the list `failures`.
async fn record_failure(ctx: TaskContext, failure: TaskFailure) {
    if let Err(error) = ctx.cache().push("failures", &format!("{}: {}", ctx.id(), failure.error)).await {
        tracing::warn!(%error, "a failure is not on the list");
    }
}

#[input]
pub(crate) struct Flaky {
    name: String,
    failures: i64,
}

/// Fails so often, then counts.
#[task(attempts = 10, backoff = "50ms", max_backoff = "50ms")]
pub(crate) async fn flaky(ctx: TaskContext, input: Flaky) -> Result<(), ActionError> {
    let failed = ctx.cache().increment(&format!("flaky:{}", ctx.id()), 1).await?;
    if failed <= input.failures {
        return Err(ActionError::conflict("not yet"));
    }
    ctx.cache().increment(&format!("counter:{}", input.name), 1).await?;
    Ok(())
}

#[input]
#[expect(non_snake_case, reason = "a field is named as it is on the wire")]
pub(crate) struct Crash {
    afterMs: Option<u64>,
}

/// Ends the process, as if it were killed.
#[task(on_failed = record_failure)]
pub(crate) async fn crash(_ctx: TaskContext, input: Crash) -> Result<(), ActionError> {
    tokio::time::sleep(Duration::from_millis(input.afterMs.unwrap_or(0))).await;
    kill_process()
}

fn kill_process() -> Result<(), ActionError> {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .map_err(ActionError::internal)
}

/// Waits, at most five at once in the cluster. Appends `begin` and `end` to the list `limited`, and these with the job and its node
/// to the list `limited:runs`.
#[task(limit = 5)]
pub(crate) async fn limited(ctx: TaskContext, input: Time) -> Result<(), ActionError> {
    let record = async |step: &str| {
        ctx.cache().push("limited:runs", &format!("{step} {} {}", ctx.id(), ctx.node().generation())).await?;
        ctx.cache().push("limited", step).await
    };
    record("begin").await?;
    tokio::time::sleep(Duration::from_millis(input.ms)).await;
    record("end").await?;
    Ok(())
}

/// Begins a hundred times a second in the cluster.
#[task(rate = "100/s")]
pub(crate) async fn paced(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

#[input]
#[expect(non_snake_case, reason = "a field is named as it is on the wire")]
pub(crate) struct Parent {
    children: u32,
    name: String,
    atOnce: Option<bool>,
    dieAt: Option<u32>,
}

/// Enqueues jobs of `count`: by its success, or at once. On the first node that runs it, it may end the process before one of these
/// steps, before it returns, or just after.
#[task]
pub(crate) async fn parent(ctx: TaskContext, input: Parent) -> Result<(), ActionError> {
    let dies_at = input.dieAt.filter(|_| ctx.deaths() == 0);
    for child in 1..=input.children {
        if dies_at == Some(child) {
            kill_process()?;
        }
        let name = Name { name: input.name.clone() };
        if input.atOnce.unwrap_or_default() {
            ctx.tasks().enqueue::<count>(name).await?;
        } else {
            ctx.tasks().after::<count>(name).await?;
        }
    }
    if dies_at == Some(input.children.saturating_add(1)) {
        kill_process()?;
    }
    if dies_at == Some(input.children.saturating_add(2)) {
        tokio::spawn(async { kill_process() });
    }
    Ok(())
}

/// Appends the numbers of the batch that it completes to the list `batches`.
#[task(queue = "high")]
pub(crate) async fn batch_over(ctx: TaskContext) -> Result<(), ActionError> {
    let Some(batch) = ctx.batch() else { return Ok(()) };
    let status = batch.status().await?;
    let numbers = json!({ "id": &**batch.id(), "stage": status.stage.as_str(), "done": status.done, "failed": status.failed,
        "deleted": status.deleted });
    ctx.cache().push("batches", &numbers).await?;
    Ok(())
}

/// Panics.
#[task(attempts = 1)]
pub(crate) async fn panic(_ctx: TaskContext) -> Result<(), ActionError> {
    panic!("as requested")
}

/// Ticks each second: records the id of its job, which names the tick.
#[task(name = "tick", every = "1s")]
pub(crate) async fn every_second_tick(ctx: TaskContext) -> Result<(), ActionError> {
    ctx.cache().push("ticks", &ctx.id()).await?;
    Ok(())
}

/// The same for each tick, also late ones and while an earlier one is not over.
#[task(name = "tick", every = "1s", overlap = "allow", catch_up = "all", queue = "high")]
pub(crate) async fn every_tick(ctx: TaskContext) -> Result<(), ActionError> {
    ctx.cache().push("ticks", &ctx.id()).await?;
    Ok(())
}

/// The tasks of this node: without those in `TOUR_WITHOUT`, and of a later version with `TOUR_SHAPE=2`. With
/// `TOUR_TICKS=1` one ticks each second, with `TOUR_TICKS=all` no tick is left out.
pub(crate) fn all() -> Vec<TaskDef> {
    let without = std::env::var("TOUR_WITHOUT").unwrap_or_default();
    let is_later = std::env::var("TOUR_SHAPE").is_ok_and(|shape| shape == "2");
    let all = tasks![
        noop, sleep, exclusive, block, freeze, progress, record, fail, flaky, crash, panic, limited, paced, parent,
        batch_over
    ];
    let count = if is_later { tasks![count_2] } else { tasks![count] };
    let ticks = match std::env::var("TOUR_TICKS").as_deref() {
        Ok("1") => tasks![every_second_tick].to_vec(),
        Ok("all") => tasks![every_tick].to_vec(),
        _ => Vec::new(),
    };
    let is_left = |task: &TaskDef| without.split(',').all(|name| name != task.name);
    all.into_iter().chain(count).chain(ticks).filter(is_left).collect()
}

/// Sets how many jobs a node of the tour runs at once: `TOUR_WORKERS`, or 4.
pub(crate) fn configure(config: &mut Config) {
    config.tasks.concurrency = std::env::var("TOUR_WORKERS").ok().and_then(|count| count.parse().ok()).unwrap_or(4);
}
