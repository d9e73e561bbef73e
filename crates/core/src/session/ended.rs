//! The sessions that a node has ended lately: a backend that comes back with older data has them again.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backend::SessionKey;
use crate::config::SessionSettings;
use crate::metrics::bound_reached;

/// How long they are remembered. Data that is older is another matter: an operator put it back.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// The sessions that were ended, or replaced by ones with a new id.
#[derive(Default)]
pub(super) struct EndedSessions(Mutex<EndedList>);

#[derive(Default)]
struct EndedList {
    /// With the times, in milliseconds, the oldest first.
    in_order: VecDeque<(u64, SessionKey)>,
    /// Each is there once: a client that repeats its sign-out pushes no other out.
    known: HashSet<SessionKey>,
}

impl EndedList {
    fn forget_first(&mut self) {
        if let Some((_, key)) = self.in_order.pop_front() {
            self.known.remove(&key);
        }
    }
}

impl EndedSessions {
    /// Remembers sessions; beyond [`SessionSettings::MAX_ENDED`] the oldest are forgotten.
    pub(super) fn add(&self, keys: &[SessionKey], now: u64) {
        let mut all = self.recent(now);
        for key in keys {
            if !all.known.insert(*key) {
                continue;
            }
            all.in_order.push_back((now, *key));
            if all.in_order.len() > SessionSettings::MAX_ENDED {
                bound_reached("session.ended");
                all.forget_first();
            }
        }
    }

    /// The sessions that are remembered.
    pub(super) fn all(&self, now: u64) -> Vec<SessionKey> {
        self.recent(now).in_order.iter().map(|(_, key)| *key).collect()
    }

    /// Forgets those of long ago.
    fn recent(&self, now: u64) -> MutexGuard<'_, EndedList> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = now.saturating_sub(REMEMBERED.as_millis() as u64);
        while all.in_order.front().is_some_and(|(at, _)| *at < oldest) {
            all.forget_first();
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(numbers: std::ops::Range<usize>) -> Vec<SessionKey> {
        numbers.map(|number| SessionKey::of(&number.to_string())).collect()
    }

    #[test]
    fn sessions_are_remembered_for_an_hour_and_the_last_of_too_many() {
        let ended = EndedSessions::default();
        let hour = REMEMBERED.as_millis() as u64;
        ended.add(&keys(0..2), 1000);
        ended.add(&keys(1..3), 2000);
        assert_eq!(ended.all(1000 + hour), keys(0..3));
        assert_eq!(ended.all(1001 + hour), keys(2..3));
        let most = SessionSettings::MAX_ENDED;
        ended.add(&keys(3..most + 5), 3000);
        assert_eq!(ended.all(3000), keys(5..most + 5));
        assert_eq!(ended.all(3001 + hour), []);
    }
}
