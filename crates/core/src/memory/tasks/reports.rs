//! The reports of jobs: their progress and their results.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::Jobs;
use super::jobs::JobPlace;
use crate::backend::{AttemptKey, JobReport, JobState, StoredStatus};
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
}

struct StoredReport {
    attempt: (Generation, AttemptKey),
    progress: Option<Bytes>,
    result: Option<Bytes>,
    until_ms: u64,
}

impl JobReports {
    /// Keeps a report, and the earlier progress if it has none.
    pub(super) fn keep(&mut self, attempt: (Generation, AttemptKey), report: &JobReport, until_ms: u64) {
        if !self.by_id.contains_key(&report.id) {
            if self.order.len() >= MAX_REPORTS {
                bound_reached("task_reports");
                if let Some(id) = self.order.pop_front() {
                    self.by_id.remove(&id);
                }
            }
            self.order.push_back(report.id.clone());
        }
        let new = || StoredReport { attempt: attempt.clone(), progress: None, result: None, until_ms };
        let stored = self.by_id.entry(report.id.clone()).or_insert_with(new);
        let progress = report.progress.clone().or_else(|| stored.progress.take());
        *stored = StoredReport { attempt, progress, result: report.result.clone(), until_ms };
    }

    fn get(&self, id: &str, now_ms: u64) -> Option<&StoredReport> {
        self.by_id.get(id).filter(|report| report.until_ms > now_ms)
    }
}

impl Jobs {
    pub(super) fn status(&self, id: &str, now_ms: u64) -> StoredStatus {
        let report = self.reports.get(id, now_ms);
        let result = report.and_then(|report| report.result.clone());
        let reported = report.map(|report| (report.attempt.0, report.attempt.1.counters.attempts));
        let running = match self.ids.place(id) {
            Some(JobPlace::Running(generation, token)) => Some((generation, token)),
            // A foreign job has its id in this attempt only.
            None => report.map(|report| (report.attempt.0, report.attempt.1.token)),
            Some(_) => None,
        };
        let attempt = running.and_then(|(generation, token)| {
            let attempt = self.running.get(&generation)?.get(&token)?;
            Some((generation, attempt.job.counters.attempts))
        });
        let state = match (attempt, &result, self.ids.state(id)) {
            (Some((generation, _)), ..) => JobState::Running(generation),
            (None, Some(_), JobState::Unknown) => JobState::Done,
            (None, _, state) => state,
        };
        StoredStatus {
            state,
            attempt: attempt.or(reported),
            progress: report.and_then(|report| report.progress.clone()),
            result,
        }
    }
}
