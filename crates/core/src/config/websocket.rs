//! The section `websocket`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ByteSize;

/// WebSocket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Websocket {
    /// Path of the endpoint.
    pub path: String,
    /// Most sockets at once; beyond, the upgrade is answered 503.
    pub max_connections: usize,
    /// Most bytes of a frame a client sends; beyond, close 1009.
    pub max_frame_bytes: ByteSize,
    /// Most frames waiting for a client; beyond, close 4001.
    pub outbox_frames: usize,
    /// Most bytes waiting for a client; beyond, close 4001. An answer that is larger itself is `payload_too_large`.
    pub outbox_bytes: ByteSize,
    /// Time between two pings; nothing heard in between means close 4002.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// How long a close frame is tried before the connection is reset.
    #[serde(with = "humantime_serde")]
    pub close_timeout: Duration,
    /// Over how long the sockets of a stopping node are told to go.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// Frames a second of one socket, pings too; beyond, `rate_limited`; 0 means no limit.
    pub messages_per_second: u32,
    /// How many verbs a socket may send at once after a pause.
    pub message_burst: u32,
    /// Upgrades a second of one address; beyond, 429; 0 means no limit.
    pub upgrades_per_second: u32,
    /// How many upgrades an address may ask at once after a pause.
    pub upgrade_burst: u32,
    /// Origins whose pages may open a socket, beside the node's own; `*` means all.
    pub allowed_origins: Vec<String>,
    /// Most rooms of one socket.
    pub max_rooms: usize,
    /// Most bytes of a connection's attributes.
    pub max_attributes: ByteSize,
    /// Most bytes of a `messageId`.
    pub max_message_id_bytes: usize,
    /// Most bytes of a file that goes over a socket.
    pub max_file: ByteSize,
}

impl Default for Websocket {
    fn default() -> Self {
        Self {
            path: "/ws".into(),
            max_connections: 50_000,
            max_frame_bytes: ByteSize::kib(64),
            outbox_frames: 1024,
            outbox_bytes: ByteSize::mib(1),
            heartbeat: Duration::from_secs(30),
            close_timeout: Duration::from_secs(2),
            drain: Duration::from_secs(5),
            messages_per_second: 20,
            message_burst: 100,
            upgrades_per_second: 100,
            upgrade_burst: 1000,
            allowed_origins: Vec::new(),
            max_rooms: 100,
            max_attributes: ByteSize::kib(16),
            max_message_id_bytes: 128,
            max_file: ByteSize::kib(512),
        }
    }
}
