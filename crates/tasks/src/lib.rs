//! The worker of the task queue: fetches jobs, runs them, and settles how they ended.
//!
//! [`TaskWorker`] is a part of a node that starts and stops with it. Its loop (`run`) owns the slots and alone speaks to
//! the store. It has a thread of its own (`thread`), and attempts run on a runtime of theirs, so that a task that blocks its
//! thread blocks neither the lease nor clients. Only those that are expected to end at once are polled on the loop's thread
//! (`first_polls`): a hand-over to another thread would take longer than they do. Another loop (`periodic`) asks the store for
//! the ticks of periodic tasks. The decisions are pure, in files of their own with tables of tests: when to fetch and how much
//! (`gate`), how an attempt's end is settled (`decide`), what follows from the store's list of attempts (`compare`), when a
//! task ticks (`calendar`), which of the ticks are enqueued (`due`).

mod attempt;
mod awaited;
mod begin;
mod calendar;
mod compare;
mod decide;
mod due;
mod failures;
mod first_polls;
mod gate;
mod housekeeping;
mod metrics;
mod periodic;
mod promoter;
mod pulse;
mod queues;
mod release;
mod replies;
mod result;
mod run;
mod series;
mod served;
mod sign;
mod skipped;
mod slots;
mod thread;
mod tokens;
mod turns;
mod undecodable;
mod worker;

pub use worker::TaskWorker;

/// The version of the time zones that schedules use, which is compiled in.
pub const TIME_ZONES: &str = chrono_tz::IANA_TZDB_VERSION;
