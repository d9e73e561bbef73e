//! Whole nodes over real sockets.
#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a failed test with its line")]

mod app;
mod browser;
mod client;
mod cluster;
mod crates;
mod extensions;
mod hostile;
mod http;
mod limits;
mod metrics;
mod panics;
mod process;
mod readme;
mod rooms;
mod routes;
mod shutdown;
mod slow_consumers;
mod sockets;
mod tour;
mod ws;
