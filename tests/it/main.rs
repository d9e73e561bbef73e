//! Whole nodes over real sockets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod app;
mod client;
mod crates;
mod http;
mod rooms;
mod shutdown;
mod ws;
