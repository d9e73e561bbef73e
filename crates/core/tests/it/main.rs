//! The memory backend keeps every law of its seams, and a node does the right thing when a backend fails.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod answers;
mod bus;
mod cache;
mod ends;
mod locks;
mod members;
mod membership;
mod mortal;
mod rooms;
mod world;
