//! The status of a job: its state, and what it reported.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::handle::Tasks;
use crate::backend::{JobState, ResultMissing, StoredStatus};
use crate::error::{ActionError, ErrorKind};
use crate::id::Generation;
use crate::protocol::JobView;

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
    /// Why it is done and has none, though its task is `tracked`.
    pub result_missing: Option<ResultMissing>,
}

impl JobStatus {
    /// The value that the job returned.
    ///
    /// # Errors
    ///
    /// `no_result` (404) if it is done without one, or has another value than a `T`, with the reason in the message; `job_failed`,
    /// `job_dropped` and `job_not_over` (409).
    pub fn value<T: DeserializeOwned>(&self) -> Result<T, ActionError> {
        let missing = |message: String| ActionError::new(ErrorKind::NotFound, "no_result", message);
        let (code, message) = match (&self.state, &self.result) {
            (JobState::Done, Some(result)) => {
                return serde_json::from_str(result.get()).map_err(|error| missing(format!("the result: {error}")));
            }
            (JobState::Done, None) => {
                return Err(missing(match self.result_missing {
                    Some(ResultMissing::TooLarge) => format!("the result has more than {MAX_RESULT_BYTES} bytes"),
                    Some(ResultMissing::NotJson) => "the result is no JSON".to_owned(),
                    None => "the result of this job is not kept".to_owned(),
                }));
            }
            (JobState::Failed, _) => ("job_failed", "the job has failed"),
            (JobState::Dropped, _) => ("job_dropped", "the job was deleted, discarded, or has expired"),
            _ => ("job_not_over", "the job is not over"),
        };
        Err(ActionError::new(ErrorKind::Conflict, code, message))
    }
}

impl From<JobStatus> for JobView {
    fn from(status: JobStatus) -> Self {
        let value = |json: Option<Box<RawValue>>| json.and_then(|json| serde_json::from_str(json.get()).ok());
        let state = match status.state {
            JobState::Waiting => "waiting",
            JobState::Delayed(_) => "delayed",
            JobState::Running(_) => "running",
            JobState::Done => "done",
            JobState::Failed => "failed",
            JobState::Dropped => "dropped",
            JobState::Unknown => "unknown",
        };
        Self {
            state: state.to_owned(),
            node: status.node,
            attempt: status.attempt,
            progress: value(status.progress),
            result: value(status.result),
            result_missing: status.result_missing.map(|reason| reason.as_str().to_owned()),
        }
    }
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
        Ok(self.shown(stored).await)
    }

    /// A status with the name of its node.
    pub(super) async fn shown(&self, stored: StoredStatus) -> JobStatus {
        let node = match stored.attempt {
            Some((generation, _)) => Some(self.name_of(generation).await),
            None => None,
        };
        JobStatus {
            state: stored.state,
            node,
            attempt: stored.attempt.map(|(_, number)| number),
            progress: stored.progress.and_then(json),
            result: stored.result.and_then(json),
            result_missing: stored.missing,
        }
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
