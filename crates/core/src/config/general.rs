//! The section `general`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What belongs to no other section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct General {
    /// Node id for people and logs; empty means `<hostname>-<pid>`.
    pub id: String,
    /// First thing a socket hears.
    pub welcome: String,
    /// The deadline of an action that has none of its own; zero means none.
    #[serde(with = "humantime_serde")]
    pub action_deadline: Duration,
    /// How many actions of one socket may run at once; the next gets `too_many_pending`.
    pub simultaneous_actions: usize,
    /// How long a call to another node may take, unless the call says otherwise.
    #[serde(with = "humantime_serde")]
    pub rpc_timeout: Duration,
    /// What the nodes of a cluster know and nobody else: their messages are sealed with it. Outside development and
    /// test a cluster does not start with the default.
    pub server_token: String,
    /// A second token that is believed while one replaces the other; nothing is sealed with it.
    pub previous_server_token: String,
    /// How long running calls may go on once the node stops.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// How long an initializer may take to be made ready, to start, and to stop; zero means without end.
    #[serde(with = "humantime_serde")]
    pub initializer_timeout: Duration,
    /// Names of params that never appear in a log, beside those marked `#[secret]`.
    pub secret_params: Vec<String>,
}

impl General {
    /// Everybody knows it.
    pub const DEFAULT_TOKEN: &str = "change-me";
}

impl Default for General {
    fn default() -> Self {
        Self {
            id: String::new(),
            welcome: "welcome".into(),
            action_deadline: Duration::from_secs(30),
            simultaneous_actions: 5,
            rpc_timeout: Duration::from_secs(5),
            server_token: Self::DEFAULT_TOKEN.into(),
            previous_server_token: String::new(),
            grace: Duration::from_secs(30),
            initializer_timeout: Duration::from_secs(60),
            secret_params: Vec::new(),
        }
    }
}
