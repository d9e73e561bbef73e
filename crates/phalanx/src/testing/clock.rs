//! The clock of an application on the embedded backend, which its test puts forward.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use phalanx_core::backend::{Clock, SystemClock};
use tokio::sync::Notify;

/// The clock of an application on the embedded backend: it goes on with the machine's, and [`advance`](Self::advance) puts it
/// forward.
///
/// The ttl of keys of the cache follows it, jobs that are due later, periodic tasks, `node.now_ms()`, and the cookies of
/// clients. What runs at the moment does not: deadlines, timeouts, heartbeats, locks that are held, and sleeps of the
/// application's own code go by the machine's clock.
#[derive(Clone)]
pub struct TestClock(Arc<ClockParts>);

struct ClockParts {
    machine: SystemClock,
    ahead_us: AtomicU64,
    sleepers: Mutex<Vec<Arc<Notify>>>,
}

impl TestClock {
    pub(super) fn new() -> Self {
        let machine = SystemClock::new();
        Self(Arc::new(ClockParts { machine, ahead_us: AtomicU64::new(0), sleepers: Mutex::default() }))
    }

    /// Puts the clock forward. Keys whose ttl is over are gone when this returns. Jobs that are due begin at once, and periodic
    /// tasks tick within a quarter of a second, on threads of their own: await their effect, or
    /// [`TestApp::jobs_done`](super::TestApp::jobs_done).
    ///
    /// Of a periodic task so many ticks come as its `catch_up` says, as after a pause of the whole cluster.
    pub fn advance(&self, by: Duration) {
        let by_us = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        let add = |ahead: u64| Some(ahead.saturating_add(by_us).min(MOST_AHEAD_US));
        let _ = self.0.ahead_us.fetch_update(Relaxed, Relaxed, add);
        self.0.sleepers().iter().for_each(|sleeper| sleeper.notify_one());
    }

    /// Unix time in milliseconds.
    pub fn now_ms(&self) -> u64 {
        Clock::now_ms(&*self.0)
    }

    pub(super) fn seam(&self) -> Arc<dyn Clock> {
        self.0.clone()
    }
}

/// A thousand years: beyond, sums of times overflow.
const MOST_AHEAD_US: u64 = 1000 * 366 * 24 * 3600 * 1_000_000;

impl ClockParts {
    fn sleepers(&self) -> MutexGuard<'_, Vec<Arc<Notify>>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ClockParts {
    fn now_us(&self) -> u64 {
        self.machine.now_us() + self.ahead_us.load(Relaxed)
    }

    fn on_advance(&self, wake: &Arc<Notify>) {
        self.sleepers().push(wake.clone());
    }
}

impl fmt::Debug for TestClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestClock({} ms)", self.now_ms())
    }
}
