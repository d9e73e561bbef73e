//! WebSocket: the upgrade, the frames, and the task of a connection.

mod connection;
mod frame;
mod handshake;
mod rate_limit;
mod stream;
mod upgrade;
mod write_buffer;

pub(crate) use upgrade::{Upgrades, upgrade};
