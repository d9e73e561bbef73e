//! The worker on a node with the memory backend, with tasks written as the attribute writes them.
#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a failed test with its line")]

mod batches;
mod checkpoints;
mod children;
mod ends;
mod failures;
mod faults;
mod faulty_store;
mod harness;
mod limits;
mod operations;
mod origin;
mod quiet;
mod reports;
mod series;
mod sign;
mod stopping;
mod ticks;
mod turns;
mod unique;
