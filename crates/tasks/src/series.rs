//! The counts of a node's attempts, for the minute series of the cluster.
//!
//! The counts of a task are numbers that an attempt's end adds to, without a lock and without a look-up; every ten seconds, and
//! at the end of each minute, they go to the store and begin anew.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use phalanx_core::backend::{BackendError, SERIES_BATCH, TaskMinute, TimeCounts};
use phalanx_core::job::AttemptOutcome;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::metrics;
use crate::run::{StoreReply, WorkerLoop};

/// How often counts go to the store.
const FLUSH_PERIOD: Duration = Duration::from_secs(10);

/// How often it is looked whether the minute is over.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// The counts of a task since they were taken last.
pub(crate) struct AttemptCounts {
    failed: AtomicU64,
    /// The attempts by the class of their time.
    times: Box<[AtomicU64]>,
}

impl Default for AttemptCounts {
    fn default() -> Self {
        let times = (0..TimeCounts::CLASSES).map(|_| AtomicU64::new(0)).collect();
        Self { failed: AtomicU64::new(0), times }
    }
}

impl AttemptCounts {
    /// Counts an attempt that ended by itself.
    pub(crate) fn record(&self, outcome: AttemptOutcome, took: Duration) {
        match outcome {
            AttemptOutcome::Done => {}
            AttemptOutcome::Retried | AttemptOutcome::Failed => {
                self.failed.fetch_add(1, Relaxed);
            }
            _ => return,
        }
        if let Some(count) = self.times.get(TimeCounts::class_of(took)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Takes the counts; `None` if nothing ended.
    fn take(&self, minute: u64, task: &'static str) -> Option<TaskMinute> {
        let mut taken = TaskMinute { minute, task: task.into(), ..TaskMinute::default() };
        for (class, count) in self.times.iter().enumerate() {
            // Most are zero, and a read is cheaper than an exchange.
            let count = if count.load(Relaxed) == 0 { 0 } else { count.swap(0, Relaxed) };
            taken.times.add(class, count);
            taken.processed += count;
        }
        taken.failed = self.failed.swap(0, Relaxed);
        (taken.processed > 0).then_some(taken)
    }
}

/// When counts go to the store.
pub(crate) struct SeriesTimer {
    next_look: Instant,
    next_flush: Instant,
    /// The minute that counts belong to.
    minute: u64,
}

impl SeriesTimer {
    pub(crate) fn new(now: Instant, now_ms: u64) -> Self {
        Self { next_look: now + LOOK_PERIOD, next_flush: now + FLUSH_PERIOD, minute: now_ms / 60_000 }
    }

    pub(crate) fn next_look(&self) -> Instant {
        self.next_look
    }

    /// The minute of the counts since the last time, if they are to go to the store: after a while, or because that is over.
    fn take_due(&mut self, now: Instant, minute: u64) -> Option<u64> {
        if now < self.next_flush && minute == self.minute {
            return None;
        }
        self.next_flush = now + FLUSH_PERIOD;
        Some(std::mem::replace(&mut self.minute, minute))
    }
}

impl WorkerLoop {
    /// Sends counts to the store, if it is time for that.
    pub(crate) fn keep_series(&mut self, now: Instant) {
        if now < self.series.next_look {
            return;
        }
        self.series.next_look = now + LOOK_PERIOD;
        let minute = self.engine.clock().now_ms() / 60_000;
        let Some(counted) = self.series.take_due(now, minute) else { return };
        let taken = self.take_counts(counted);
        for batch in taken.chunks(SERIES_BATCH) {
            let (store, batch) = (self.store.clone(), batch.to_vec());
            self.replies.push(Box::pin(async move { StoreReply::Series(store.add_minutes(&batch).await) }));
        }
    }

    /// The counts of all tasks since they were taken last.
    fn take_counts(&self, minute: u64) -> Vec<TaskMinute> {
        self.tasks.values().filter_map(|task| task.counts.take(minute, task.def.name)).collect()
    }

    /// Sends the counts of the last seconds of this node.
    pub(crate) async fn flush_series(&mut self) {
        for batch in self.take_counts(self.series.minute).chunks(SERIES_BATCH) {
            let limit = self.engine.config().redis.command_timeout;
            let added = timeout(limit, self.store.add_minutes(batch)).await;
            on_series(added.unwrap_or_else(|_| Err(BackendError::unavailable("no answer"))));
        }
    }
}

/// Counts that did not go to the store are not sent again: if only the answer was lost, they would count twice.
pub(crate) fn on_series(result: Result<(), BackendError>) {
    if let Err(error) = result {
        debug!(%error, "the counts of some seconds are not in the minute series");
        metrics::record_series_lost();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_to_their_minute_every_ten_seconds_and_at_its_end() {
        let start = Instant::now();
        let mut timer = SeriesTimer::new(start, 7 * 60_000 + 1_000);
        for (second, minute, expected) in [
            (1, 7, None),
            (9, 7, None),
            (10, 7, Some(7)),
            (19, 7, None),
            (20, 7, Some(7)),
            (21, 8, Some(7)),
            (22, 8, None),
            (31, 8, Some(8)),
        ] {
            assert_eq!(timer.take_due(start + Duration::from_secs(second), minute), expected, "after {second} s");
        }
    }
}
