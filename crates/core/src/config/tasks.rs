//! The section `tasks`: how many jobs a node runs, and of which queues.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::ServedQueue;

/// The task queue. A node without tasks uses none of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskSettings {
    /// The queues that the node serves, the most important first: a job of a later one starts when all earlier ones are
    /// empty. `*` stands for all that are not named. What limits a queue follows its name: see [`ServedQueue`].
    pub queues: Vec<String>,
    /// Most jobs that the node runs at once; zero: it enqueues jobs and runs none.
    pub concurrency: usize,
    /// Threads that run jobs, apart from those of clients; zero: as many as the machine has cores, two at least.
    pub threads: usize,
    /// The deadline of a task that has none of its own; zero means none.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// How long a job waits for a node that knows its task, or can decode its input; then it fails.
    #[serde(with = "humantime_serde")]
    pub unknown_grace: Duration,
    /// Most failed jobs that are kept; beyond, the oldest is dropped.
    pub failed_max: usize,
    /// Replicas of Redis that have a job before its enqueue is answered; zero: the answer waits for none.
    pub replicas: usize,
    /// Prefix of the keys that resque tools read too.
    pub prefix: String,
    /// Whether jobs are fetched although another cluster uses the same prefix, whose jobs this one would run, or park.
    pub shared_prefix: bool,
}

impl TaskSettings {
    /// The queue of a task that names none.
    pub const DEFAULT_QUEUE: &str = "default";

    /// Stands for all queues that are not named.
    pub const ALL_QUEUES: &str = "*";

    /// Most queues that a node names.
    pub const MAX_QUEUES: usize = 64;

    /// Most jobs that a node runs at once.
    pub const MAX_CONCURRENCY: usize = 10_000;

    /// Most replicas that an enqueue waits for.
    pub const MAX_REPLICAS: usize = 16;

    /// Whether a queue can have this name: 1 to 100 characters of `A-Z a-z 0-9 : . _ -`.
    pub fn is_queue(name: &str) -> bool {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":._-".contains(&byte);
        (1..=100).contains(&name.len()) && name.bytes().all(allowed)
    }
}

impl Default for TaskSettings {
    fn default() -> Self {
        Self {
            queues: vec![Self::ALL_QUEUES.into()],
            concurrency: 10,
            threads: 0,
            deadline: Duration::from_secs(30 * 60),
            unknown_grace: Duration::from_secs(60 * 60),
            failed_max: 100_000,
            replicas: 0,
            prefix: "resque:".into(),
            shared_prefix: false,
        }
    }
}
