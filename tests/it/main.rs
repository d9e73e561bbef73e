//! Whole nodes over real sockets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod app;
mod browser;
mod client;
mod cluster;
mod crates;
mod custom;
mod frail;
mod hostile;
mod http;
mod limits;
mod metrics;
mod own;
mod process;
mod readme;
mod rooms;
mod shutdown;
mod slow;
mod sockets;
mod tour;
mod ws;
