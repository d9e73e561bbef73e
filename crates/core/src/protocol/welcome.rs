//! The first frame of a connection.

use serde::Serialize;

/// The first frame of a connection: its id, and the limits that its client must keep.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome<'a> {
    welcome: &'a str,
    context: &'static str,
    id: &'a str,
    protocol: u8,
    heartbeat_ms: u64,
    max_frame_bytes: u64,
}

impl<'a> Welcome<'a> {
    /// The version of the protocol that this server speaks.
    pub const PROTOCOL: u8 = 1;

    /// Welcomes the connection with that id.
    pub const fn new(welcome: &'a str, id: &'a str, heartbeat_ms: u64, max_frame_bytes: u64) -> Self {
        Self { welcome, context: "api", id, protocol: Self::PROTOCOL, heartbeat_ms, max_frame_bytes }
    }
}
