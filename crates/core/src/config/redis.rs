//! The section `redis`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the nodes of a cluster keep what they share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// How long a command may take; beyond, `unavailable`: whether it happened is unknown.
    #[serde(with = "humantime_serde")]
    pub command_timeout: Duration,
    /// How long a node that starts waits for Redis before it gives up.
    #[serde(with = "humantime_serde")]
    pub boot_timeout: Duration,
    /// Before the keys that are shared with Actionhero nodes: cache, locks and rooms.
    pub prefix: String,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            command_timeout: Duration::from_secs(2),
            boot_timeout: Duration::from_secs(60),
            prefix: "actionhero:".into(),
        }
    }
}
