//! The section `cluster`: names, limits of remote calls, Actionhero nodes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::size::ByteSize;
use super::worker_kind::WorkerKind;

/// The cluster this node is a member of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSettings {
    /// Root of every channel and key that Phalanx uses, see [`ClusterSettings::is_name`]; empty means the application's
    /// name.
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
    /// Under `start cluster`: for a worker to get ready. One that does not is killed, and stops a roll.
    #[serde(with = "humantime_serde")]
    pub start_timeout: Duration,
    /// Under `start cluster`: a worker whose runtime gives no sign for so long, one each second, counts as hung and is
    /// replaced.
    #[serde(with = "humantime_serde")]
    pub beat_timeout: Duration,
    /// Under `start cluster`: the kinds of workers; none means one kind with the roles of `general.roles`.
    pub processes: Vec<WorkerKind>,
}

impl ClusterSettings {
    /// The name of the cluster of an application.
    pub fn name_of<'a>(&'a self, app: &'a str) -> &'a str {
        if self.name.is_empty() { app } else { &self.name }
    }

    /// Whether a cluster can have this name: 1 to 64 characters of `A-Z a-z 0-9 . _ -`, in braces if its keys are to share a
    /// slot of a Redis in cluster mode. Other characters would make the channels of two clusters equal.
    pub fn is_name(name: &str) -> bool {
        let inner = name.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(name);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=64).contains(&inner.len()) && inner.bytes().all(allowed)
    }
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
            start_timeout: Duration::from_secs(90),
            beat_timeout: Duration::from_secs(30),
            processes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_clusters_are_plain_or_in_braces() {
        for name in ["shop", "shop-2.eu_west", "{shop}", "A", &"x".repeat(64)] {
            assert!(ClusterSettings::is_name(name), "{name}");
        }
        for name in
            ["", "shop@1", "shop:room:x", "my shop", "{}", "{shop", "shop}", "{{a}}", "caf\u{e9}", &"x".repeat(65)]
        {
            assert!(!ClusterSettings::is_name(name), "{name}");
        }
    }
}
