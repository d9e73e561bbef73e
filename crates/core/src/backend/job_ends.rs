//! The states and the reports of jobs, and the ends that callers on this node wait for.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use crate::id::Generation;

/// How long the report of a job is kept after its attempt: a day, in milliseconds.
pub const REPORT_TTL_MS: u64 = 24 * 60 * 60 * 1000;

/// The report of an attempt about its job; progress and result are JSON texts.
#[derive(Clone, PartialEq, Eq)]
pub struct JobReport {
    /// The job's id, or the one that a foreign job has in this attempt.
    pub id: Arc<str>,
    /// How far it is.
    pub progress: Option<Bytes>,
    /// The value that it returned. A job that has one is done.
    pub result: Option<Bytes>,
    /// Why a job that is done has none, though its task is tracked.
    pub missing: Option<ResultMissing>,
}

/// The state of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobState {
    /// It waits in its queue, or is parked.
    Waiting,
    /// It is due at this Unix time in milliseconds.
    Delayed(u64),
    /// A node runs it.
    Running(Generation),
    /// It succeeded, lately.
    Done,
    /// It is among the failed jobs.
    Failed,
    /// It is over, and neither succeeded nor failed: deleted, discarded or expired, lately. Known of tracked jobs.
    Dropped,
    /// There is no trace of it.
    Unknown,
}

impl JobState {
    /// Whether the job is over; a failed one may be retried.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Dropped)
    }
}

/// A job as its store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredStatus {
    /// Its state.
    pub state: JobState,
    /// The attempt that runs, or the last one that reported: its node and its number.
    pub attempt: Option<(Generation, u32)>,
    /// The last progress that was reported.
    pub progress: Option<Bytes>,
    /// The value that the job returned.
    pub result: Option<Bytes>,
    /// Why it has none.
    pub missing: Option<ResultMissing>,
}

/// Why a job that is done has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResultMissing {
    /// It has more than 64 KiB.
    TooLarge,
    /// It is a body, and no JSON.
    NotJson,
}

impl ResultMissing {
    /// The name, as stores keep it and clients may read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NotJson => "not_json",
        }
    }

    /// The reason of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::TooLarge, Self::NotJson].into_iter().find(|reason| reason.as_str() == name)
    }
}

/// The jobs whose ends are awaited on this node. A store announces an end; who waits then looks at the job. So an announcement
/// carries nothing, may come twice, and is made for all jobs where some may have been missed.
#[derive(Debug, Default)]
pub struct AwaitedEnds {
    table: Mutex<AwaitedTable>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct AwaitedTable {
    by_id: HashMap<Arc<str>, AwaitedJob>,
    /// The jobs that are awaited and were not when [`AwaitedEnds::take_changes`] looked last, and the other way round: so no
    /// more than are or were awaited.
    changes: HashSet<Arc<str>>,
    /// Whether changes are noted, for a store that subscribes to each job.
    notes_changes: bool,
}

#[derive(Debug)]
struct AwaitedJob {
    callers: usize,
    announced: watch::Sender<u64>,
}

impl AwaitedTable {
    /// Notes a change of a job; returns whether it undoes one that was not taken yet.
    fn note(&mut self, id: &Arc<str>) -> bool {
        let undoes_one = self.notes_changes && self.changes.remove(id);
        if self.notes_changes && !undoes_one {
            self.changes.insert(id.clone());
        }
        undoes_one
    }
}

impl AwaitedEnds {
    /// A table that notes which jobs are awaited since, or no longer.
    pub fn noting_changes() -> Self {
        let table = AwaitedTable { notes_changes: true, ..AwaitedTable::default() };
        Self { table: Mutex::new(table), changed: Notify::new() }
    }

