//! The reports of a running attempt: its progress, and its heartbeats.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::attempt::AttemptFacts;
use super::context::TaskContext;
use super::control::TaskControl;
use super::progress::MAX_PROGRESS_BYTES;
use crate::backend::{JobReport, REPORT_TTL_MS, TaskStore};
use crate::error::{ActionError, ErrorKind};
use crate::metrics::bound_reached;

/// The shortest time from one write of a progress to the next.
const WRITE_PAUSE: Duration = Duration::from_millis(200);

impl TaskContext {
    /// Reports how far the job is, for [`Tasks::status`](super::Tasks::status) on any node: a JSON value of 4 KiB at most.
    /// It is written within 200 ms, or with the end of the attempt; of values that come faster only the last is. It is kept
    /// for a day after the attempt. Waits for nothing.
    ///
    /// If the backend is full or does not answer, the value is written with a further one, or with the end of the attempt.
    /// An attempt whose job another node has writes nothing.
    ///
    /// # Errors
    ///
    /// `payload_too_large` beyond [`MAX_PROGRESS_BYTES`], `internal` for a value that is no JSON. The value before stays.
    pub fn progress<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), ActionError> {
        let json = serde_json::to_vec(value).map_err(ActionError::internal)?;
        if json.len() > MAX_PROGRESS_BYTES {
            bound_reached("task_progress");
            let message = format!("a progress has {MAX_PROGRESS_BYTES} bytes at most");
            return Err(ActionError::of(ErrorKind::PayloadTooLarge, message));
        }
        if self.facts.progress.set(json.into()) {
            let (tasks, facts) = (self.tasks(), self.facts.clone());
            match (tasks.store().cloned(), Handle::try_current()) {
                (Ok(store), Ok(runtime)) => drop(runtime.spawn(write(store, facts))),
                // On a thread of the application's own: the next value or the end of the attempt brings it.
                _ => self.facts.progress.has_no_writer(),
            }
        }
        Ok(())
    }

    /// Says that the attempt gets on: its deadline starts anew, so that a task without a foreseeable length needs a short
    /// deadline only. Does not wait, and sends nothing; call it as often as the work has steps, also where it blocks its
    /// thread.
    ///
    /// An attempt whose node was cut off learns here that another one has the job as soon as the node itself knows:
    /// until then only [`fence`](Self::fence) protects what it changes.
    ///
    /// # Errors
    ///
    /// The attempt is to end: its job was deleted, its node stops, another node has the job, or it was late for so long that
    /// it was settled as `timeout`. Return the error; the attempt then ends as if it had been dropped at an `await`.
    pub fn heartbeat(&self) -> Result<(), ActionError> {
        if self.is_cancelled() {
            return Err(TaskControl::Ended.into_error());
        }
        self.context.clock().set_limit(self.facts.clock.beat());
        Ok(())
    }
}

/// Writes values until there is none.
async fn write(store: Arc<dyn TaskStore>, facts: Arc<AttemptFacts>) {
    while let Some(value) = facts.progress.next() {
        let until = Instant::now() + WRITE_PAUSE;
        let report = JobReport { id: facts.id.clone(), progress: Some(value), result: None, missing: None };
        // It outlives the attempt by a day, whenever that ends.
        let left = facts.clock.limit().unwrap_or_default().as_millis() as u64;
        let written = store.report(facts.generation, &facts.key, &report, REPORT_TTL_MS + left).await;
        if let Err(error) = &written {
            debug!(%error, job = %facts.id, "a progress was not written");
        }
        facts.progress.on_written(written.is_ok_and(|is_listed| is_listed));
        sleep_until(until).await;
    }
}
