//! The memory backend keeps every law of its seams, and a node recovers when a backend fails.
#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a failed test with its line")]

mod bus;
mod cache;
mod fake_membership;
mod harness;
mod limits;
mod locks;
mod members;
mod membership;
mod protocol;
mod replies;
mod room_destroy;
mod rooms;
mod session_looks;
mod sessions;
mod tags;
mod tasks;
