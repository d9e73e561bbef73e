//! The section `rooms`: rooms at start, presence, and the limits of a broadcast.

use serde::{Deserialize, Serialize};

use super::size::ByteSize;

/// Rooms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoomSettings {
    /// Rooms that a node creates when it starts.
    pub start: Vec<String>,
    /// Rooms with presence: joins and leaves are announced to their members.
    pub presence: Vec<String>,
    /// Most rooms that may exist; beyond, `conflict`.
    pub max_rooms: usize,
    /// Most bytes of one message.
    pub max_message: ByteSize,
    /// Most messages of one publisher that are in flight on this node; beyond, it waits.
    pub max_undelivered: usize,
    /// Most messages that wait for delivery on this node. Beyond, publishers wait on a single node; in a cluster
    /// messages are dropped and the gap is announced.
    pub bus_queue: usize,
}

impl Default for RoomSettings {
    fn default() -> Self {
        Self {
            start: Vec::new(),
            presence: Vec::new(),
            max_rooms: 100_000,
            max_message: ByteSize::kib(64),
            max_undelivered: 512,
            bus_queue: 4096,
        }
    }
}
