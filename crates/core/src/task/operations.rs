//! Looking at jobs and queues, and changing them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::due::MAX_DELAY;
use super::handle::{Tasks, invalid};
use super::unique::UNIQUE_FOR;
use crate::backend::{DeleteOutcome, FailedTake, MOVE_BATCH, NewJob, TakeOutcome, TaskStats, UniqueClaim};
use crate::config::TaskSettings;
use crate::error::ActionError;
use crate::id::random_text;
use crate::job::{FailedJob, JobText};
use crate::locks::Locks;

/// The remote method by which a node has another one cancel the attempts of a job.
pub(super) const CANCEL_METHOD: &str = "phalanx:cancelTask";

/// Most jobs that one call lists.
pub(super) const MAX_PAGE: usize = 1000;

/// The most bytes of the failed jobs that are taken in one step, but for one that has more by itself.
const TAKE_BYTES: usize = 256 * 1024;

impl Tasks {
    /// Deletes a job. One that runs is cancelled at its next `await`, on whichever node, and is not repeated.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn delete(&self, id: &str) -> Result<DeleteOutcome, ActionError> {
        let outcome = self.store()?.delete(id).await?;
        if let DeleteOutcome::Cancelling(generation) = outcome {
            if self.parts.identity.is_own(generation) {
                self.cancel_here(id);
            } else {
                // Without an answer the job is marked all the same: it is not repeated.
                let call = self.parts.calls.call_node(generation, None, CANCEL_METHOD, json!({ "id": id }), None);
                let _ = call.await;
            }
        }
        Ok(outcome)
    }

    /// The numbers of the task queue.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn stats(&self) -> Result<TaskStats, ActionError> {
        Ok(self.store()?.stats().await?)
    }

    /// The texts of jobs that wait in a queue, a thousand at most, from about the one that runs next.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer, `invalid_input` for a name that no queue has.
    pub async fn waiting(&self, queue: &str, skip: usize, limit: usize) -> Result<Vec<Bytes>, ActionError> {
        check_queue(queue)?;
        Ok(self.store()?.waiting(queue, skip, limit.min(MAX_PAGE)).await?)
    }

    /// Pauses a queue in the whole cluster: its jobs wait, those that run go on.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer, `invalid_input` for a name that no queue has.
    pub async fn pause(&self, queue: &str) -> Result<(), ActionError> {
        check_queue(queue)?;
        Ok(self.store()?.set_paused(queue, true).await?)
    }

    /// Resumes a queue.
    ///
    /// # Errors
    ///
    /// Those of [`Tasks::pause`].
    pub async fn resume(&self, queue: &str) -> Result<(), ActionError> {
        check_queue(queue)?;
        Ok(self.store()?.set_paused(queue, false).await?)
    }

    /// The failed jobs, the oldest first, a thousand at most.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn failed(&self, skip: usize, limit: usize) -> Result<Vec<FailedJob>, ActionError> {
        Ok(self.store()?.failed(skip, limit.min(MAX_PAGE)).await?.iter().map(FailedJob::read).collect())
    }

    /// Has a failed job run again, with all its attempts. `false` if it is not among the failed ones, or is no job that
    /// could run.
    ///
    /// # Errors
    ///
    /// `conflict` if another job has its unique key, `unavailable` if the backend does not answer.
    pub async fn retry_failed(&self, failed: &FailedJob) -> Result<bool, ActionError> {
        let Some(job) = self.retry_of(failed) else { return Ok(false) };
        match self.store()?.take_failed(&[job]).await?.pop() {
            Some(TakeOutcome::Taken) => Ok(true),
            Some(TakeOutcome::NotFound) | None => Ok(false),
            Some(TakeOutcome::Claimed(id)) => {
                Err(ActionError::conflict(format!("the job {id} has its unique key: it stays among the failed ones")))
            }
        }
    }

    /// Has all failed jobs run again that are there now, and returns how many. Jobs that cannot be read, and those whose
    /// unique key another job has, stay.
    ///
    /// # Errors
    ///
    /// `conflict` while another caller does the same, `unavailable` if the backend does not answer: then some of them
    /// may run again.
    pub async fn retry_all_failed(&self) -> Result<usize, ActionError> {
        let lock = self.parts.locks.lock("phalanx:tasks:retry", Locks::LEASE, Duration::ZERO).await?;
        let Some(_guard) = lock else {
            return Err(ActionError::conflict("another caller retries all failed jobs"));
        };
        // One that fails at once is appended, and must not be retried again.
        let mut left = usize::try_from(self.stats().await?.failed).unwrap_or(usize::MAX);
        let (mut retried, mut staying) = (0, 0);
        while left > 0 {
            let page = self.failed(staying, MOVE_BATCH.min(left)).await?;
            if page.is_empty() {
                break;
            }
            left -= page.len();
            let jobs: Vec<FailedTake> = page.iter().filter_map(|failed| self.retry_of(failed)).collect();
            staying += page.len() - jobs.len();
            let mut rest = &jobs[..];
            while !rest.is_empty() {
                let (batch, others) = rest.split_at(batch_of(rest));
                rest = others;
                for outcome in self.store()?.take_failed(batch).await? {
                    match outcome {
                        TakeOutcome::Taken => retried += 1,
                        TakeOutcome::NotFound => {}
                        TakeOutcome::Claimed(_) => staying += 1,
                    }
                }
            }
        }
        Ok(retried)
    }

    /// Removes a failed job. `false` if it is not among the failed ones.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn remove_failed(&self, failed: &FailedJob) -> Result<bool, ActionError> {
        let job = FailedTake { record: failed.record.clone(), retry: None };
        Ok(self.store()?.take_failed(&[job]).await? == [TakeOutcome::Taken])
    }

    /// Has a failed job wait in its queue again; `None` if it cannot be read.
    fn retry_of(&self, failed: &FailedJob) -> Option<FailedTake> {
        let text = failed.payload.get();
        let job = JobText::read(text.as_bytes()).filter(|job| job.class != "unreadable")?;
        let queue = [failed.queue.as_str(), &job.queue].into_iter().find(|queue| TaskSettings::is_queue(queue));
        // The text may be another program's.
        let ttl_ms = job.unique_for.unwrap_or(UNIQUE_FOR.as_millis() as u64).clamp(1, MAX_DELAY.as_millis() as u64);
        let unique = job.unique.as_ref().map(|key| UniqueClaim { key: Arc::from(&**key), ttl_ms });
        let tracked = self.parts.known.get(&*job.class).is_some_and(|known| known.tracked);
        let new = NewJob {
            unique,
            tracked,
            ..NewJob::new(
                job.id.as_deref().map_or_else(|| random_text::<26>().into(), Arc::from),
                queue.unwrap_or(TaskSettings::DEFAULT_QUEUE),
                Bytes::copy_from_slice(text.as_bytes()),
            )
        };
        Some(FailedTake { record: failed.record.clone(), retry: Some(new) })
    }
}

/// How many of these are taken in one step.
fn batch_of(jobs: &[FailedTake]) -> usize {
    let mut bytes = 0;
    let fits = |job: &&FailedTake| {
        bytes += job.record.len() + job.retry.as_ref().map_or(0, |new| new.text.len());
        bytes <= TAKE_BYTES
    };
    jobs.iter().take(MOVE_BATCH).take_while(fits).count().max(1)
}

fn check_queue(queue: &str) -> Result<(), ActionError> {
    let error = || invalid("queue", "must be 1 to 100 characters of A-Z a-z 0-9 : . _ -");
    TaskSettings::is_queue(queue).then_some(()).ok_or_else(error)
}
