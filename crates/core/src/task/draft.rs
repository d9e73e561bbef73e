//! A job before it is stored, as the application's hooks see it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::origin::JobOrigin;
use crate::error::{ActionError, ErrorKind};

/// A job that is about to be stored: its task is known, and its input was checked. Cheap to clone; changes count until the
/// hooks have decided.
#[derive(Clone, Debug)]
pub struct JobDraft(Arc<DraftFacts>);

#[derive(Debug)]
struct DraftFacts {
    task: &'static str,
    input: Box<RawValue>,
    origin: Arc<JobOrigin>,
    changes: Mutex<DraftChanges>,
}

/// The part of a job that hooks change.
#[derive(Clone, Debug)]
pub(super) struct DraftChanges {
    pub(super) queue: String,
    /// The values of the enqueue.
    pub(super) meta: BTreeMap<String, String>,
}

impl JobDraft {
    pub(super) fn new(task: &'static str, input: Box<RawValue>, origin: Arc<JobOrigin>, changes: DraftChanges) -> Self {
        Self(Arc::new(DraftFacts { task, input, origin, changes: Mutex::new(changes) }))
    }

    /// The name of its task.
    pub fn task(&self) -> &'static str {
        self.0.task
    }

    /// Its input, as JSON.
    pub fn input(&self) -> &str {
        self.0.input.get()
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
    pub fn queue(&self) -> String {
        self.changes().queue.clone()
    }

    /// Has it stored in this queue. A name that no queue has is refused as at any enqueue.
    pub fn set_queue(&self, queue: impl Into<String>) {
        self.changes().queue = queue.into();
    }

    /// The id of the request in which it is enqueued.
    pub fn request(&self) -> Option<&str> {
        self.0.origin.request.as_deref()
    }

    /// A value that it carries: of the enqueue, or of the job that enqueues it.
    pub fn meta(&self, name: &str) -> Option<String> {
        let changed = self.changes().meta.get(name).cloned();
        changed.or_else(|| self.0.origin.values.get(name).cloned())
    }

    /// Has it carry a value, in place of one of that name, within [`MAX_META_BYTES`](super::MAX_META_BYTES) for all.
    pub fn set_meta(&self, name: impl Into<String>, value: impl Into<String>) {
        self.changes().meta.insert(name.into(), value.into());
    }

    /// The decision of the hooks.
    pub(super) fn decided(&self) -> DraftChanges {
        self.changes().clone()
    }

    fn changes(&self) -> MutexGuard<'_, DraftChanges> {
        self.0.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The application's hooks, as an enqueue calls them. The engine implements this with the hooks that authors write.
#[async_trait]
pub(crate) trait TaskCallbacks: Send + Sync {
    /// When hooks that begin now are late.
    fn late_at(&self) -> Instant;

    /// Runs before a job is stored, until then at most. A panic is a refusal, `internal`.
    async fn before_enqueue(&self, job: &JobDraft, until: Instant) -> Result<(), ActionError>;
}
