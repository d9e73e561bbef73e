//! The reports of jobs: their progress and their results.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::jobs::JobPlace;
use super::{Jobs, MemoryTasks};
use crate::backend::{AttemptKey, AwaitedEnds, JobReport, JobState, REPORT_TTL_MS, ResultMissing, StoredStatus};
use crate::id::Generation;
use crate::metrics::bound_reached;

/// Most jobs whose reports are kept.
const MAX_REPORTS: usize = 10_000;

/// The reports by the ids of jobs.
#[derive(Default)]
pub(super) struct JobReports {
    by_id: HashMap<Arc<str>, StoredReport>,
    /// The ids in the order of their first reports.
    order: VecDeque<Arc<str>>,
    /// The jobs that are tracked and not over: each of them is stored somewhere.
    tracked: HashSet<Arc<str>>,
    awaited: Arc<AwaitedEnds>,
}

#[derive(Default)]
struct StoredReport {
    attempt: Option<(Generation, AttemptKey)>,
    progress: Option<Bytes>,
    result: Option<Bytes>,
    missing: Option<ResultMissing>,
    /// How a tracked job has ended.
    end: Option<JobState>,
    until_ms: u64,
}

impl JobReports {
    /// Keeps a report, and the earlier progress if it has none.
    pub(super) fn keep(&mut self, attempt: (Generation, AttemptKey), report: &JobReport, until_ms: u64) {
        let JobReport { id, progress, result, missing } = report;
        if progress.is_none() && result.is_none() && missing.is_none() && !self.tracked.contains(id) {
            return; // only those who wait for the end of a job want to know of it
        }
        let stored = self.entry(&report.id);
        let progress = progress.clone().or_else(|| stored.progress.take());
        let (result, missing) = (result.clone(), *missing);
        *stored = StoredReport { attempt: Some(attempt), progress, result, missing, end: None, until_ms };
    }

    fn entry(&mut self, id: &Arc<str>) -> &mut StoredReport {
        if !self.by_id.contains_key(id) {
            if self.order.len() >= MAX_REPORTS {
                bound_reached("task_reports");
                if let Some(id) = self.order.pop_front() {
                    self.by_id.remove(&id);
                }
            }
            self.order.push_back(id.clone());
        }
        self.by_id.entry(id.clone()).or_default()
    }

    /// Begins to track a job, without what one reported that had its id before.
    pub(super) fn track(&mut self, id: &Arc<str>) {
        if self.tracked.insert(id.clone()) && self.by_id.contains_key(id) {
            *self.entry(id) = StoredReport::default();
        }
    }

    /// Notes the end of a job, if it is tracked, for those who wait for it.
    pub(super) fn end(&mut self, id: &Option<Arc<str>>, end: JobState, now_ms: u64) {
        if let Some(id) = id.as_ref().filter(|id| self.tracked.remove(*id)) {
            let stored = self.entry(id);
            (stored.end, stored.until_ms) = (Some(end), now_ms + REPORT_TTL_MS);
            self.awaited.announce(id);
        }
    }

    fn get(&self, id: &str, now_ms: u64) -> Option<&StoredReport> {
        self.by_id.get(id).filter(|report| report.until_ms > now_ms)
    }
}

impl Jobs {
    pub(super) fn status(&self, id: &str, now_ms: u64) -> StoredStatus {
        let report = self.reports.get(id, now_ms);
        let result = report.and_then(|report| report.result.clone());
        let of_report = report.and_then(|report| report.attempt.as_ref());
        let reported = of_report.map(|(generation, key)| (*generation, key.counters.attempts));
        let running = match self.ids.place(id) {
            Some(JobPlace::Running(generation, token)) => Some((generation, token)),
            // A foreign job has its id in this attempt only.
            None => of_report.map(|(generation, key)| (*generation, key.token)),
            Some(_) => None,
        };
        let attempt = running.and_then(|(generation, token)| {
            let attempt = self.running.get(&generation)?.get(&token)?;
            Some((generation, attempt.job.counters.attempts))
        });
        let end = report.and_then(|report| report.end.clone()).or_else(|| result.as_ref().map(|_| JobState::Done));
        let state = match (attempt, self.ids.state(id)) {
            (Some((generation, _)), _) => JobState::Running(generation),
            (None, JobState::Unknown) => end.unwrap_or(JobState::Unknown),
            (None, state) => state,
        };
        StoredStatus {
            state,
            attempt: attempt.or(reported),
            progress: report.and_then(|report| report.progress.clone()),
            result,
            missing: report.and_then(|report| report.missing),
        }
    }

    /// The status of a tracked job; `None` for another one.
    fn tracked(&self, id: &str, now_ms: u64) -> Option<StoredStatus> {
        let has_ended = || self.reports.get(id, now_ms).is_some_and(|report| report.end.is_some());
        (self.reports.tracked.contains(id) || has_ended()).then(|| self.status(id, now_ms))
    }
}

impl MemoryTasks {
    pub(super) async fn await_end(&self, id: &str) -> Option<StoredStatus> {
        let awaited = self.jobs().reports.awaited.clone();
        let mut end = awaited.enter(id);
        loop {
            let status = self.jobs().tracked(id, self.clock.now_ms())?;
            if status.state.is_over() {
                return Some(status);
            }
            end.announced().await;
        }
    }
}
