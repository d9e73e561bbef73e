//! Waits for the end of a job, wherever it runs.

use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::handle::Tasks;
use super::status::JobStatus;
use crate::error::{ActionError, ErrorKind};
use crate::metrics::bound_reached;

/// Most callers on a node that wait for the ends of jobs.
pub const MAX_WAITERS: usize = 20_000;

/// A caller that waits, and is counted.
struct Waiter<'a> {
    _permit: SemaphorePermit<'a>,
}

impl Waiter<'_> {
    fn gauge() -> metrics::Gauge {
        metrics::gauge!("phalanx_task_waiters")
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        Self::gauge().decrement(1);
    }
}

impl Tasks {
    /// Waits until a job of a `tracked` task is over, on whichever node it runs: done, failed for good, or dropped. Returns its
    /// status, whose [`value`](JobStatus::value) is what it returned; at once if the job is over already. The node learns of the
    /// end by a message of the backend.
    ///
    /// A request that waits keeps its permit of `web.max_requests`: wait for seconds, and answer
    /// [`accepted`](crate::Context::accepted) for what takes longer.
    ///
    /// # Errors
    ///
    /// At once: `not_tracked` (404) if the job is of a task that is not `tracked`, or is not known: its end is kept for a day, and
    /// one that waits is known for a week after it is due (if a Redis loses it meanwhile, it may be listed again: that takes 15 s at
    /// most); `unavailable` if the backend does not answer, or [`MAX_WAITERS`]
    /// callers wait on this node. `timeout` if it is not over in time, or was ended by a node whose version of the application does
    /// not track the task.
    pub async fn wait(&self, id: &str, limit: Duration) -> Result<JobStatus, ActionError> {
        let _waiter = self.enter_wait()?;
        let store = self.store()?;
        // No look at the status of one that is late: finding a job that waits reads its queue, and many callers may be late at once.
        let ended = timeout(limit, store.ended(id)).await.map_err(|_| late())??;
        match ended {
            Some(status) => Ok(self.shown(status).await),
            None => Err(not_tracked()),
        }
    }

    fn enter_wait(&self) -> Result<Waiter<'_>, ActionError> {
        let Ok(permit) = self.parts.waiters.try_acquire() else {
            bound_reached("task_waiters");
            let message = format!("{MAX_WAITERS} callers of this node wait for jobs already");
            return Err(ActionError::of(ErrorKind::Unavailable, message));
        };
        Waiter::gauge().increment(1);
        Ok(Waiter { _permit: permit })
    }
}

fn not_tracked() -> ActionError {
    let message = "no job of this id is tracked: its task is not `tracked`, or the job is not known, or not any more";
    ActionError::new(ErrorKind::NotFound, "not_tracked", message)
}

fn late() -> ActionError {
    ActionError::of(ErrorKind::Timeout, "the job is not over yet")
}
