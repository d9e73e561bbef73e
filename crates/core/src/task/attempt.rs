//! The facts of an attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::children::AttemptChildren;
use super::control::TaskControl;
use super::origin::JobOrigin;
use super::progress::AttemptProgress;
use super::pulse::AttemptClock;
use crate::backend::AttemptKey;
use crate::error::ActionError;
use crate::id::Generation;
use crate::job::{JobInput, JobText};
use crate::params::{Input, Params};

/// The facts of one attempt of a job, which its [`TaskContext`](super::context::TaskContext) shows.
#[derive(Debug)]
pub struct AttemptFacts {
    /// The job's id.
    pub id: Arc<str>,
    /// Names the attempt in the store.
    pub key: AttemptKey,
    /// The generation under which it is listed.
    pub generation: Generation,
    /// Rises from one attempt of a job to the next, on whichever node.
    pub fence: u64,
    /// The tick of a periodic task that the job is of, Unix time in milliseconds.
    pub tick_ms: Option<u64>,
    /// When the job was enqueued, Unix time in milliseconds; `None` where that is not known.
    pub enqueued_at_ms: Option<u64>,
    /// The batch that the job is a member of, or the completion of.
    pub batch: Option<Arc<str>>,
    /// The request in which the job was enqueued, and its meta.
    pub origin: JobOrigin,
    /// Cancelled when the attempt is to end.
    pub cancelled: CancellationToken,
    /// Cancelled when the node cannot count on its lease.
    pub lease_lost: CancellationToken,
    /// When its time is up.
    pub clock: AttemptClock,
    /// How far it is, as it last reported.
    pub progress: AttemptProgress,
    /// Whether the job has no id of its own.
    pub is_foreign: bool,
    /// Whether the job may have a checkpoint.
    pub has_checkpoint: AtomicBool,
    /// The jobs that it enqueues.
    pub children: AttemptChildren,
    /// Whether its thread, or the worker in its stead, has taken it.
    pub taken: AtomicBool,
}

impl AttemptFacts {
    /// Takes the attempt, to run it or to give it back; `false` if the other side has.
    pub fn try_take(&self) -> bool {
        !self.taken.swap(true, AcqRel)
    }
}

/// The end of a job that failed for good, for the task's `on_failed`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskFailure {
    /// The kind of the failure: the code of the error, `timeout`, `poison`, `stalled`, ….
    pub exception: String,
    /// The error, with its causes.
    pub error: String,
    /// The attempts.
    pub attempts: u32,
    text: Bytes,
}

impl TaskFailure {
    /// The failure of the job with this text.
    pub fn new(exception: impl Into<String>, error: impl Into<String>, attempts: u32, text: Bytes) -> Self {
        Self { exception: exception.into(), error: error.into(), attempts, text }
    }

    /// The job's input.
    ///
    /// # Errors
    ///
    /// `invalid_input` if it is not a `T`, `malformed` if it is no object.
    pub fn input<T: Input>(&self) -> Result<T, ActionError> {
        let job = JobText::read(&self.text);
        match job.as_ref().map_or(JobInput::Other, JobText::input) {
            JobInput::None => Params::default().decode(),
            JobInput::Object(object) => Params::from_raw_json(object.to_owned())?.decode(),
            JobInput::Other => Err(TaskControl::Undecodable.into_error()),
        }
    }
}
