//! The first page of a room's members, read once for all that request it within a short time.
//!
//! After a gap all members of a room on all nodes request it at once. A read always starts after the requests that it
//! answers, so that everybody sees their own join.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync;
use tokio::time::{Instant, sleep_until};

use crate::backend::{BackendError, Members};
use crate::metrics::bound_reached;

/// The shortest time between the starts of two reads of one room.
const WINDOW: Duration = Duration::from_millis(100);

/// Rooms whose reads are remembered. Beyond it, rooms without a request at the moment are forgotten, and if there are
/// none, others are read for each request.
const MAX_ROOMS: usize = 1024;

/// The last read of each room.
#[derive(Default)]
pub(super) struct SharedViews(Mutex<HashMap<Arc<str>, Arc<sync::Mutex<LastRead>>>>);

#[derive(Default)]
struct LastRead {
    started: Option<Instant>,
    /// The result, or the reason of a failure; kept while there are requests that it answers.
    outcome: Option<Result<Option<Members>, String>>,
}

impl SharedViews {
    /// Reads the members of a room, or waits for the read of another request. Cancel safe: the next request reads.
    pub(super) async fn members(
        &self,
        room: &str,
        read: impl Future<Output = Result<Option<Members>, BackendError>>,
    ) -> Result<Option<Members>, BackendError> {
        let requested = Instant::now();
        let Some(last) = self.of(room) else { return read.await };
        let mut guard = last.lock().await;
        let is_only = || Arc::strong_count(&last) == 2; // the map, and this request
        if guard.started.is_some_and(|started| started >= requested) {
            let outcome = if is_only() { guard.outcome.take() } else { guard.outcome.clone() };
            if let Some(outcome) = outcome {
                return outcome.map_err(BackendError::unavailable);
            }
        }
        if let Some(started) = guard.started {
            sleep_until(started + WINDOW).await;
        }
        let started = Some(Instant::now());
        let members = read.await;
        let outcome = match &members {
            _ if is_only() => None,
            Ok(members) => Some(Ok(members.clone())),
            Err(error) => Some(Err(error.to_string())),
        };
        *guard = LastRead { started, outcome };
        members
    }

    fn of(&self, room: &str) -> Option<Arc<sync::Mutex<LastRead>>> {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = rooms.get(room) {
            return Some(last.clone());
        }
        if rooms.len() >= MAX_ROOMS {
            rooms.retain(|_, last| Arc::strong_count(last) > 1);
        }
        if rooms.len() >= MAX_ROOMS {
            bound_reached("rooms.views");
            return None;
        }
        Some(rooms.entry(room.into()).or_default().clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use futures_util::future::join_all;
    use tokio::time::sleep;

    use super::*;

    /// A store whose reads take 10 ms.
    #[derive(Default)]
    struct SlowStore {
        reads: AtomicUsize,
        fails: bool,
    }

    impl SlowStore {
        async fn read(&self) -> Result<Option<Members>, BackendError> {
            let count = self.reads.fetch_add(1, Relaxed) + 1;
            sleep(Duration::from_millis(10)).await;
            if self.fails {
                return Err(BackendError::unavailable("away"));
            }
            Ok(Some(Members { count, ..Members::default() }))
        }

        async fn view(&self, views: &SharedViews, room: &str) -> usize {
            views.members(room, self.read()).await.unwrap().unwrap().count
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_within_the_window_share_one_read_that_starts_after_them() {
        let (views, store) = (SharedViews::default(), SlowStore::default());
        let started = Instant::now();
        assert_eq!(store.view(&views, "lobby").await, 1);
        assert_eq!(started.elapsed(), Duration::from_millis(10), "the first one does not wait");
        let shared = join_all((0..100).map(|_| store.view(&views, "lobby"))).await;
        assert_eq!(shared, [2; 100]);
        assert_eq!(started.elapsed(), Duration::from_millis(110));
        assert_eq!(store.view(&views, "other").await, 3, "rooms are apart");
        let (early, late) = tokio::join!(store.view(&views, "lobby"), async {
            sleep(Duration::from_millis(95)).await; // the read of the early one is under way
            store.view(&views, "lobby").await
        });
        assert_eq!((early, late), (4, 5), "its read had started before the late one");
        assert!(views.0.lock().unwrap()["lobby"].try_lock().unwrap().outcome.is_none(), "nothing is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_fails_fails_for_all_and_one_that_is_dropped_for_none() {
        let (views, store) = (SharedViews::default(), SlowStore { fails: true, ..SlowStore::default() });
        let all = join_all((0..50).map(|_| views.members("lobby", store.read()))).await;
        assert!(all.iter().all(Result::is_err) && store.reads.load(Relaxed) <= 2);
        let store = SlowStore::default();
        let dropped = tokio::time::timeout(Duration::from_millis(95), store.view(&views, "lobby"));
        let (dropped, other) = tokio::join!(dropped, store.view(&views, "lobby"));
        assert!(dropped.is_err() && other == 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_rooms_is_bounded() {
        let (views, store) = (SharedViews::default(), SlowStore::default());
        for room in 0..=MAX_ROOMS {
            store.view(&views, &room.to_string()).await;
        }
        assert_eq!(views.0.lock().unwrap().len(), 1);
    }
}
