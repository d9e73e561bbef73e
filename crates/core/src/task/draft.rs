//! A job before it is stored, as the application's hooks see it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::origin::JobOrigin;
use crate::error::{ActionError, ErrorKind};

/// A job that is about to be stored: its task is known, and its input was checked.
#[derive(Debug)]
pub struct JobDraft<'a> {
    pub(super) task: &'static str,
    pub(super) input: &'a RawValue,
    pub(super) origin: &'a JobOrigin,
    pub(super) queue: String,
    /// The values of the enqueue.
    pub(super) meta: BTreeMap<String, String>,
}

impl JobDraft<'_> {
    /// The name of its task.
    pub fn task(&self) -> &'static str {
        self.task
    }

    /// Its input, as JSON.
    pub fn input(&self) -> &str {
        self.input.get()
    }

    /// Decodes its input.
    ///
    /// # Errors
    ///
    /// `invalid_input` if it is not of that type.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ActionError> {
        serde_json::from_str(self.input())
            .map_err(|_| ActionError::of(ErrorKind::InvalidInput, "the input of the job has another shape"))
    }

    /// The queue that it is to be stored in.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// Has it stored in this queue. A name that no queue has is refused as at any enqueue.
    pub fn set_queue(&mut self, queue: impl Into<String>) {
        self.queue = queue.into();
    }

    /// The id of the request in which it is enqueued.
    pub fn request(&self) -> Option<&str> {
        self.origin.request.as_deref()
    }

    /// A value that it carries: of the enqueue, or of the job that enqueues it.
    pub fn meta(&self, name: &str) -> Option<&str> {
        self.meta.get(name).or_else(|| self.origin.values.get(name)).map(String::as_str)
    }

    /// Has it carry a value, in place of one of that name, within [`MAX_META_BYTES`](super::MAX_META_BYTES) for all.
    pub fn set_meta(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.meta.insert(name.into(), value.into());
    }
}

/// The application's hooks, as an enqueue calls them. The engine implements this with the hooks that authors write.
#[async_trait]
pub(crate) trait TaskCallbacks: Send + Sync {
    /// When hooks that begin now are late.
    fn late_at(&self) -> Instant;

    /// Runs before a job is stored, until then at most. A panic is a refusal, `internal`.
    async fn before_enqueue(&self, job: &mut JobDraft<'_>, until: Instant) -> Result<(), ActionError>;
}
