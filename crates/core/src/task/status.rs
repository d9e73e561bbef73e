//! The status of a job: its state, and what it reported.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::handle::Tasks;
use crate::backend::JobState;
use crate::error::ActionError;
use crate::id::Generation;

/// Most bytes of the JSON of a result.
pub const MAX_RESULT_BYTES: usize = 64 * 1024;

/// The status of a job.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobStatus {
    /// Its state.
    pub state: JobState,
    /// The id of the node that runs it, or of the one whose attempt reported last; its generation if it is gone.
    pub node: Option<String>,
    /// The number of that attempt.
    pub attempt: Option<u32>,
    /// The progress that it reported last.
    pub progress: Option<Box<RawValue>>,
    /// The value that it returned, if its task is `tracked`.
    pub result: Option<Box<RawValue>>,
}

impl Tasks {
    /// The status of a job. Progress and result are kept for a day after its end; that a job without them succeeded is
    /// known for the last 10,000 jobs. Finding a job that reported nothing reads the queues, from their ends.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn status(&self, id: &str) -> Result<JobStatus, ActionError> {
        let stored = self.store()?.status(id).await?;
        let node = match stored.attempt {
            Some((generation, _)) => Some(self.name_of(generation).await),
            None => None,
        };
        Ok(JobStatus {
            state: stored.state,
            node,
            attempt: stored.attempt.map(|(_, number)| number),
            progress: stored.progress.and_then(json),
            result: stored.result.and_then(json),
        })
    }

    /// The id of the node with that generation.
    async fn name_of(&self, generation: Generation) -> String {
        if self.parts.identity.is_own(generation) {
            return self.parts.identity.node_id.clone();
        }
        let nodes = self.parts.cluster.nodes().await.unwrap_or_default();
        let node = nodes.into_iter().find(|node| node.generation == generation || node.earlier.contains(&generation));
        node.map_or_else(|| generation.to_string(), |node| node.id)
    }
}

/// A text that came from the store is not trusted to be JSON.
fn json(text: Bytes) -> Option<Box<RawValue>> {
    serde_json::from_slice(&text).ok()
}
