//! Checkpoints: a value that an attempt hands to the next one of its job.

use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::TaskContext;
use super::control::TaskControl;
use crate::backend::CHECKPOINT_TTL_MS;
use crate::error::{ActionError, ErrorKind};
use crate::metrics::bound_reached;

/// Most bytes of the JSON of a checkpoint.
pub const MAX_CHECKPOINT_BYTES: usize = 16 * 1024;

impl TaskContext {
    /// Stores a value for the next attempt of the job, in place of the last one: a JSON of 16 KiB at most. Completes once it is
    /// stored, so that a step which it says is done is not done again, wherever the node dies. It is gone with the success of the job,
    /// and a week after it was stored.
    ///
    /// # Errors
    ///
    /// `payload_too_large` beyond [`MAX_CHECKPOINT_BYTES`], `internal` for a value that is no JSON; `unavailable` if the backend is
    /// full or does not answer: then it may be stored. Another node has the job, or this attempt is settled: return that error, as
    /// that of a [`heartbeat`](Self::heartbeat). `conflict` with the code `no_id` for a job of another program, whose attempts cannot
    /// be distinguished from those of other jobs.
    pub async fn checkpoint<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), ActionError> {
        let json = serde_json::to_vec(value).map_err(ActionError::internal)?;
        if json.len() > MAX_CHECKPOINT_BYTES {
            bound_reached("task_checkpoint");
            let message = format!("a checkpoint has {MAX_CHECKPOINT_BYTES} bytes at most");
            return Err(ActionError::of(ErrorKind::PayloadTooLarge, message));
        }
        if self.facts.is_foreign {
            return Err(ActionError::new(ErrorKind::Conflict, "no_id", "a job of another program has no id"));
        }
        // Before it may be stored: the end of the attempt has to remove it.
        self.facts.has_checkpoint.store(true, Relaxed);
        let facts = &self.facts;
        let left = facts.clock.limit().unwrap_or_default().as_millis() as u64;
        let (store, ttl_ms) = (self.tasks().store()?.clone(), CHECKPOINT_TTL_MS + left);
        let is_listed = store.keep_checkpoint(facts.generation, (&facts.key, &facts.id), json.into(), ttl_ms).await?;
        if is_listed { Ok(()) } else { Err(TaskControl::Ended.into_error()) }
    }

    /// The value that an attempt of the job stored last, this one or an earlier one; `None` if none did within a week.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer. `internal` if the value is no `T`: another version of the application may have
    /// stored it.
    pub async fn last_checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, ActionError> {
        if self.facts.is_foreign {
            return Ok(None);
        }
        let Some(json) = self.tasks().store()?.checkpoint(&self.facts.id).await? else { return Ok(None) };
        self.facts.has_checkpoint.store(true, Relaxed);
        serde_json::from_slice(&json).map(Some).map_err(ActionError::internal)
    }
}
