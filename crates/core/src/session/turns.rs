//! The turns of a node's updates: those of one session come one after the other, so that only nodes contend for its version.
//!
//! Each session has a lock of its own, since it is held over calls of the store: while that does not answer, no session waits
//! for another one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::backend::SessionKey;
use crate::config::SessionSettings;
use crate::metrics::bound_reached;

/// The locks of the sessions that are being updated on a node.
#[derive(Default)]
pub(super) struct UpdateTurns(Mutex<HashMap<SessionKey, Arc<tokio::sync::Mutex<()>>>>);

/// The turn of one update. Dropped, it is that of the next one.
pub(super) struct UpdateTurn<'a> {
    turns: &'a UpdateTurns,
    key: SessionKey,
    guard: Option<OwnedMutexGuard<()>>,
}

impl UpdateTurns {
    /// Waits until it is the turn of an update. `None` if too many other sessions are being updated: then it contends for the
    /// version without one.
    pub(super) async fn take(&self, key: SessionKey) -> Option<UpdateTurn<'_>> {
        let lock = {
            let mut all = self.all();
            if all.len() >= SessionSettings::MAX_UPDATED && !all.contains_key(&key) {
                bound_reached("session.updated");
                return None;
            }
            all.entry(key).or_default().clone()
        };
        // From here on its drop removes the lock, also if this future is dropped.
        let mut turn = UpdateTurn { turns: self, key, guard: None };
        turn.guard = Some(lock.lock_owned().await);
        Some(turn)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<SessionKey, Arc<tokio::sync::Mutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UpdateTurn<'_> {
    fn drop(&mut self) {
        let mut all = self.turns.all();
        self.guard = None;
        // Those that wait have clones of the lock, which are made under the lock of the map.
        if all.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            all.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use tokio::task::unconstrained;

    use super::*;

    fn key(number: usize) -> SessionKey {
        SessionKey::of(&number.to_string())
    }

    #[tokio::test]
    async fn no_session_waits_for_another_one_and_none_is_left() {
        let turns = UpdateTurns::default();
        let at_once = |number: usize| unconstrained(turns.take(key(number))).now_or_never();
        let held: Vec<_> = (0..1000).map(|number| at_once(number).expect("no wait")).collect();
        assert!(held.iter().all(Option::is_some) && turns.all().len() == 1000);
        assert!(at_once(7).is_none(), "its turn is taken");
        drop(held);
        assert!(turns.all().is_empty());
    }

    #[tokio::test]
    async fn updates_of_one_session_come_one_after_the_other() {
        let (turns, running) = (UpdateTurns::default(), AtomicUsize::new(0));
        let update = async || {
            let _turn = turns.take(key(0)).await.unwrap();
            assert_eq!(running.fetch_add(1, SeqCst), 0);
            tokio::task::yield_now().await;
            running.fetch_sub(1, SeqCst);
        };
        join_all((0..100).map(|_| update())).await;
        assert!(turns.all().is_empty());
    }

    #[tokio::test]
    async fn beyond_the_bound_an_update_takes_no_turn() {
        let turns = UpdateTurns::default();
        let mut held = Vec::new();
        for number in 0..SessionSettings::MAX_UPDATED {
            held.push(turns.take(key(number)).await.unwrap());
        }
        assert!(turns.take(key(SessionSettings::MAX_UPDATED)).await.is_none());
        held.pop();
        assert!(turns.take(key(SessionSettings::MAX_UPDATED)).await.is_some());
    }
}
