//! WebSocket: the upgrade, the frames, and the task of a connection.

mod connection;
mod frame;
mod rate;
mod upgrade;

pub(crate) use upgrade::{Upgrades, upgrade};
