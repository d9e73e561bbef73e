//! Lists of jobs for operators.

use bytes::Bytes;

use super::queue::MemoryQueue;
use super::{Jobs, MemoryTasks, RunningJob};
use crate::backend::{AttemptKey, FetchedJob, ListedAttempt, OLDEST_BYTES, OLDEST_QUEUES};
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

    /// Since when the oldest job at the heads of each queue could begin.
    pub(super) fn oldest(&self) -> Vec<(String, u64)> {
        let queues = self.queues.iter().filter(|(_, queue)| queue.len() > 0).take(OLDEST_QUEUES);
        queues.filter_map(|(name, queue)| Some((name.to_string(), oldest_of(queue)?))).collect()
    }
}

fn oldest_of(queue: &MemoryQueue) -> Option<u64> {
    let mut bytes = 0;
    let is_read = |text: &&Bytes| {
        let is_read = bytes < OLDEST_BYTES;
        bytes += text.len();
        is_read
    };
    queue.heads().take_while(is_read).filter_map(|text| JobText::read(text)?.could_begin_at()).min()
}
