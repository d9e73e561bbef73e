//! The section `cluster`.

use serde::{Deserialize, Serialize};

use super::ByteSize;

/// The cluster this node is a member of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// Root of every channel and key of ours; empty means the application's name.
    pub name: String,
    /// Most calls that wait for other nodes, and most of theirs that run here; beyond, `unavailable`.
    pub max_calls: usize,
    /// Most bytes of a call's arguments, of its answer, and of what is published; beyond, `payload_too_large`.
    pub max_call: ByteSize,
    /// Whether Actionhero nodes are spoken with, on their own channel.
    pub interop: bool,
    /// Their channel.
    pub interop_channel: String,
    /// Their server token. It stands in every message there, so it must be neither `general.server_token`
    /// nor `general.previous_server_token`.
    pub interop_token: String,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: String::new(),
            max_calls: 10_000,
            max_call: ByteSize::mib(1),
            interop: false,
            interop_channel: "actionhero".into(),
            interop_token: String::new(),
        }
    }
}
