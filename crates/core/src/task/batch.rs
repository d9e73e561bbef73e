//! The author's handle on a batch: jobs that are counted together, and a job that is enqueued once all of them have ended.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;

use super::handle::{EnqueueOptions, Enqueued, Tasks, invalid};
use crate::backend::{BatchRefusal, BatchStage, MAX_BATCH, NewBatch, SealOutcome, StoredBatch};
use crate::error::{ActionError, ErrorKind};
use crate::id::random_text;
use crate::metrics::bound_reached;

/// The deadline of a batch that names none: a week.
pub const BATCH_DEADLINE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The latest deadline of a batch: 90 days.
pub const MAX_BATCH_DEADLINE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// A batch before it is created.
#[derive(Debug, Default)]
pub struct BatchOptions {
    deadline: Option<Duration>,
    name: Option<String>,
    pub(super) completion: Option<(&'static str, Box<RawValue>)>,
}

impl BatchOptions {
    /// Without a completion, and with a deadline of a week.
    pub fn new() -> Self {
        Self::default()
    }

    /// With an end after this time at the latest, [`MAX_BATCH_DEADLINE`] at most.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// With a name among the batches that a job creates, by which another attempt finds it: see [`Tasks::create_batch`]. Without
    /// one they differ by their completions, and by their order.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

/// A batch that was created. Cheap to clone.
#[derive(Clone)]
pub struct JobBatch {
    pub(super) tasks: Tasks,
    pub(super) id: Arc<str>,
    /// Whether a job has created it, another attempt of which may have sealed it.
    is_of_job: bool,
}

/// The numbers of a batch. Once it is over, they stay as they were then.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchStatus {
    /// How far it is.
    pub stage: BatchStage,
    /// How many members it has.
    pub total: u64,
    /// How many succeeded.
    pub done: u64,
    /// How many failed for good. One that is retried later stays counted as failed.
    pub failed: u64,
    /// How many are over without either: deleted, discarded, or too late to begin.
    pub deleted: u64,
    /// The id of the job that its end enqueues.
    pub completion: Option<Arc<str>>,
}

impl BatchStatus {
    /// How many members have not ended.
    pub fn pending(&self) -> u64 {
        self.total.saturating_sub(self.done + self.failed + self.deleted)
    }
}

impl From<StoredBatch> for BatchStatus {
    fn from(stored: StoredBatch) -> Self {
        let StoredBatch { stage, total, done, failed, deleted, completion } = stored;
        Self { stage, total, done, failed, deleted, completion }
    }
}

impl From<BatchRefusal> for ActionError {
    fn from(refusal: BatchRefusal) -> Self {
        match refusal {
            BatchRefusal::Unknown => Self::new(
                ErrorKind::NotFound,
                "unknown_batch",
                "there is no such batch, or it ended more than a week ago",
            ),
            BatchRefusal::Sealed => Self::new(ErrorKind::Conflict, "batch_sealed", "the batch was sealed before"),
            BatchRefusal::Expired => {
                Self::new(ErrorKind::Conflict, "batch_expired", "the deadline of the batch has passed")
            }
            BatchRefusal::TooLarge => {
                bound_reached("task_batch");
                let message = format!("a batch has {MAX_BATCH} members at most");
                Self::new(ErrorKind::PayloadTooLarge, "batch_too_large", message)
            }
        }
    }
}

impl Tasks {
    /// Creates a batch. It takes members until it is [sealed](JobBatch::seal), and does not end before unless its deadline passes.
    ///
    /// A job that runs again, because its node died or because it failed, has the batch that its earlier attempt created, with the
    /// members that this one added: it adds the others, and seals it, as if it ran for the first time. So does one that runs again
    /// after `snooze`. A job that is to create another batch when it runs again, such as one that goes on from a checkpoint, gives
    /// each a [name](BatchOptions::name).
    ///
    /// # Errors
    ///
    /// Those of [`Tasks::enqueue_named`] for the completion, and `invalid_input` for a deadline that cannot be. If the backend
    /// does not answer, there may be a batch, which ends at its deadline.
    pub async fn create_batch(&self, options: BatchOptions) -> Result<JobBatch, ActionError> {
        let deadline = options.deadline.unwrap_or(BATCH_DEADLINE);
        if deadline.is_zero() || deadline > MAX_BATCH_DEADLINE {
            return Err(invalid("deadline", "must be more than nothing, and 90 days at most"));
        }
        // Before anything is awaited, as those of jobs.
        let id = self.attempt.as_ref().and_then(|attempt| {
            let completion = options.completion.as_ref().map(|(task, input)| (*task, &**input));
            attempt.children.next_batch_id((&attempt.id, attempt.enqueued_at_ms), options.name.as_deref(), completion)
        });
        let id = id.unwrap_or_else(|| random_text::<26>().into());
        let completion = match options.completion {
            Some((task, input)) => Some(self.prepare_completion(task, input, &id).await?),
            None => None,
        };
        let deadline_ms = self.parts.clock.now_ms() + (deadline.as_millis() as u64).max(1);
        let new = NewBatch { id: id.clone(), deadline_ms, completion };
        self.store()?.create_batch(&new, self.until_us()).await?;
        Ok(JobBatch { tasks: self.clone(), id, is_of_job: self.attempt.is_some() })
    }

    /// The batch with that id, on whichever node it was created. Does not look whether there is one: its methods do.
    pub fn batch(&self, id: impl Into<Arc<str>>) -> JobBatch {
        JobBatch { tasks: self.clone(), id: id.into(), is_of_job: false }
    }
}

impl JobBatch {
    /// Its id.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Enqueues a job as a member by the name of its task, with JSON. One that is not stored, because a job has its id or its unique
    /// key, is no member.
    ///
    /// # Errors
    ///
    /// Those of [`Tasks::enqueue_named`]; nothing is stored if the batch is unknown (404 `unknown_batch`), sealed (409
    /// `batch_sealed`), past its deadline (409 `batch_expired`), or full (413 `batch_too_large`).
    pub async fn add_named(&self, task: &str, input: &Value, options: EnqueueOptions) -> Result<Enqueued, ActionError> {
        self.tasks.enqueue_named(task, input, options.member_of(&self.id)).await
    }

    /// Says that all members were added. If all have ended, the batch ends with that; an empty one does. For the job that creates
    /// it, one that is sealed already is answered as it is: another attempt may have done that.
    ///
    /// # Errors
    ///
    /// `unknown_batch`, `batch_sealed`, `batch_expired`; `unavailable` if the backend does not answer: then it may be sealed.
    pub async fn seal(&self) -> Result<BatchStatus, ActionError> {
        match self.tasks.store()?.seal_batch(&self.id).await? {
            SealOutcome::Sealed(stored) => Ok(stored.into()),
            SealOutcome::Refused(BatchRefusal::Sealed) if self.is_of_job => self.status().await,
            SealOutcome::Refused(refusal) => Err(refusal.into()),
        }
    }

    /// Its numbers, from any node.
    ///
    /// # Errors
    ///
    /// `unknown_batch`; `unavailable` if the backend does not answer.
    pub async fn status(&self) -> Result<BatchStatus, ActionError> {
        let stored = self.tasks.store()?.batch(&self.id).await?;
        stored.map(BatchStatus::from).ok_or_else(|| BatchRefusal::Unknown.into())
    }
}

impl EnqueueOptions {
    pub(super) fn member_of(mut self, batch: &Arc<str>) -> Self {
        self.batch = Some(batch.clone());
        self
    }
}

impl fmt::Debug for JobBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobBatch({})", self.id)
    }
}
