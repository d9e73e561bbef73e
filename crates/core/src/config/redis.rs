//! The section `redis`: timeouts and the prefix of shared keys.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The Redis that the nodes of a cluster share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// Time limit of a command; beyond, `unavailable`: the command may or may not have run.
    #[serde(with = "humantime_serde")]
    pub command_timeout: Duration,
    /// Time that a starting node waits for Redis before its boot fails.
    #[serde(with = "humantime_serde")]
    pub boot_timeout: Duration,
    /// Prefix of the keys that Actionhero nodes use too: cache, locks and rooms.
    pub prefix: String,
}

impl Redis {
    /// Most calls of a node that wait to read a session, or to be counted by a limit; a further one is refused.
    pub const MAX_SHARED_CALLS: usize = 65_536;
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
