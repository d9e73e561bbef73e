//! The attempts that run in the cluster.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::handle::Tasks;
use super::operations::MAX_PAGE;
use crate::backend::ListedAttempt;
use crate::error::ActionError;
use crate::id::Generation;

/// An attempt that a node of the cluster runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActiveAttempt {
    /// The id of its job; the node's generation and a number for a job of another program, which has none.
    pub id: Arc<str>,
    /// The name of its task; empty if the job is unreadable.
    pub task: Arc<str>,
    /// The queue that the job came from.
    pub queue: Arc<str>,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// How many nodes died that ran the job.
    pub deaths: u32,
    /// The generation of its node.
    pub generation: Generation,
    /// The id of its node; `None` if the node died and its jobs were not given back yet.
    pub node: Option<Arc<str>>,
    /// How long it has been running; `None` if its node is of an earlier release.
    pub age: Option<Duration>,
}

impl Tasks {
    /// The attempts that run in the cluster, a thousand at most, those of a node in the order in which they began.
    /// Attempts begin and end between two calls, so a list that is read in parts may lack some.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn running(&self, skip: usize, limit: usize) -> Result<Vec<ActiveAttempt>, ActionError> {
        let listed = self.store()?.running(skip, limit.min(MAX_PAGE)).await?;
        if listed.is_empty() {
            return Ok(Vec::new());
        }
        let nodes: HashMap<Generation, Arc<str>> =
            self.parts.cluster.nodes().await?.into_iter().map(|node| (node.generation, node.id.into())).collect();
        let now_us = self.parts.clock.now_us();
        let active = |listed: ListedAttempt| {
            let ListedAttempt { generation, attempt, id, class } = listed;
            let age = attempt.fetched_us().map(|began| Duration::from_micros(now_us.saturating_sub(began)));
            ActiveAttempt {
                id: id.unwrap_or_else(|| format!("{generation}-{}", attempt.token).into()),
                task: class.unwrap_or_default(),
                queue: attempt.queue,
                attempt: attempt.counters.attempts,
                deaths: attempt.counters.deaths,
                generation,
                node: nodes.get(&generation).cloned(),
                age,
            }
        };
        Ok(listed.into_iter().map(active).collect())
    }
}
