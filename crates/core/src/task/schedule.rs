//! Periodic tasks: the words of a schedule, and the job of a tick.
//!
//! A *tick* is an instant, Unix time in milliseconds, at which a job of the task is enqueued, once in the cluster. Which
//! instants those are is found by the crate `tasks`; that each is enqueued once is for the store.

use std::fmt;
use std::time::Duration;

use serde_json::value::RawValue;

use super::TaskDef;
use crate::backend::{NewJob, UniqueClaim};
use crate::job::JobText;

/// The shortest interval of a periodic task.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// How long a tick's job keeps the next tick from being enqueued, if its end is never seen: a foreign program took it.
const TICK_CLAIM: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// When jobs of a task are enqueued by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The ticks.
    pub ticks: TickRule,
    /// Whether a tick is enqueued while the job of an earlier one waits or runs.
    pub overlap: Overlap,
    /// Which of the ticks are enqueued that came while no node could enqueue them.
    pub catch_up: CatchUp,
}

/// The instants at which a task ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TickRule {
    /// The multiples of this time since 1970, UTC: [`MIN_INTERVAL`] at least.
    Every(Duration),
    /// The times that a line of five fields names: minute, hour, day of the month, month, day of the week.
    Cron {
        /// The line.
        line: &'static str,
        /// The IANA name of the time zone.
        timezone: &'static str,
    },
}

/// Whether a tick is enqueued while the job of an earlier one waits or runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// It is left out.
    #[default]
    Skip,
    /// It is enqueued.
    Allow,
}

/// Which of the ticks are enqueued that came while no node could enqueue them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// The newest one, unless the next is due as well.
    #[default]
    Last,
    /// None.
    None,
    /// All, the newest hundred at most. Needs [`Overlap::Allow`].
    All,
}

impl Schedule {
    /// The error of a schedule that cannot be, as far as that shows without a calendar.
    pub(crate) fn mistake(&self) -> Option<String> {
        match self.ticks {
            TickRule::Every(interval) if interval < MIN_INTERVAL => {
                return Some(format!("every = {interval:?}: {MIN_INTERVAL:?} at least"));
            }
            TickRule::Every(interval) if interval.subsec_nanos() % 1_000_000 != 0 => {
                return Some(format!("every = {interval:?}: whole milliseconds"));
            }
            TickRule::Every(interval) if interval > super::MAX_DELAY => {
                return Some(format!("every = {interval:?}: ten years at most"));
            }
            TickRule::Every(_) | TickRule::Cron { .. } => {}
        }
        let leaves_out = self.catch_up == CatchUp::All && self.overlap == Overlap::Skip;
        leaves_out
            .then(|| "catch_up = \"all\" needs overlap = \"allow\": of several missed ticks one could wait".into())
    }
}

/// As a schedule is compared between nodes of two versions of an application.
impl fmt::Display for TickRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(interval) => write!(f, "every {} ms", interval.as_millis()),
            Self::Cron { line, timezone } => {
                f.write_str("cron ")?;
                line.split_whitespace().try_for_each(|field| write!(f, "{field} "))?;
                f.write_str(timezone)
            }
        }
    }
}

/// The job of a tick. Its id is the same on all nodes.
///
/// # Panics
///
/// Never: its text is written as that of any job.
pub fn tick_job(task: &TaskDef, overlap: Overlap, tick_ms: u64, now_ms: u64) -> NewJob {
    // Other keys begin with the name of a task, or with `@` and that of a queue: none of these has an `@`.
    let claim = (overlap == Overlap::Skip)
        .then(|| UniqueClaim { key: format!("@@{}", task.name).into(), ttl_ms: TICK_CLAIM.as_millis() as u64 });
    let id = format!("{}@{tick_ms}", task.name);
    let args: &RawValue = serde_json::from_str("[{}]").expect("this is JSON");
    let text = JobText {
        class: task.name.into(),
        queue: task.queue.into(),
        args: Some(args),
        id: Some(id.as_str().into()),
        enqueued_at: Some(now_ms),
        tick: Some(tick_ms),
        unique: claim.as_ref().map(|claim| (&*claim.key).into()),
        unique_for: claim.as_ref().map(|claim| claim.ttl_ms),
        ..JobText::default()
    };
    let text = text.write();
    NewJob { unique: claim, tracked: task.tracked, ..NewJob::new(id, task.queue, text) }
}
