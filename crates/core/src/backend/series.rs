//! The minute series of tasks: how many attempts ended in each minute, and how long they took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// For how many minutes series are kept: a day.
pub const SERIES_MINUTES: u64 = 24 * 60;

/// Most tasks that a minute has; the attempts of others are not counted.
pub const SERIES_TASKS: usize = 1000;

/// Most minutes of tasks that one [`TaskStore::add_minutes`](super::TaskStore::add_minutes) takes.
pub const SERIES_BATCH: usize = 100;

/// The attempts of one task that ended in one minute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskMinute {
    /// The minute, Unix time divided by 60 s.
    pub minute: u64,
    /// The name of the task.
    pub task: Arc<str>,
    /// The attempts that ended by themselves.
    pub processed: u64,
    /// Those of them that ended with an error.
    pub failed: u64,
    /// How long they took.
    pub times: TimeCounts,
}

/// How often an attempt took about so long. Times are counted in classes whose width is an eighth of their power of two, so that
/// a percentile is known to a twelfth, whatever its size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeCounts(BTreeMap<u16, u64>);

impl TimeCounts {
    /// The number of classes: the last one has what took longer than a year.
    pub const CLASSES: usize = 360;

    /// The class of a time.
    pub fn class_of(time: Duration) -> usize {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if us < 8 {
            return us as usize;
        }
        let power = us.ilog2();
        let eighth = (us >> (power - 3)) & 7;
        ((power as usize - 2) * 8 + eighth as usize).min(Self::CLASSES - 1)
    }

    /// The middle of a class.
    fn middle_of(class: u16) -> Duration {
        let class = u64::from(class);
        if class < 8 {
            return Duration::from_micros(class);
        }
        let (power, eighth) = (class / 8 + 2, class % 8);
        let width = 1_u64 << (power - 3);
        Duration::from_micros((8 + eighth) * width + width / 2)
    }

    /// Counts times of a class.
    pub fn add(&mut self, class: usize, count: u64) {
        if count > 0 {
            let class = class.min(Self::CLASSES - 1) as u16;
            let counted = self.0.entry(class).or_default();
            *counted = counted.saturating_add(count);
        }
    }

    /// Adds others.
    pub fn merge(&mut self, others: &Self) {
        others.0.iter().for_each(|(class, count)| self.add(usize::from(*class), *count));
    }

    /// The time that this share of them did not exceed, such as 0.99; `None` if there is none.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let all: u64 = self.0.values().fold(0, |sum, count| sum.saturating_add(*count));
        let rank = ((all as f64 * share).ceil() as u64).clamp(1, all.max(1));
        let mut seen = 0_u64;
        let mut classes = self.0.iter();
        let found = classes.find(|(_, count)| {
            seen = seen.saturating_add(**count);
            seen >= rank
        });
        found.map(|(class, _)| Self::middle_of(*class))
    }

    /// The classes with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> {
        self.0.iter().map(|(class, count)| (*class, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_known_to_a_twelfth() {
        for us in (0..2_000).chain((0..44).map(|power| (1_u64 << power) + 12_345)) {
            let class = TimeCounts::class_of(Duration::from_micros(us));
            let middle = TimeCounts::middle_of(class as u16).as_micros() as u64;
            assert!(middle.abs_diff(us) <= us / 12 + 1, "{us} µs are in class {class}, whose middle is {middle}");
        }
        assert_eq!(TimeCounts::class_of(Duration::MAX), TimeCounts::CLASSES - 1);
    }

    #[test]
    fn percentiles_are_those_of_all_nodes() {
        let times = |ms: &[u64]| {
            let mut times = TimeCounts::default();
            ms.iter().for_each(|ms| times.add(TimeCounts::class_of(Duration::from_millis(*ms)), 1));
            times
        };
        let mut all = times(&[10; 98]);
        all.merge(&times(&[500, 1000]));
        let near = |share: f64, ms: u128| {
            let found = all.percentile(share).unwrap().as_millis();
            assert!(found.abs_diff(ms) <= ms / 12 + 1, "{share}: {found}, not {ms}");
        };
        near(0.5, 10);
        near(0.98, 10);
        near(0.99, 500);
        near(1.0, 1000);
        assert_eq!(TimeCounts::default().percentile(0.5), None);
    }
}
