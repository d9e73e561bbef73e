//! The worker of the task queue: fetches jobs, runs them, and settles how they ended.
//!
//! [`TaskWorker`] is a part of a node that starts and stops with it. Its loop (`run`) owns the slots and alone speaks to
//! the store; attempts run on a runtime of their own, so that a task that blocks its thread blocks neither the lease nor
//! clients. Another loop (`periodic`) asks the store for the ticks of periodic tasks. The decisions are pure, in files of their own with tables of tests: when to fetch and how much (`gate`), how
//! an attempt's end is settled (`decide`), what follows from the store's list of attempts (`compare`), when a
//! task ticks (`calendar`), which of the ticks are enqueued (`due`).

mod attempt;
mod begin;
mod calendar;
mod compare;
mod decide;
mod due;
mod failures;
mod gate;
mod housekeeping;
mod metrics;
mod periodic;
mod pulse;
mod queues;
mod release;
mod replies;
mod result;
mod run;
mod sign;
mod skipped;
mod slots;
mod tokens;
mod undecodable;
mod worker;

pub use worker::TaskWorker;
