//! The pace of frames that many sockets are to be sent at once.
//!
//! When the subscription breaks, all sockets of a node are to be sent a gap of each of their rooms at once: 500,000 frames
//! for 50,000 sockets in ten rooms. Sent in one go they take all cores for as long as that lasts, and whatever else the
//! machine does waits. So beyond [`RATE`] they are spread over [`SPREAD_MS`].

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::shutdown::Shutdown;

/// Frames that are sent in a millisecond, and at least.
const RATE: usize = 100;

/// Frames that are only queued in a millisecond, and at least: that wakes no task.
const QUEUEING_RATE: usize = 2000;

/// The time over which more than that are spread, in milliseconds. All are to be sent within two seconds, and on a busy
/// machine the steps are late.
const SPREAD_MS: usize = 1200;

/// The pause between two steps, the shortest that the timer has.
const PAUSE: Duration = Duration::from_millis(1);

/// How many pauses a late step makes up for.
const MADE_UP: usize = 5;

/// Takes a step after each pause, until that says that no frame waits, or the node has stopped.
pub(crate) fn spawn_steps(shutdown: &Shutdown, send_some: impl Fn() -> bool + Send + Sync + 'static) {
    let stopping = shutdown.clone();
    shutdown.spawn_own(async move {
        let sending = async {
            loop {
                sleep(PAUSE).await;
                if !send_some() {
                    return;
                }
            }
        };
        tokio::select! {
            () = stopping.closed() => {}
            () = sending => {}
        }
    });
}

/// The subjects that wait for their frames: a room with its members, or a connection.
pub(crate) struct GapPace<T> {
    /// With the number of frames that were to be sent for it. Each is in here once, so they are as many as rooms with members
    /// here, or as connections.
    waiting: VecDeque<(T, usize)>,
    /// The frames of all of them.
    due: usize,
    /// Frames in a millisecond, at least.
    least: usize,
    /// Frames in a millisecond.
    rate: usize,
    /// The frames that may be sent, as of then.
    allowed: f64,
    at: Option<Instant>,
    is_running: bool,
}

impl<T> Default for GapPace<T> {
    fn default() -> Self {
        Self::of(RATE)
    }
}

impl<T> GapPace<T> {
    /// The pace of frames that are queued, and not sent yet.
    pub(crate) fn of_queueing() -> Self {
        Self::of(QUEUEING_RATE)
    }

    fn of(least: usize) -> Self {
        Self { waiting: VecDeque::new(), due: 0, least, rate: 0, allowed: 0.0, at: None, is_running: false }
    }

    /// Whether no subject waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl<T: Clone> GapPace<T> {
    /// Adds a subject. Returns whether the caller is to start the sending.
    pub(crate) fn add(&mut self, subject: T, due: usize) -> bool {
        self.waiting.push_back((subject, due));
        self.due += due;
        self.rate = self.rate.max(self.least).max(self.due / SPREAD_MS);
        !std::mem::replace(&mut self.is_running, true)
    }

    /// The next subject, and how many of its frames may be sent now. Without another one the sending ends.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(T, usize)> {
        let Some((subject, _)) = self.waiting.front() else {
            (self.rate, self.is_running) = (self.least, false);
            return None;
        };
        let elapsed = self.at.replace(now).map_or(Duration::MAX, |at| now - at);
        let most = (self.rate * MADE_UP) as f64;
        self.allowed = most.min(elapsed.as_secs_f64().mul_add(1e3 * self.rate as f64, self.allowed));
        Some((subject.clone(), self.allowed as usize))
    }

    /// Counts frames of the first subject, which is done if none of it waits.
    pub(crate) fn record(&mut self, sent: usize, is_done: bool) {
        self.allowed -= sent as f64;
        if is_done && let Some((_, due)) = self.waiting.pop_front() {
            self.due -= due;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends all that is allowed in each millisecond; returns how long that takes, and the most of one step.
    fn send_all(pace: &mut GapPace<usize>, start: Instant) -> (u128, usize) {
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
                assert_eq!(pace.add(room, members), room == 0, "one task sends");
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
