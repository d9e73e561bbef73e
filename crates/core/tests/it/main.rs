//! The memory backend keeps every law of its seams, and a node does the right thing when a backend fails.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod bus;
mod cache;
mod fake_membership;
mod harness;
mod locks;
mod members;
mod membership;
mod replies;
mod room_destroy;
mod rooms;
