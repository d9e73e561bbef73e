//! The minute series of tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backend::{SERIES_MINUTES, SERIES_TASKS, TaskMinute};
use crate::metrics::bound_reached;

/// The minutes of a day, each with its tasks.
#[derive(Default)]
pub(super) struct StoredSeries(BTreeMap<u64, BTreeMap<Arc<str>, TaskMinute>>);

impl StoredSeries {
    pub(super) fn add(&mut self, minutes: &[TaskMinute], now_ms: u64) {
        let series = &mut self.0;
        for added in minutes {
            let tasks = series.entry(added.minute).or_default();
            if tasks.len() >= SERIES_TASKS && !tasks.contains_key(&added.task) {
                bound_reached("task_series");
                continue;
            }
            let stored = tasks.entry(added.task.clone()).or_insert_with(|| TaskMinute {
                minute: added.minute,
                task: added.task.clone(),
                ..TaskMinute::default()
            });
            stored.processed += added.processed;
            stored.failed += added.failed;
            stored.times.merge(&added.times);
        }
        *series = series.split_off(&(now_ms / 60_000).saturating_sub(SERIES_MINUTES));
    }

    pub(super) fn range(&self, from: u64, to: u64) -> Vec<TaskMinute> {
        let minutes = (from <= to).then(|| self.0.range(from..=to));
        minutes.into_iter().flatten().flat_map(|(_, tasks)| tasks.values().cloned()).collect()
    }
}
