//! Ticks of periodic tasks, as nodes have them enqueued by [`TaskStore::tick`](super::TaskStore::tick).

use std::sync::Arc;

use super::tasks::NewJob;

/// The most tasks of one [`TaskStore::tick`](super::TaskStore::tick).
pub const TICK_BATCH: usize = 100;

/// By how much a node's idea of the store's time may be ahead where it ticks.
pub const CLOCK_MARGIN_US: u64 = 500_000;

/// For how long a schedule counts after the last node with it was seen, if nodes have another, in microseconds.
pub const SCHEDULE_SILENCE_US: u64 = 30_000_000;

/// A call of a node that enqueues what its periodic tasks are due.
#[derive(Clone, Debug)]
pub struct TickCall<'a> {
    /// The time of the node, by its idea of the store's clock. A node that is ahead by more than [`CLOCK_MARGIN_US`] is
    /// refused.
    pub now_us: u64,
    /// Until when the call may take effect, the store's time in microseconds.
    pub until_us: u64,
    /// When the node began to tick, in the same time. Of two schedules of one task that of the node which began last counts.
    pub since_us: u64,
    /// The tasks, at most [`TICK_BATCH`].
    pub tasks: &'a [TickRequest],
}

/// The part of a [`TickCall`] about one task.
#[derive(Clone, Debug)]
pub struct TickRequest {
    /// Its name.
    pub task: Arc<str>,
    /// Its schedule, as text to be compared.
    pub schedule: Arc<str>,
    /// The last tick that the node knows of, Unix time in milliseconds: a store that has lost it, or came back with older data,
    /// takes it over.
    pub known_ms: Option<u64>,
    /// The first tick after `now_us`. A last tick beyond it was made by a clock that has been set back: it counts as none.
    pub next_ms: u64,
    /// The ticks that are due, the oldest first.
    pub due: Vec<DueTick>,
}

/// A tick that is due.
#[derive(Clone, Debug)]
pub struct DueTick {
    /// When, Unix time in milliseconds.
    pub at_ms: u64,
    /// Its job; `None` for one that is left out, because it was missed.
    pub job: Option<NewJob>,
}

/// The answer to a [`TickRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TickOutcome {
    /// The task's ticks up to this time are enqueued or left out, Unix time in milliseconds: it may be one of a node that was
    /// faster, or the time at which the store saw the task for the first time.
    Ticked {
        /// The time.
        last_ms: u64,
        /// The ticks of this call that were enqueued.
        enqueued: Vec<u64>,
        /// How many were left out because the job of an earlier one waits or runs.
        skipped: usize,
        /// How many were left out because they were missed.
        missed: usize,
    },
    /// The task ticks by this schedule, of a node that began later.
    Superseded {
        /// The schedule.
        schedule: String,
    },
    /// A key that the tick needs is spoilt: it is not enqueued.
    Spoilt {
        /// The key.
        key: String,
    },
}
