//! Whole nodes over real sockets.

mod app;
mod client;
mod http;
mod rooms;
mod shutdown;
mod ws;
