//! The limits of one node: counts by subject, behind one mutex.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::{BackendError, Clock, LimitDecision, LimitState, LimitStore, LimitedCall, SliceCounts};
use crate::config::LimitRate;
use crate::metrics::bound_reached;

/// How often a full table is searched for subjects that count nothing any more.
const SWEEP_US: u64 = 1_000_000;

/// The counts of one node. Beyond `max_subjects` those that are new share one count for each limit.
pub struct MemoryLimits {
    clock: Arc<dyn Clock>,
    max_subjects: usize,
    table: Mutex<SubjectTable>,
}

#[derive(Default)]
struct SubjectTable {
    subjects: HashMap<LimitKey, CountedSubject>,
    /// When it may be searched again.
    next_sweep_us: u64,
}

/// A limit with its time, and the subject.
type LimitKey = (Arc<str>, Duration, Arc<str>);

struct CountedSubject {
    rate: LimitRate,
    counts: SliceCounts,
}

impl MemoryLimits {
    /// Makes counts by this clock, of so many subjects.
    pub fn new(clock: Arc<dyn Clock>, max_subjects: usize) -> Self {
        Self { clock, max_subjects, table: Mutex::default() }
    }

    /// The number of subjects, those that count nothing any more included.
    pub fn subjects(&self) -> usize {
        self.table().subjects.len()
    }

    /// Counts a call, as [`LimitStore::count`] does.
    pub(crate) fn count_now(&self, calls: &[LimitedCall]) -> LimitDecision {
        let now_us = self.clock.now_us();
        let mut table = self.table();
        if let [call] = calls
            && let Some(decision) = table.count_known(call, now_us)
        {
            return decision;
        }
        let keys: Vec<LimitKey> = calls.iter().map(|call| self.key_of(&mut table, call, now_us)).collect();
        let mut states = table.states(&keys, calls, now_us);
        let is_counted = states.iter().all(|state| state.retry_after.is_zero());
        if is_counted {
            for (key, call) in keys.iter().zip(calls) {
                let new = || CountedSubject { rate: call.rate, counts: SliceCounts::default() };
                table.subjects.entry(key.clone()).or_insert_with(new).counts.add(call.rate, now_us);
            }
            states = table.states(&keys, calls, now_us);
        }
        LimitDecision { is_counted, states }
    }

    /// The key of a subject, or, if the table is full and does not have it, the one that all such subjects share.
    fn key_of(&self, table: &mut SubjectTable, call: &LimitedCall, now_us: u64) -> LimitKey {
        let key = (call.limit.clone(), call.rate.window, call.subject.clone());
        if table.subjects.contains_key(&key) {
            return key;
        }
        let shared_key = (key.0.clone(), key.1, Arc::from(""));
        if !table.has_room(self.max_subjects, now_us) {
            bound_reached("limits.max_subjects");
            return shared_key;
        }
        // Its calls may be among those that were counted together: it would get all of them again.
        if let Some(shared) = table.subjects.get_mut(&shared_key) {
            shared.counts.forget(shared.rate, now_us);
            if !shared.counts.is_empty() {
                let counts = shared.counts.clone();
                table.subjects.insert(key.clone(), CountedSubject { rate: call.rate, counts });
            }
        }
        key
    }

    fn table(&self) -> MutexGuard<'_, SubjectTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SubjectTable {
    /// Counts a call by its only limit, if the subject is known: most calls are so, and need one look-up.
    fn count_known(&mut self, call: &LimitedCall, now_us: u64) -> Option<LimitDecision> {
        let key = (call.limit.clone(), call.rate.window, call.subject.clone());
        let CountedSubject { counts, .. } = self.subjects.get_mut(&key)?;
        counts.forget(call.rate, now_us);
        let mut state = counts.state(call.rate, now_us);
        let is_counted = state.retry_after.is_zero();
        if is_counted {
            counts.add(call.rate, now_us);
            state = counts.state(call.rate, now_us);
        }
        Some(LimitDecision { is_counted, states: vec![state] })
    }

    fn states(&mut self, keys: &[LimitKey], calls: &[LimitedCall], now_us: u64) -> Vec<LimitState> {
        let state = |(key, call): (&LimitKey, &LimitedCall)| match self.subjects.get_mut(key) {
            Some(subject) => {
                subject.counts.forget(call.rate, now_us);
                subject.counts.state(call.rate, now_us)
            }
            None => SliceCounts::default().state(call.rate, now_us),
        };
        keys.iter().zip(calls).map(state).collect()
    }

    /// Whether one more subject fits. A full table is searched for those that count nothing any more, once a second at most.
    fn has_room(&mut self, max_subjects: usize, now_us: u64) -> bool {
        // A clock that was put back does not hold the search up.
        let is_due = !(1..=SWEEP_US).contains(&self.next_sweep_us.saturating_sub(now_us));
        if self.subjects.len() >= max_subjects && is_due {
            self.next_sweep_us = now_us + SWEEP_US;
            self.subjects.retain(|_, subject| {
                subject.counts.forget(subject.rate, now_us);
                !subject.counts.is_empty()
            });
        }
        self.subjects.len() < max_subjects
    }
}

#[async_trait]
impl LimitStore for MemoryLimits {
    async fn count(&self, calls: &[LimitedCall]) -> Result<LimitDecision, BackendError> {
        Ok(self.count_now(calls))
    }

    fn is_local(&self) -> bool {
        true
    }
}

impl fmt::Debug for MemoryLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryLimits({})", self.subjects())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::SystemClock;

    fn call(subject: &str) -> LimitedCall {
        let rate = LimitRate { calls: 2, window: Duration::from_secs(1) };
        LimitedCall { limit: "test".into(), subject: subject.into(), rate }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_table_has_new_subjects_share_a_count_until_others_count_nothing() {
        let limits = MemoryLimits::new(Arc::new(SystemClock::new()), 100);
        let is_counted = |subject: &str| limits.count_now(&[call(subject)]).is_counted;
        for subject in 0..100 {
            assert!(is_counted(&subject.to_string()));
        }
        assert_eq!([is_counted("a"), is_counted("b"), is_counted("c")], [true, true, false], "they share one count");
        assert_eq!([is_counted("7"), is_counted("7")], [true, false], "known ones have theirs");
        assert_eq!(limits.subjects(), 101);
        tokio::time::advance(Duration::from_millis(1200)).await;
        assert!(is_counted("c") && is_counted("d"));
        assert_eq!(limits.subjects(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_subject_that_was_counted_with_others_begins_with_their_calls() {
        let limits = MemoryLimits::new(Arc::new(SystemClock::new()), 1);
        let is_counted = |subject: &str| limits.count_now(&[call(subject)]).is_counted;
        assert!(is_counted("first"));
        tokio::time::advance(Duration::from_millis(800)).await;
        assert_eq!([is_counted("a"), is_counted("a"), is_counted("a")], [true, true, false]);
        // The first one is forgotten, and has left its place.
        tokio::time::advance(Duration::from_millis(400)).await;
        limits.table().subjects.retain(|(_, _, subject), _| **subject != *"first");
        assert!(!is_counted("a"), "three calls within the time of two");
    }
}
