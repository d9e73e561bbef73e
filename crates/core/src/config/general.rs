//! The section `general`: identity, deadlines, tokens, shutdown.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::role::NodeRole;

/// Settings that belong to no other section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct General {
    /// Node id shown to operators and in logs; empty means `<hostname>-<pid>`.
    pub id: String,
    /// The parts that the node runs; under `start cluster` the parent gives them to its workers.
    pub roles: Vec<NodeRole>,
    /// Threads that serve clients and remote calls; zero means one for each processor that the process may use, under
    /// `start cluster` an equal share of them.
    pub threads: usize,
    /// Text of the first message that a socket receives.
    pub welcome: String,
    /// The deadline of an action that has none of its own; zero means none.
    #[serde(with = "humantime_serde")]
    pub action_deadline: Duration,
    /// Most actions of one socket that run at once; the next is refused with `too_many_pending`.
    pub simultaneous_actions: usize,
    /// Deadline of a call to another node, unless the call sets its own.
    #[serde(with = "humantime_serde")]
    pub rpc_timeout: Duration,
    /// Secret that only the nodes of a cluster share: it authenticates their messages. Outside development and test a
    /// cluster does not start with the default.
    pub server_token: String,
    /// Second token that is accepted while one replaces the other; new messages are never signed with it.
    pub previous_server_token: String,
    /// Time for which a node that is to stop serves on, while `/readyz` says that it stops: balancers that poll it
    /// send their clients elsewhere meanwhile.
    #[serde(with = "humantime_serde")]
    pub stop_delay: Duration,
    /// Time that a node has to stop after that: running calls and jobs, then initializers.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// Time limit of each phase of an initializer (initialize, start, stop); zero means no limit.
    #[serde(with = "humantime_serde")]
    pub initializer_timeout: Duration,
    /// Names of params that never appear in a log, in addition to those marked `#[secret]`.
    pub secret_params: Vec<String>,
}

impl General {
    /// The token of a node without a setting. It is public, so it protects nothing.
    pub const DEFAULT_TOKEN: &str = "change-me";
}

impl Default for General {
    fn default() -> Self {
        Self {
            id: String::new(),
            roles: NodeRole::ALL.to_vec(),
            threads: 0,
            welcome: "welcome".into(),
            action_deadline: Duration::from_secs(30),
            simultaneous_actions: 5,
            rpc_timeout: Duration::from_secs(5),
            server_token: Self::DEFAULT_TOKEN.into(),
            previous_server_token: String::new(),
            stop_delay: Duration::ZERO,
            grace: Duration::from_secs(30),
            initializer_timeout: Duration::from_secs(60),
            secret_params: Vec::new(),
        }
    }
}