    fn table(&self) -> MutexGuard<'_, AwaitedTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of a job, until the handle is dropped.
    pub fn enter(self: &Arc<Self>, id: &str) -> AwaitedEnd {
        let mut table = self.table();
        let known = table.by_id.get_key_value(id).map(|(id, _)| id.clone());
        let mut is_subscribed = known.is_some();
        let id = known.unwrap_or_else(|| {
            let id: Arc<str> = id.into();
            table.by_id.insert(id.clone(), AwaitedJob { callers: 0, announced: watch::Sender::new(0) });
            is_subscribed = table.note(&id);
            self.changed.notify_one();
            id
        });
        let entered = table.by_id.get_mut(&id).map(|job| {
            job.callers += 1;
            job.announced.subscribe()
        });
        let announced = entered.unwrap_or_else(|| watch::channel(0).1);
        AwaitedEnd { ends: self.clone(), id, announced, is_first: !is_subscribed }
    }

    /// Has those look who wait for this job.
    pub fn announce(&self, id: &str) {
        if let Some(job) = self.table().by_id.get(id) {
            job.announced.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Completes when there are changes.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes the jobs whose being awaited has changed, with whether they are.
    pub fn take_changes(&self) -> Vec<(Arc<str>, bool)> {
        let mut table = self.table();
        let changes = std::mem::take(&mut table.changes);
        changes
            .into_iter()
            .map(|id| (table.by_id.contains_key(&id), id))
            .map(|(is_awaited, id)| (id, is_awaited))
            .collect()
    }

    /// All that are awaited; changes begin from here.
    pub fn take_all(&self) -> Vec<Arc<str>> {
        let mut table = self.table();
        table.changes.clear();
        table.by_id.keys().cloned().collect()
    }
}

/// One caller that waits for the end of a job.
#[derive(Debug)]
pub struct AwaitedEnd {
    ends: Arc<AwaitedEnds>,
    id: Arc<str>,
    announced: watch::Receiver<u64>,
    is_first: bool,
}

impl AwaitedEnd {
    /// Whether a store that subscribes to each job has yet to do so, and will announce this one then: no other caller waited for it,
    /// nor had one left whose subscription still stands.
    pub fn is_first(&self) -> bool {
        self.is_first
    }

    /// Completes after an announcement that came since this handle was made, or since it completed last.
    pub async fn announced(&mut self) {
        // Its sender stays in the table until this handle is dropped.
        let _ = self.announced.changed().await;
    }
}

impl Drop for AwaitedEnd {
    fn drop(&mut self) {
        let mut table = self.ends.table();
        let is_last = table.by_id.get_mut(&self.id).is_some_and(|job| {
            job.callers -= 1;
            job.callers == 0
        });
        if is_last {
            table.by_id.remove(&self.id);
            table.note(&self.id);
            self.ends.changed.notify_one();
        }
    }
}

impl fmt::Debug for JobReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobReport").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_announcement_between_the_look_and_the_wait_is_not_missed() {
        let ends = Arc::<AwaitedEnds>::default();
        let (mut one, mut other) = (ends.enter("a"), ends.enter("a"));
        ends.announce("a");
        ends.announce("b");
        one.announced().await;
        other.announced().await;
        drop((one, other));
        assert!(ends.take_all().is_empty() && ends.take_changes().is_empty(), "nothing is left");
    }

    #[test]
    fn a_job_that_came_and_went_is_no_change() {
        let ends = Arc::new(AwaitedEnds::noting_changes());
        let awaited = ends.enter("a");
        drop(ends.enter("b"));
        assert!(awaited.is_first() && ends.enter("b").is_first());
        assert_eq!(ends.take_changes(), [("a".into(), true)]);
        assert!(!ends.enter("a").is_first());
        assert_eq!(ends.take_changes(), [], "another caller waits");
        drop(awaited);
        let again = ends.enter("a");
        assert!(!again.is_first(), "nothing is subscribed that would be announced");
        assert_eq!(ends.take_changes(), []);
        drop(again);
        assert_eq!(ends.take_changes(), [("a".into(), false)]);
    }
}
