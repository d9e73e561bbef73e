//! Finds and deletes jobs by their id.
//!
//! A job in a list has no index by its id: it would cost each enqueue and each success more than the job itself. Lists are
//! searched from their end, page by page, so that jobs which are fetched meanwhile shift none out of sight.

use std::sync::Arc;

use bytes::Bytes;
use deadpool_redis::redis::{Value, cmd, pipe};
use phalanx_core::Generation;
use phalanx_core::backend::{BackendError, BatchStage, DeleteOutcome, FailedTake, JobState, TakeOutcome};
use phalanx_core::bound_reached;
use phalanx_core::job::{FailedJob, JobText};
use phalanx_core::metrics::record_batch_ends;
use tracing::debug;

use super::call::unexpected_reply;
use super::entry::split_counters;
use super::{RedisTasks, report_spoilt};

/// Jobs that one command reads: each may have 1 MiB.
pub(super) const PAGE: usize = 50;

/// Pages that are searched of one list at most.
const MAX_PAGES: usize = 20_000;

/// How often a job that is to be deleted is looked for among the delayed ones, if it was put there between look and script.
const LOOKS: usize = 5;

/// The id of a job; `None` for a foreign one.
pub(super) fn id_of(text: &[u8]) -> Option<Arc<str>> {
    JobText::read(text)?.id.map(|id| id.as_ref().into())
}

/// The result of a search of a list.
enum Found {
    Entry(Bytes),
    Nowhere,
    /// The list is longer than what is searched.
    Unknown,
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
        if !matches!(self.find_waiting(id).await?, Found::Nowhere) {
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
        if !matches!(self.find_waiting(id).await?, Found::Nowhere) {
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
        let matches = |record: &Bytes| FailedJob::read(record).id.as_deref() == Some(id);
        match self.find_in_list(&self.keys.failed(), id, matches).await? {
            Found::Entry(record) => {
                Ok(self.take_failed_jobs(&[FailedTake { record, retry: None }]).await? == [TakeOutcome::Taken])
            }
            Found::Nowhere | Found::Unknown => Ok(false),
        }
    }

    async fn find_waiting(&self, id: &str) -> Result<Found, BackendError> {
        let keys = &self.keys;
        let queues = self.names(keys.queues()).await?;
        let classes = self.names(keys.parked()).await?;
        let (ready, again, suspects, parked) = (keys.ready(), keys.again(), keys.suspects(), keys.parked_of());
        let of_queues = queues.iter().flat_map(|queue| {
            [(&ready, 0), (&again, 0), (&suspects, 0)].map(|(root, skip)| ([root, queue.as_str()].concat(), skip))
        });
        let mut of_turns = Vec::new();
        for queue in self.queues_in_turns(&queues).await? {
            of_turns.extend(self.turn_lists(&queue).await?.into_iter().map(|list| (list.key, 0)));
        }
        let of_classes = classes.iter().map(|class| ([parked.as_str(), class].concat(), 2));
        let mut found = Found::Nowhere;
        for (list, skip) in of_queues.chain(of_turns).chain(of_classes) {
            let matches = |entry: &Bytes| text_of(entry, skip).is_some_and(|text| id_of(&text).as_deref() == Some(id));
            match self.find_in_list(&list, id, matches).await {
                Ok(Found::Nowhere) | Err(BackendError::WrongKind { .. }) => {}
                Ok(Found::Unknown) => found = Found::Unknown,
                other => return other,
            }
        }
        Ok(found)
    }

    async fn find_in_list(
        &self,
        list: &str,
        id: &str,
        matches: impl Fn(&Bytes) -> bool,
    ) -> Result<Found, BackendError> {
        for page in 0..MAX_PAGES {
            let (last, first) = (page * PAGE + 1, (page + 1) * PAGE);
            let mut range = cmd("LRANGE");
            range.arg(list).arg(format!("-{first}")).arg(format!("-{last}"));
            let entries: Vec<Vec<u8>> = self.shared.read(list, &range).await?;
            let is_last = entries.len() < PAGE;
            for entry in entries.into_iter().rev() {
                if contains(&entry, id.as_bytes()) {
                    let entry = Bytes::from(entry);
                    if matches(&entry) {
                        return Ok(Found::Entry(entry));
                    }
                }
            }
            if is_last {
                return Ok(Found::Nowhere);
            }
        }
        bound_reached("task_search");
        Ok(Found::Unknown)
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
        let key = self.keys.runners();
        let names = self.shared.read(&key, cmd("ZRANGE").arg(&key).arg(0).arg(-1)).await;
        none_if_spoilt(texts_of(&key, names))
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

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && bytes.windows(part.len()).any(|window| window == part)
}

/// The claim of a delayed job, and its name as a member of a batch, by its entry.
fn names_of(entry: &[u8]) -> (Option<String>, Option<String>) {
    let text = entry.splitn(5, |byte| *byte == b' ').nth(4).and_then(JobText::read);
    text.map(|text| (text.unique.map(Into::into), text.batch.map(Into::into))).unwrap_or_default()
}
