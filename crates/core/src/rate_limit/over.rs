//! The subjects that are known to be over a limit: the node refuses their calls without its backend, until there is room.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::backend::{LimitState, LimitedCall};
use crate::metrics::bound_reached;

/// How often a full table is searched for subjects that have room again.
const SWEEP_US: u64 = 1_000_000;

/// Those subjects. Beyond `most` further ones are not remembered: their calls are decided by the backend.
pub(super) struct SubjectsOver {
    most: usize,
    table: Mutex<OverTable>,
    /// Whether there may be any: calls of others do not wait for the table then.
    is_used: AtomicBool,
}

#[derive(Default)]
struct OverTable {
    subjects: HashMap<(Arc<str>, Arc<str>), OverSubject>,
    next_sweep_us: u64,
}

/// Unix times in microseconds.
#[derive(Clone, Copy)]
struct OverSubject {
    since: u64,
    until: u64,
    whole_at: u64,
}

impl OverSubject {
    /// Whether there is no room yet. A clock that was put back ends it: it says nothing about the time of the backend.
    fn is_over(&self, now_us: u64) -> bool {
        (self.since..self.until).contains(&now_us)
    }
}

impl SubjectsOver {
    pub(super) fn new(most: usize) -> Self {
        Self { most, table: Mutex::default(), is_used: AtomicBool::new(false) }
    }

    /// The states of the limits that refuse a call, if one of its subjects is known to be over. Those of the others are known to
    /// the backend alone.
    pub(super) fn refusal(&self, calls: &[LimitedCall], now_us: u64) -> Option<Vec<Option<LimitState>>> {
        if !self.is_used.load(Relaxed) {
            return None;
        }
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let state = |call: &LimitedCall| {
            let key = (call.limit.clone(), call.subject.clone());
            let subject = *table.subjects.get(&key)?;
            if !subject.is_over(now_us) {
                table.subjects.remove(&key);
                return None;
            }
            let until = |time: u64| Duration::from_micros(time.saturating_sub(now_us));
            Some(LimitState { left: 0, retry_after: until(subject.until), whole_in: until(subject.whole_at) })
        };
        let states: Vec<Option<LimitState>> = calls.iter().map(state).collect();
        self.is_used.store(!table.subjects.is_empty(), Relaxed);
        states.iter().any(Option::is_some).then_some(states)
    }

    /// Remembers the subjects for which the backend refused a call.
    pub(super) fn add(&self, calls: &[LimitedCall], states: &[LimitState], now_us: u64) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        for (call, state) in calls.iter().zip(states).filter(|(_, state)| !state.retry_after.is_zero()) {
            let key = (call.limit.clone(), call.subject.clone());
            if !table.subjects.contains_key(&key) && !table.has_room(self.most, now_us) {
                bound_reached("limits.max_subjects");
                continue;
            }
            let at = |time: Duration| now_us + time.as_micros() as u64;
            let subject = OverSubject { since: now_us, until: at(state.retry_after), whole_at: at(state.whole_in) };
            table.subjects.insert(key, subject);
        }
        self.is_used.store(!table.subjects.is_empty(), Relaxed);
    }
}

impl OverTable {
    fn has_room(&mut self, most: usize, now_us: u64) -> bool {
        let is_due = !(1..=SWEEP_US).contains(&self.next_sweep_us.saturating_sub(now_us));
        if self.subjects.len() >= most && is_due {
            self.next_sweep_us = now_us + SWEEP_US;
            self.subjects.retain(|_, subject| subject.is_over(now_us));
        }
        self.subjects.len() < most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LimitRate;

    const RATE: LimitRate = LimitRate { calls: 5, window: Duration::from_secs(10) };

    fn call(subject: &str) -> LimitedCall {
        LimitedCall { limit: "test".into(), subject: subject.into(), rate: RATE }
    }

    fn over(seconds: u64) -> LimitState {
        LimitState { left: 0, retry_after: Duration::from_secs(seconds), whole_in: Duration::from_secs(2 * seconds) }
    }

    #[test]
    fn a_subject_is_refused_until_it_has_room() {
        const NOW: u64 = 1_000_000_000;
        let subjects = SubjectsOver::new(10);
        subjects.add(&[call("a"), call("b")], &[over(3), LimitState { retry_after: Duration::ZERO, ..over(3) }], NOW);
        for (subject, later, expected) in [
            ("a", 0, Some(over(3))),
            (
                "a",
                1_000_000,
                Some(LimitState { retry_after: Duration::from_secs(2), whole_in: Duration::from_secs(5), ..over(3) }),
            ),
            ("b", 0, None),
            ("a", 3_000_000, None),
            ("a", 0, None),
        ] {
            let refusal = subjects.refusal(&[call(subject)], NOW + later);
            assert_eq!(refusal.and_then(|states| states[0]), expected, "{subject} after {later}");
        }
        assert!(!subjects.is_used.load(Relaxed), "calls do not wait for an empty table");
        subjects.add(&[call("a")], &[over(3)], NOW);
        assert!(subjects.refusal(&[call("b"), call("a")], NOW).is_some(), "one of several limits is enough");
        assert!(subjects.refusal(&[call("a")], NOW - 1).is_none(), "the clock was put back");
    }

    #[test]
    fn no_more_are_remembered_than_fit() {
        let subjects = SubjectsOver::new(3);
        for (number, subject) in ["a", "b", "c", "d"].into_iter().enumerate() {
            subjects.add(&[call(subject)], &[over(1)], 1);
            assert_eq!(subjects.refusal(&[call(subject)], 1).is_some(), number < 3, "{subject}");
        }
        subjects.add(&[call("d")], &[over(1)], 1_500_000);
        assert!(subjects.refusal(&[call("d")], 1_500_000).is_some(), "the others have room again");
    }
}
