//! The state of a cluster, as `cluster status --json` prints it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A parent and its workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The process id of the parent.
    pub pid: u32,
    /// The version of its program.
    pub version: String,
    /// For how long it runs.
    pub uptime_seconds: u64,
    /// The address for clients; absent if no worker has the role `web`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web: Option<SocketAddr>,
    /// The address of the parent's admin listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
    /// How many workers are ready.
    pub ready: u32,
    /// How many there shall be.
    pub target: u32,
    /// `starting`, `serving`, `rolling`, `stopping`.
    pub state: String,
    /// The last roll that has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_roll: Option<RollStatus>,
    /// The workers, by group and number.
    pub workers: Vec<WorkerStatus>,
}

/// A roll that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RollStatus {
    /// From 1.
    pub number: u64,
    /// `completed` or `stopped`.
    pub result: String,
    /// The reason why it was stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long ago it ended.
    pub seconds_ago: u64,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// The id of its node.
    pub id: String,
    /// Its process id.
    pub pid: u32,
    /// `booting`, `ready`, `hung`, `stopping`.
    pub state: String,
    /// The reason of its state, if it gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its roles.
    pub roles: Vec<String>,
    /// The version of its program, once it is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// For how long it runs.
    pub uptime_seconds: u64,
    /// How often a worker of its place has ended unexpectedly.
    pub restarts: u32,
    /// Its resident memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Its connections of clients, those with sockets included.
    pub connections: u64,
    /// Its WebSockets.
    pub sockets: u64,
    /// The address of its admin listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
}
