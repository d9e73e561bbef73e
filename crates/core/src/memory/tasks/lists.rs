//! Lists of jobs for operators.

use bytes::Bytes;

use super::{Jobs, MemoryTasks, RunningJob};
use crate::backend::{AttemptKey, FetchedJob, ListedAttempt, OLDEST_QUEUES};
use crate::job::JobText;

/// An attempt, by its token, as the node that runs it fetched it.
pub(super) fn fetched((token, running): (&u64, &RunningJob)) -> FetchedJob {
    let RunningJob { queue, job, .. } = running;
    let attempt = AttemptKey { token: *token, queue: queue.clone(), counters: job.counters };
    FetchedJob { attempt, text: job.text.clone() }
}

impl MemoryTasks {
    /// The texts of all jobs that do not run and have not failed: those that wait, are due later, or are parked. For the test kit of
    /// applications: operators read page by page.
    pub fn stored(&self) -> Vec<Bytes> {
        let jobs = self.jobs();
        let waiting = jobs.queues.values().flat_map(|queue| queue.texts(0, usize::MAX));
        let delayed = jobs.delayed.values().map(|delayed| delayed.job.text.clone());
        let parked = jobs.parked.values().flatten().map(|parked| parked.job.text.clone());
        waiting.chain(delayed).chain(parked).collect()
    }
}

impl Jobs {
    pub(super) fn running(&self, skip: usize, limit: usize) -> Vec<ListedAttempt> {
        let mut nodes: Vec<_> = self.running.iter().collect();
        nodes.sort_unstable_by_key(|(generation, _)| **generation);
        let attempts = nodes.into_iter().flat_map(|(generation, attempts)| attempts.iter().map(|it| (*generation, it)));
        let page = attempts.skip(skip).take(limit);
        page.map(|(generation, attempt)| ListedAttempt::read(generation, fetched(attempt))).collect()
    }

    /// Since when the job at the head of each queue could begin.
    pub(super) fn oldest(&self) -> Vec<(String, u64)> {
        let heads = self.queues.iter().filter_map(|(name, queue)| Some((name, queue.texts(0, 1).into_iter().next()?)));
        let since = heads
            .take(OLDEST_QUEUES)
            .filter_map(|(name, text)| Some((name.to_string(), JobText::read(&text)?.could_begin_at()?)));
        since.collect()
    }
}
