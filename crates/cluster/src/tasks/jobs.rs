//! Finds and deletes jobs by their id.

use std::sync::Arc;

use bytes::Bytes;
use deadpool_redis::redis::{Value, cmd, pipe};
use phalanx_core::Generation;
use phalanx_core::backend::{BackendError, BatchStage, DeleteOutcome, FailedTake, JobState, TakeOutcome};
use phalanx_core::job::{FailedJob, JobText};
use phalanx_core::metrics::record_batch_ends;
use tracing::debug;

use super::call::unexpected_reply;
use super::entry::split_counters;
use super::{RedisTasks, report_spoilt};

/// How often a job that is to be deleted is looked for among the delayed ones, if it was put there between look and script.
const LOOKS: usize = 5;

/// The id of a job; `None` for a foreign one.
pub(super) fn id_of(text: &[u8]) -> Option<Arc<str>> {
    JobText::read(text)?.id.map(|id| id.as_ref().into())
}

impl RedisTasks {
    /// The state of a job that is known by its id; `None` if only a search can find it.
    pub(super) async fn find_place(&self, id: &str) -> Result<Option<JobState>, BackendError> {
        let keys = &self.keys;
        let mut looks = pipe();
        looks.cmd("ZSCORE").arg(keys.delayed()).arg(id);
        looks.cmd("ZSCORE").arg(keys.failed_ids()).arg(id);
        looks.cmd("LPOS").arg(keys.done()).arg(id);
        type Looks = (Option<f64>, Option<f64>, Option<u64>);
        let (delayed, failed, done): Looks = self.shared.read_all("delayed", &looks).await?;
        Ok(match (delayed, failed, done) {
            (Some(due_ms), ..) => Some(JobState::Delayed(due_ms as u64)),
            (_, Some(_), _) => Some(JobState::Failed),
            (.., Some(_)) => Some(JobState::Done),
            (None, None, None) => None,
        })
    }

    /// Looks for a job in the queues and among those that run; with the attempt that runs.
    pub(super) async fn search(&self, id: &str) -> Result<(JobState, Option<(Generation, u32)>), BackendError> {
        // In the direction in which jobs move, so that one which moves meanwhile is found at its next place.
        if self.may_wait(id).await? {
            return Ok((JobState::Waiting, None));
        }
        Ok(match self.find_running(id).await? {
            Some(attempt) => (JobState::Running(attempt.0), Some(attempt)),
            None => (JobState::Unknown, None),
        })
    }

    pub(super) async fn delete_job(&self, id: &str) -> Result<DeleteOutcome, BackendError> {
        let failed: Option<f64> =
            self.shared.read("failed:ids", cmd("ZSCORE").arg(self.keys.failed_ids()).arg(id)).await?;
        if failed.is_some() && self.delete_failed(id).await? {
            return Ok(DeleteOutcome::Deleted);
        }
        if self.delete_delayed(id, true).await? {
            return Ok(DeleteOutcome::Deleted);
        }
        // It is marked by now: the node that fetches it drops it.
        if self.may_wait(id).await? {
            return Ok(DeleteOutcome::Marked);
        }
        if let Some((generation, _)) = self.find_running(id).await? {
            return Ok(DeleteOutcome::Cancelling(generation));
        }
        if self.delete_delayed(id, false).await? {
            return Ok(DeleteOutcome::Deleted);
        }
        self.shared.query::<u64>("deleted", cmd("ZREM").arg(self.keys.deleted()).arg(id)).await?;
        Ok(DeleteOutcome::NotFound)
    }

