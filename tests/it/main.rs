//! Whole nodes over real sockets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

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
