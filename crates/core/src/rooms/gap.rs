//! Gaps: the notice to members that messages of their room may have been missed.
//!
//! Between the last frame of the room before a gap and the first one after it messages may be missing, presence
//! included, and nowhere else.
//!
//! When the subscription breaks, all sockets of a node are to be sent a gap of each of their rooms at once: 500,000 frames
//! for 50,000 sockets in ten rooms. Sent in one go they take all cores for as long as that lasts, and whatever else the
//! machine does waits. So beyond [`RATE`] they are spread over [`SPREAD_MS`], room by room.

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{LocalRoom, Rooms};
use crate::connection::Connection;
use crate::event::Event;

/// Frames of gaps that are sent in a millisecond, and at least.
const RATE: usize = 100;

/// The time over which more than that are spread, in milliseconds. All are to be sent within two seconds, and on a busy
/// machine the steps are late.
const SPREAD_MS: usize = 1200;

/// The pause between two steps, the shortest that the timer has.
const PAUSE: Duration = Duration::from_millis(1);

/// How many pauses a late step makes up for.
const MADE_UP: usize = 5;

/// The rooms of which members wait for a gap, each once: at most all rooms with members here.
#[derive(Default)]
pub(super) struct GapPace {
    /// With the number of members that were to be sent it.
    waiting: VecDeque<(Arc<LocalRoom>, usize)>,
    /// The members of all these rooms.
    due: usize,
    /// Frames in a millisecond.
    rate: usize,
    /// The frames that may be sent, as of then.
    allowed: f64,
    at: Option<Instant>,
    is_running: bool,
}

impl GapPace {
    /// Adds a room. Returns whether the caller is to start the sending.
    fn add(&mut self, room: Arc<LocalRoom>, due: usize) -> bool {
        self.waiting.push_back((room, due));
        self.due += due;
        self.rate = self.rate.max(RATE).max(self.due / SPREAD_MS);
        !std::mem::replace(&mut self.is_running, true)
    }

    /// The next room, and how many of its members may be sent their gap now. Without another room the sending ends.
    fn next(&mut self, now: Instant) -> Option<(Arc<LocalRoom>, usize)> {
        let Some((room, _)) = self.waiting.front() else {
            (self.rate, self.is_running) = (RATE, false);
            return None;
        };
        let elapsed = self.at.replace(now).map_or(Duration::MAX, |at| now - at);
        let most = (self.rate * MADE_UP) as f64;
        self.allowed = most.min(elapsed.as_secs_f64().mul_add(1e3 * self.rate as f64, self.allowed));
        Some((room.clone(), self.allowed as usize))
    }

    /// Counts frames of the first room, which is done if no member of it waits.
    fn record(&mut self, sent: usize, is_done: bool) {
        self.allowed -= sent as f64;
        if is_done && let Some((_, due)) = self.waiting.pop_front() {
            self.due -= due;
        }
    }
}

impl Rooms {
    /// Sends the members of a room on this node the notice that messages may have been missed: at once, or paced, but
    /// before any later frame of the room. A member that leaves before gets none.
    pub(crate) fn send_gap(&self, room: &Arc<str>) {
        let Some(local) = self.local(room) else { return };
        let due = local.members().begin_gap(room);
        if let Some(due) = due
            && self.gaps().add(local, due)
            && self.send_some_gaps()
        {
            let rooms = self.clone();
            self.0.parts.shutdown.spawn_own(async move {
                tokio::select! {
                    () = rooms.0.parts.shutdown.closed() => {}
                    () = rooms.send_waiting_gaps() => {}
                }
            });
        }
        self.notify(&Event::RoomGap(room.clone()));
    }

    async fn send_waiting_gaps(&self) {
        loop {
            sleep(PAUSE).await;
            if !self.send_some_gaps() {
                return;
            }
        }
    }

    /// Sends the gaps that may be sent now; returns whether others wait.
    fn send_some_gaps(&self) -> bool {
        let now = Instant::now();
        loop {
            let Some((local, most)) = self.gaps().next(now) else { return false };
            if most == 0 {
                return true;
            }
            let (sent, is_done) = local.members().send_paced_gap(most);
            self.gaps().record(sent, is_done);
        }
    }

    fn gaps(&self) -> MutexGuard<'_, GapPace> {
        self.0.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the count of messages in flight for all connections: they may have been missed.
    pub(crate) fn reset_in_flight(&self) {
        self.0.parts.registry.all().iter().for_each(Connection::reset_in_flight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends all that is allowed in each millisecond; returns how long that takes, and the most of one step.
    fn send_all(pace: &mut GapPace, start: Instant) -> (u128, usize) {
        let (mut now, mut most, mut left) = (start, 0, 0);
        loop {
            let mut step = 0;
            while let Some((_, allowed)) = pace.next(now) {
                if left == 0 {
                    left = pace.waiting[0].1;
                }
                let sent = allowed.min(left);
                (left, step) = (left - sent, step + sent);
                pace.record(sent, left == 0);
                if sent == allowed {
                    break;
                }
            }
            most = most.max(step);
            if !pace.is_running {
                return ((now - start).as_millis(), most);
            }
            now += PAUSE;
        }
    }

    #[test]
    fn few_gaps_are_sent_at_once_and_many_are_spread() {
        let (mut pace, start) = (GapPace::default(), Instant::now());
        for (rooms, members, shortest, longest) in
            [(1, 400, 0, 0), (10, 5, 0, 0), (10, 1000, 90, 110), (10, 50_000, 1150, 1250), (100_000, 5, 1150, 1250)]
        {
            for room in 0..rooms {
                assert_eq!(pace.add(Arc::default(), members), room == 0, "one task sends");
            }
            let (took, most) = send_all(&mut pace, start);
            assert!((shortest..=longest).contains(&took), "{rooms} rooms of {members}: {took} ms");
            let even = (rooms * members / SPREAD_MS).max(RATE);
            assert!(most <= even * MADE_UP, "{most} in one step");
            assert_eq!((pace.due, pace.waiting.len()), (0, 0));
            pace.at = None;
        }
    }
}
