//! The section `websocket`: the endpoint and the limits of a socket.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::size::ByteSize;

/// WebSocket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Websocket {
    /// Path of the endpoint.
    pub path: String,
    /// Most open sockets; beyond, the upgrade is answered 503.
    pub max_connections: usize,
    /// Most bytes of a frame that a client sends; beyond, close 1009.
    pub max_frame_bytes: ByteSize,
    /// Most frames waiting for a client; beyond, close 4001.
    pub outbox_frames: usize,
    /// Most bytes waiting for a client; beyond, close 4001. A single reply that is larger is `payload_too_large`.
    pub outbox_bytes: ByteSize,
    /// Time between two pings; if no frame arrives in between, close 4002.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Time that the node tries to send a close frame before it resets the connection.
    #[serde(with = "humantime_serde")]
    pub close_timeout: Duration,
    /// Period over which a stopping node closes its sockets, so that clients do not reconnect all at once.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// Messages a second that one socket may send, pings included; beyond, `rate_limited`; 0 means no limit. Bytes that are
    /// the payload of no message, and large responses to verbs, count as several messages.
    pub messages_per_second: u32,
    /// Verbs that a socket may send in one burst after a pause.
    pub message_burst: u32,
    /// Upgrades a second from one address; beyond, 429; 0 means no limit.
    pub upgrades_per_second: u32,
    /// Upgrades that an address may request in one burst after a pause.
    pub upgrade_burst: u32,
    /// Origins whose pages may open a socket, in addition to the node's own; `*` means all.
    pub allowed_origins: Vec<String>,
    /// Most rooms that one socket is a member of.
    pub max_rooms: usize,
    /// Most tags that the application gives one socket.
    pub max_tags: usize,
    /// Most bytes of a connection's attributes.
    pub max_attributes: ByteSize,
    /// Most bytes of a `messageId`.
    pub max_message_id_bytes: usize,
    /// Most bytes of a file that is sent over a socket.
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
            max_tags: 32,
            max_attributes: ByteSize::kib(16),
            max_message_id_bytes: 128,
            max_file: ByteSize::kib(512),
        }
    }
}
