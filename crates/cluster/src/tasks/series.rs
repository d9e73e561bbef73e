//! The minute series of tasks: a hash for each minute, which ends a day after it.
//!
//! A field is one text of a task, not one for each class of times: a hundred tasks take 10 MB a day so.

use std::collections::HashMap;

use deadpool_redis::redis::pipe;
use phalanx_core::backend::{BackendError, SERIES_BATCH, SERIES_MINUTES, SERIES_TASKS, TaskMinute, TimeCounts};
use phalanx_core::bound_reached;

use super::{RedisTasks, report_spoilt};

/// Minutes that are read by one call.
const PAGE: u64 = 60;

/// A minute is kept so much longer than a day, so that the oldest one is whole.
const MORE_MS: u64 = 2 * 60_000;

impl RedisTasks {
    pub(super) async fn add_to_minutes(&self, minutes: &[TaskMinute]) -> Result<(), BackendError> {
        if minutes.len() > SERIES_BATCH {
            return Err(BackendError::refused(format!("more than {SERIES_BATCH} minutes at once")));
        }
        let mut numbers: Vec<u64> = minutes.iter().map(|minute| minute.minute).collect();
        numbers.sort_unstable();
        numbers.dedup();
        if numbers.is_empty() {
            return Ok(());
        }
        let keys: Vec<String> = numbers.iter().map(|number| self.keys.series(*number)).collect();
        let mut call = self.scripts.add_minutes.call(&keys);
        call.arg(SERIES_TASKS).arg(SERIES_MINUTES * 60_000 + MORE_MS);
        for TaskMinute { minute, task, processed, failed, times } in minutes {
            let place = numbers.partition_point(|number| number < minute) + 1;
            call.arg(place).arg(&**task).arg(processed).arg(failed).arg(written(times));
        }
        let left_out: u64 = call.run(&self.shared).await?;
        if left_out > 0 {
            bound_reached("task_series");
        }
        Ok(())
    }

    pub(super) async fn read_minutes(&self, from: u64, to: u64) -> Result<Vec<TaskMinute>, BackendError> {
        let mut found = Vec::new();
        let mut first = from.max(to.saturating_sub(SERIES_MINUTES));
        while first <= to {
            let numbers = first..=to.min(first + PAGE - 1);
            let mut reads = pipe();
            numbers.clone().for_each(|number| {
                reads.cmd("HGETALL").arg(self.keys.series(number));
            });
            let key = self.keys.series(first);
            let minutes = match self.shared.read_all::<Vec<HashMap<String, String>>>(&key, &reads).await {
                Ok(minutes) => minutes,
                Err(BackendError::WrongKind { key }) => {
                    report_spoilt(&[key]);
                    Vec::new()
                }
                Err(error) => return Err(error),
            };
            for (minute, tasks) in numbers.zip(minutes) {
                let mut tasks: Vec<_> = tasks.into_iter().collect();
                tasks.sort_unstable();
                found.extend(tasks.into_iter().filter_map(|(task, text)| read(minute, &task, &text)));
            }
            first += PAGE;
        }
        Ok(found)
    }
}

fn written(times: &TimeCounts) -> String {
    let parts: Vec<String> = times.iter().map(|(class, count)| format!("{class}:{count}")).collect();
    parts.join(" ")
}

/// Reads `<processed> <failed> <class>:<count> …`.
fn read(minute: u64, task: &str, text: &str) -> Option<TaskMinute> {
    let mut parts = text.split(' ');
    let (processed, failed) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let mut times = TimeCounts::default();
    for part in parts {
        let (class, count) = part.split_once(':')?;
        times.add(class.parse().ok()?, count.parse().ok()?);
    }
    Some(TaskMinute { minute, task: task.into(), processed, failed, times })
}
