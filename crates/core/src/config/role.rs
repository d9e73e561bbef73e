//! The roles of a process: which parts of a node it runs.

use serde::{Deserialize, Serialize};

/// A part that a node has or leaves to others of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Serves clients.
    Web,
    /// Fetches and runs jobs.
    Worker,
    /// Enqueues the ticks of periodic tasks, and jobs that are due.
    Scheduler,
}

impl NodeRole {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Web, Self::Worker, Self::Scheduler];

    /// Its name in settings and in the list of nodes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Worker => "worker",
            Self::Scheduler => "scheduler",
        }
    }

    /// The role of a name.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.name() == name);
        found.ok_or_else(|| format!("{name:?} is no role: there are web, worker and scheduler"))
    }
}
