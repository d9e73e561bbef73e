//! WebSocket: the upgrade, the frames, and the task of a connection.

mod batch;
mod connection;
mod frame;
mod handshake;
mod rate;
mod upgrade;
mod wire;

pub(crate) use upgrade::{Upgrades, upgrade};