    pub(super) async fn are_deleted(&self, ids: &[Arc<str>]) -> Result<Vec<bool>, BackendError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = cmd("ZMSCORE");
        command.arg(self.keys.deleted());
        for id in ids {
            command.arg(&**id);
        }
        let scores: Vec<Option<f64>> = self.calls.client().await?.read("deleted", &command).await?;
        Ok(scores.into_iter().map(|score| score.is_some()).collect())
    }

    /// Removes a delayed job; one that is not delayed may be marked instead.
    async fn delete_delayed(&self, id: &str, marks: bool) -> Result<bool, BackendError> {
        let keys = &self.keys;
        let (jobs, mut look) = (keys.delayed_jobs(), cmd("HGET"));
        look.arg(&jobs).arg(id);
        for _ in 0..LOOKS {
            let stored: Option<Vec<u8>> = self.shared.read(&jobs, &look).await?;
            // The claim goes in the same step: left behind, it would refuse other jobs for as long as this one was to have it. So
            // does the end of a member: a batch would wait for it.
            let (claim, member) = stored.as_deref().map(names_of).unwrap_or_default();
            let claim_key = claim.map_or_else(|| keys.unused(), |claim| [keys.unique(), claim].concat());
            let mut call = self.scripts.delete_delayed.call(&[
                keys.unused(),
                keys.delayed(),
                jobs.clone(),
                keys.deleted(),
                claim_key,
                keys.queues(),
                keys.ready(),
                keys.again(),
                keys.suspects(),
                keys.batches(),
                keys.batches_ended(),
                keys.reports(),
                keys.batches_due(),
                keys.fair(),
            ]);
            call.arg(id).arg(u8::from(marks)).arg(u8::from(stored.is_some())).arg(member.unwrap_or_default());
            match call.arg(&self.channel).run(&self.shared).await? {
                Value::Int(0) => return Ok(false),
                Value::Int(outcome @ (1 | 3)) => {
                    record_batch_ends(BatchStage::Finished, (outcome == 3).into());
                    return Ok(true);
                }
                Value::Int(_) => {} // it was delayed since the look
                Value::BulkString(key) => {
                    return Err(BackendError::WrongKind { key: String::from_utf8_lossy(&key).into_owned() });
                }
                _ => return Err(unexpected_reply()),
            }
        }
        Err(BackendError::refused("the job moves from one place to the next: repeat the deletion"))
    }

    pub(super) async fn find_claimant(&self, claim: &str) -> Result<Option<Arc<str>>, BackendError> {
        let key = [&self.keys.unique(), claim].concat();
        let id: Option<String> = self.shared.read(&key, cmd("GET").arg(&key)).await?;
        Ok(id.map(Arc::from))
    }

    pub(super) async fn release_claim(&self, claim: &str, id: &str) -> Result<bool, BackendError> {
        let mut call = self.scripts.release.call(&[[&self.keys.unique(), claim].concat()]);
        call.arg(id).run(&self.shared).await
    }

    async fn delete_failed(&self, id: &str) -> Result<bool, BackendError> {
        let matches = |_, record: &Bytes| FailedJob::read(record).id.as_deref() == Some(id);
        let mut search = self.search_lists(&[self.keys.failed()], id, matches).await?;
        if let Some(key) = search.spoilt.pop() {
            return Err(BackendError::WrongKind { key });
        }
        let Some(record) = search.entry else { return Ok(false) };
        Ok(self.take_failed_jobs(&[FailedTake { record, retry: None }]).await? == [TakeOutcome::Taken])
    }

    /// Whether a job waits, in a queue, for its turn, or parked; also if a list is too long for that to be known.
    async fn may_wait(&self, id: &str) -> Result<bool, BackendError> {
        let keys = &self.keys;
        let queues = self.names(keys.queues()).await?;
        let classes = self.names(keys.parked()).await?;
        let mut lists: Vec<String> = queues.iter().flat_map(|queue| self.lists_of(queue)).collect();
        for queue in self.queues_in_turns(&queues).await? {
            lists.extend(self.turn_lists(&queue).await?);
        }
        let of_queues = lists.len();
        lists.extend(classes.iter().map(|class| [&*keys.parked_of(), class].concat()));
        let matches = |place: usize, entry: &Bytes| {
            let skip = if place < of_queues { 0 } else { 2 };
            text_of(entry, skip).is_some_and(|text| id_of(&text).as_deref() == Some(id))
        };
        let search = self.search_lists(&lists, id, matches).await?;
        Ok(search.entry.is_some() || search.is_cut)
    }

    async fn find_running(&self, id: &str) -> Result<Option<(Generation, u32)>, BackendError> {
        for name in self.runners().await? {
            let Some(generation) = Generation::parse(&name) else { continue };
            let attempts = self.attempts_of(&self.shared, &name).await?;
            if let Some(job) = attempts.iter().find(|job| id_of(&job.text).as_deref() == Some(id)) {
                return Ok(Some((generation, job.attempt.counters.attempts)));
            }
        }
        Ok(None)
    }

    /// The generations that run jobs, and those that died.
    pub(super) async fn runners(&self) -> Result<Vec<String>, BackendError> {
        self.ranked_names(self.keys.runners(), -1).await
    }

    /// The members of a sorted set, up to this rank; none if it is spoilt.
    pub(super) async fn ranked_names(&self, set: String, last: isize) -> Result<Vec<String>, BackendError> {
        let names = self.shared.read(&set, cmd("ZRANGE").arg(&set).arg(0).arg(last)).await;
        none_if_spoilt(texts_of(&set, names))
    }

    /// The members of a set; none if it is spoilt.
    pub(super) async fn names(&self, set: String) -> Result<Vec<String>, BackendError> {
        none_if_spoilt(self.names_in(set).await)
    }

    /// The members of a set.
    pub(super) async fn names_in(&self, set: String) -> Result<Vec<String>, BackendError> {
        let names = self.shared.read(&set, cmd("SMEMBERS").arg(&set)).await;
        texts_of(&set, names)
    }
}

/// The names that are texts. Others share resque's sets: what they write must not hide the rest for ever.
fn texts_of(key: &str, names: Result<Vec<Vec<u8>>, BackendError>) -> Result<Vec<String>, BackendError> {
    let text = |name| match String::from_utf8(name) {
        Ok(name) => Some(name),
        Err(error) => {
            debug!(key, name = %String::from_utf8_lossy(error.as_bytes()), "a name is no text: it is ignored");
            None
        }
    };
    Ok(names?.into_iter().filter_map(text).collect())
}

/// Names a spoilt key in the log instead of failing: what has other keys goes on.
pub(super) fn none_if_spoilt<T>(list: Result<Vec<T>, BackendError>) -> Result<Vec<T>, BackendError> {
    match list {
        Err(BackendError::WrongKind { key }) => {
            report_spoilt(&[key]);
            Ok(Vec::new())
        }
        list => list,
    }
}

/// The text of a job in a list, after this many parts and its counters.
fn text_of(entry: &Bytes, skip: usize) -> Option<Bytes> {
    let mut from = 0;
    for _ in 0..skip {
        from += entry[from..].iter().position(|byte| *byte == b' ')? + 1;
    }
    Some(split_counters(&entry.slice(from..)).1)
}

/// The claim of a delayed job, and its name as a member of a batch, by its entry.
fn names_of(entry: &[u8]) -> (Option<String>, Option<String>) {
    let text = entry.splitn(5, |byte| *byte == b' ').nth(4).and_then(JobText::read);
    text.map(|text| (text.unique.map(Into::into), text.batch.map(Into::into))).unwrap_or_default()
}
