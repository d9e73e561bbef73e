//! Every setting of a node, typed, with its default: a section is a struct in a file of its own, a key is a field.
//!
//! Durations and sizes are written with their unit (`"5s"`, `"64KiB"`). Unknown keys are refused.

use serde::{Deserialize, Serialize};

mod admin;
mod cluster;
mod general;
mod limits;
mod log;
mod network;
mod paths;
mod queue;
mod redis;
mod role;
mod rooms;
mod session;
mod size;
mod tasks;
mod trusted_header;
mod validate;
mod web;
mod web_origin;
mod websocket;
mod worker_kind;

pub use admin::Admin;
pub use cluster::ClusterSettings;
pub use general::General;
pub use limits::{LimitRate, LimitSetting, LimitSettings};
pub use log::{Log, LogFormat};
pub use network::Network;
pub use paths::Paths;
pub use queue::ServedQueue;
pub use redis::Redis;
pub use role::NodeRole;
pub use rooms::RoomSettings;
pub use session::SessionSettings;
pub use size::{ByteSize, ParseByteSizeError};
pub use tasks::TaskSettings;
pub use trusted_header::TrustedHeader;
pub use web::{CrossSite, Web};
pub use web_origin::{HostPort, WebOrigin};
pub use websocket::Websocket;
pub use worker_kind::WorkerKind;

/// Reads and writes durations with their unit: `#[serde(with = "phalanx::config::duration")]`.
pub use humantime_serde as duration;

/// All settings of a node, section by section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Settings that belong to no other section.
    pub general: General,
    /// The cluster this node is a member of.
    pub cluster: ClusterSettings,
    /// The Redis that the nodes of a cluster share; its address is `REDIS_URL`.
    pub redis: Redis,
    /// HTTP.
    pub web: Web,
    /// WebSocket.
    pub websocket: Websocket,
    /// Sessions.
    pub session: SessionSettings,
    /// Rate limits.
    pub limits: LimitSettings,
    /// Rooms.
    pub rooms: RoomSettings,
    /// Tasks.
    pub tasks: TaskSettings,
    /// The listener for operators.
    pub admin: Admin,
    /// Logs.
    pub log: Log,
    /// Files and folders.
    pub paths: Paths,
}

impl Config {
    /// The roles that this process has: with `tasks.concurrency = 0` it runs no jobs, whatever `general.roles` says.
    pub fn active_roles(&self) -> impl Iterator<Item = NodeRole> {
        let runs_jobs = self.tasks.concurrency > 0;
        self.general.roles.iter().copied().filter(move |role| *role != NodeRole::Worker || runs_jobs)
    }
}

/// The environment a node runs in: `development`, `test` or `production` as a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment(pub String);

impl Environment {
    /// Whether this is a developer's machine: metadata in answers, human-readable logs.
    pub fn is_development(&self) -> bool {
        self.0 == "development"
    }

    /// Whether this is a developer's machine or a test: clients may come over plain HTTP.
    pub fn is_local(&self) -> bool {
        matches!(self.0.as_str(), "development" | "test")
    }

    /// Whether this serves real users: no metadata, JSON logs, no default secrets.
    pub fn is_production(&self) -> bool {
        self.0 == "production"
    }
}

/// The paths under which a node serves its browser client.
pub const CLIENT_PATHS: [&str; 2] = ["/phalanx-client.js", "/phalanx-client.d.ts"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_places_for_jobs_is_no_worker() {
        let mut config = Config::default();
        assert!(config.active_roles().eq(NodeRole::ALL));
        config.tasks.concurrency = 0;
        assert!(config.active_roles().eq([NodeRole::Web, NodeRole::Scheduler]));
    }
}
