//! The section `rooms`.

use serde::{Deserialize, Serialize};

use super::ByteSize;

/// Rooms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoomSettings {
    /// Rooms that exist from the start.
    pub start: Vec<String>,
    /// Rooms that tell their members who comes and goes.
    pub presence: Vec<String>,
    /// Most rooms that may exist; beyond, `conflict`.
    pub max_rooms: usize,
    /// Most bytes of one message.
    pub max_message: ByteSize,
    /// How many of its own messages a speaker may have undelivered on this node before it waits.
    pub max_undelivered: usize,
    /// How many messages may wait for delivery on this node. Beyond, publishers wait where it is alone; in a cluster
    /// messages are dropped and the gap is told.
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
