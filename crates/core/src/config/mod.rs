//! Every setting of a node, typed, with its default. A section a struct, a key a field.
//!
//! Durations and sizes are written with their unit (`"5s"`, `"64KiB"`). Unknown keys are refused.

use serde::{Deserialize, Serialize};

mod admin;
mod cluster;
mod general;
mod log;
mod network;
mod paths;
mod redis;
mod rooms;
mod size;
mod validate;
mod web;
mod websocket;

pub use admin::Admin;
pub use cluster::Cluster;
pub use general::General;
pub use log::{Log, LogFormat};
pub use network::Network;
pub use paths::Paths;
pub use redis::Redis;
pub use rooms::RoomSettings;
pub use size::{ByteSize, NoSize};
pub use web::Web;
pub use websocket::Websocket;

/// Durations as they are written in settings: `#[serde(with = "phalanx::config::duration")]`.
pub use humantime_serde as duration;

/// All settings of a node, section by section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What belongs to no other section.
    pub general: General,
    /// The cluster this node is a member of.
    pub cluster: Cluster,
    /// Where the nodes of a cluster keep what they share; its address is `REDIS_URL`.
    pub redis: Redis,
    /// HTTP.
    pub web: Web,
    /// WebSocket.
    pub websocket: Websocket,
    /// Rooms.
    pub rooms: RoomSettings,
    /// The listener for operators.
    pub admin: Admin,
    /// Logs.
    pub log: Log,
    /// Files and folders.
    pub paths: Paths,
}

/// Which of the three usual worlds a node lives in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment(pub String);

impl Environment {
    /// The world of a laptop: metadata in answers, logs for people.
    pub fn is_development(&self) -> bool {
        self.0 == "development"
    }

    /// The world of users: no metadata, JSON logs, no default secrets.
    pub fn is_production(&self) -> bool {
        self.0 == "production"
    }
}

/// Where a node serves its browser client.
pub const CLIENT_PATHS: [&str; 2] = ["/phalanx-client.js", "/phalanx-client.d.ts"];
