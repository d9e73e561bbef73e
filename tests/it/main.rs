//! Whole nodes over real sockets.
#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a failed test with its line")]

mod app;
mod architecture;
mod awaited_bodies;
mod bodies;
mod bounds;
mod browser;
mod client;
mod cluster;
mod conformance;
mod crates;
mod extensions;
mod fairness;
mod floors;
mod guards;
mod hostile;
mod http;
mod imports;
mod limits;
mod logs;
mod metrics;
mod names;
mod origins;
mod outside;
mod panics;
mod process;
mod readme;
mod rooms;
mod routes;
mod shares;
mod shutdown;
mod slow_consumers;
mod sockets;
mod tour;
mod unread;
mod ws;
