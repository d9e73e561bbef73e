//! Tasks that compile, and their definitions.

use std::time::Duration;

use phalanx::extend::Deadline;
use phalanx::jobs::{
    CatchUp, JobRate, Overlap, QueueLimits, RetryPolicy, Schedule, TickRule, UniqueKey, UniqueScope, UniqueUntil,
};
use phalanx::prelude::*;
use phalanx::{ErrorKind, Task};

#[input]
struct Mail {
    to: String,
}

struct Post;

/// Sends a mail.
#[task(
    name = "mail:send",
    queue = "mail",
    attempts = 3,
    backoff = "100ms",
    max_backoff = "1m",
    jitter = 0.5,
    no_retry(not_found, invalid_input),
    deadline = "5s",
    blocking,
    exclusive,
    tracked,
    unique(to),
    unique_until = "start",
    unique_scope = "queue",
    unique_for = "1h",
    on_failed = report
)]
async fn send_mail(ctx: TaskContext, post: State<Post>, input: Mail) -> Result<(), ActionError> {
    let _ = (&*post, &input.to);
    Err(ctx.discard())
}

async fn report(_ctx: TaskContext, failure: TaskFailure) {
    let _ = failure.input::<Mail>();
}

#[task]
async fn clean(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

#[task(every = "10s")]
async fn sweep(ctx: TaskContext) -> Result<(), ActionError> {
    let _: Option<u64> = ctx.tick_ms();
    Ok(())
}

#[task(cron = "30 2 * * *", timezone = "Europe/Berlin", overlap = "allow", catch_up = "all")]
async fn nightly(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

/// An application may use `?` and its own types for values and errors in a task, as in an action.
#[task(deadline = "0")]
async fn count(ctx: TaskContext, _: NoInput) -> Result<u64, ActionError> {
    ctx.tasks().enqueue::<clean>(NoInput::default()).await?;
    Ok(u64::from(ctx.attempt()))
}

#[test]
fn a_task_has_the_values_of_its_attribute() {
    let [def] = tasks![send_mail];
    assert_eq!((def.name, def.queue, def.description), ("mail:send", "mail", "Sends a mail."));
    let policy = RetryPolicy {
        attempts: 3,
        backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(60),
        jitter: 0.5,
        not_retried: &[ErrorKind::NotFound, ErrorKind::InvalidInput],
    };
    assert_eq!((def.retry, def.deadline), (policy, Deadline::After(Duration::from_secs(5))));
    assert!(def.blocking && def.exclusive && def.tracked && def.on_failed.is_some());
}

#[task(unique = address)]
async fn greet(_ctx: TaskContext, _input: Mail) -> Result<(), ActionError> {
    Ok(())
}

fn address(input: &Mail) -> &str {
    &input.to
}

#[task(unique)]
async fn renew(_ctx: TaskContext, _input: Mail) -> Result<(), ActionError> {
    Ok(())
}

#[test]
fn a_task_is_unique_by_its_input_by_fields_or_by_a_function() {
    let [send, greet, renew, clean] = tasks![send_mail, greet, renew, clean].map(|def| def.unique);
    assert!(matches!(send.key, UniqueKey::Fields(&["to"])));
    assert_eq!((send.until, send.scope), (UniqueUntil::Start, UniqueScope::Queue));
    assert_eq!(send.lifetime, Duration::from_secs(3600));
    assert!(matches!((greet.key, renew.key, clean.key), (UniqueKey::Computed(_), UniqueKey::Input, UniqueKey::None)));
    assert_eq!((renew.until, renew.scope), (UniqueUntil::End, UniqueScope::Task));
    assert_eq!(renew.lifetime, Duration::from_secs(24 * 3600));
}

#[task(limit = 5)]
async fn render(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

#[task(name = "tell", rate = "100/s")]
async fn tell_all(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

#[task(queue = "mail", limit = 2, rate = "5/10m", fair_by = "to")]
async fn remind(_ctx: TaskContext, _input: Mail) -> Result<(), ActionError> {
    Ok(())
}

#[test]
fn a_task_with_a_limit_has_a_queue_of_its_own_unless_it_names_one() {
    let limits = |running, rate: Option<(u32, u64)>| QueueLimits {
        running,
        rate: rate.map(|(jobs, seconds)| JobRate { jobs, window: Duration::from_secs(seconds) }),
    };
    let defs = tasks![render, tell_all, remind, clean].map(|def| (def.queue, def.limits));
    assert_eq!(
        defs,
        [
            ("render", limits(Some(5), None)),
            ("tell", limits(None, Some((100, 1)))),
            ("mail", limits(Some(2), Some((5, 600)))),
            ("default", QueueLimits::NONE),
        ]
    );
    assert_eq!(tasks![remind, clean].map(|def| def.fair_by), [Some("to"), None]);
}

#[test]
fn a_task_without_arguments_has_the_defaults() {
    let def = <clean as Task>::DEF;
    assert_eq!((def.name, def.queue, def.description), ("clean", "default", ""));
    assert_eq!((def.retry, def.deadline), (RetryPolicy::DEFAULT, Deadline::Default));
    assert!(!def.blocking && !def.exclusive && !def.tracked && def.on_failed.is_none());
    assert_eq!(count::DEF.deadline, Deadline::Never);
}

#[test]
fn a_periodic_task_has_its_schedule() {
    let [sweep, nightly] = tasks![sweep, nightly];
    let every = TickRule::Every(Duration::from_secs(10));
    assert_eq!(sweep.schedule, Some(Schedule { ticks: every, overlap: Overlap::Skip, catch_up: CatchUp::Last }));
    let line = TickRule::Cron { line: "30 2 * * *", timezone: "Europe/Berlin" };
    assert_eq!(nightly.schedule, Some(Schedule { ticks: line, overlap: Overlap::Allow, catch_up: CatchUp::All }));
    assert_eq!(<clean as Task>::DEF.schedule, None);
}
