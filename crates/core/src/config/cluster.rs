//! The section `cluster`: names, limits of remote calls, Actionhero nodes.

use serde::{Deserialize, Serialize};

use super::size::ByteSize;

/// The cluster this node is a member of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSettings {
    /// Root of every channel and key that Phalanx uses; empty means the application's name.
    pub name: String,
    /// Most calls that wait for other nodes, and most calls of other nodes that run here; beyond, `unavailable`.
    pub max_calls: usize,
    /// Most bytes of a call's arguments, of its reply, and of a publication; beyond, `payload_too_large`.
    pub max_call: ByteSize,
    /// Exchanges messages with Actionhero nodes, on their own channel.
    pub interop: bool,
    /// Channel of the Actionhero nodes.
    pub interop_channel: String,
    /// Server token of the Actionhero nodes. Every message on their channel contains it, so it must be neither
    /// `general.server_token` nor `general.previous_server_token`.
    pub interop_token: String,
}

impl Default for ClusterSettings {
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
