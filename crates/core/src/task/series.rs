//! The minute series of tasks, as an author reads them.

use std::sync::Arc;
use std::time::Duration;

use super::handle::Tasks;
use crate::backend::{SERIES_MINUTES, TaskMinute, TimeCounts};
use crate::error::ActionError;

/// The attempts of one task that ended in a time, on all nodes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TaskSeries {
    /// When the time begins, Unix time in milliseconds.
    pub from_ms: u64,
    /// The name of the task.
    pub task: Arc<str>,
    /// The attempts that ended by themselves: not those that were given back, deleted, snoozed or discarded.
    pub processed: u64,
    /// Those of them that ended with an error, a panic, or at their deadline.
    pub failed: u64,
    /// The time that half of them did not exceed, to a twelfth.
    pub p50: Duration,
    /// The time that 99 of 100 did not exceed, to a twelfth.
    pub p99: Duration,
}

impl TaskSeries {
    fn of(from_ms: u64, task: Arc<str>, processed: u64, failed: u64, times: &TimeCounts) -> Self {
        let percentile = |share| times.percentile(share).unwrap_or_default();
        Self { from_ms, task, processed, failed, p50: percentile(0.5), p99: percentile(0.99) }
    }
}

impl Tasks {
    /// The last minutes of all tasks, 24 h at most, with the one that has begun: an entry for each minute and task in which
    /// attempts ended, in their order. Nodes add their counts every ten seconds.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn minutes(&self, minutes: u64) -> Result<Vec<TaskSeries>, ActionError> {
        let series = |it: TaskMinute| {
            TaskSeries::of(it.minute.saturating_mul(60_000), it.task, it.processed, it.failed, &it.times)
        };
        Ok(self.read_minutes(minutes).await?.into_iter().map(series).collect())
    }

    /// The last minutes of each task as one, by name.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn last_minutes(&self, minutes: u64) -> Result<Vec<TaskSeries>, ActionError> {
        let mut by_task = std::collections::BTreeMap::<Arc<str>, TaskMinute>::new();
        for minute in self.read_minutes(minutes).await? {
            let sum = by_task.entry(minute.task.clone()).or_default();
            sum.processed = sum.processed.saturating_add(minute.processed);
            sum.failed = sum.failed.saturating_add(minute.failed);
            sum.times.merge(&minute.times);
        }
        let from_ms = self.first_minute(minutes).saturating_mul(60_000);
        let series =
            |(task, it): (Arc<str>, TaskMinute)| TaskSeries::of(from_ms, task, it.processed, it.failed, &it.times);
        Ok(by_task.into_iter().map(series).collect())
    }

    fn first_minute(&self, minutes: u64) -> u64 {
        (self.parts.clock.now_ms() / 60_000 + 1).saturating_sub(minutes.clamp(1, SERIES_MINUTES))
    }

    async fn read_minutes(&self, minutes: u64) -> Result<Vec<TaskMinute>, ActionError> {
        let to = self.parts.clock.now_ms() / 60_000;
        Ok(self.store()?.minutes(self.first_minute(minutes), to).await?)
    }
}
