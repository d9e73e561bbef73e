//! WebSocket: the upgrade, the frames and their stream, and the task of a connection.

#[cfg(test)]
mod conformance;
mod connection;
mod frame;
mod handshake;
mod overhead;
mod stream;
mod upgrade;
mod write_buffer;

pub(crate) use upgrade::{UpgradeState, elsewhere, upgrade};
