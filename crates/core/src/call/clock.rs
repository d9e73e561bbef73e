//! The clock of a call, which stands still while its body is awaited.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// When a call started, how long it may run, and how long its body was awaited. Only the call's own task changes it:
/// the atomics are there because contexts are shared.
#[derive(Debug)]
pub(crate) struct CallClock {
    started: Instant,
    /// Nanoseconds after the start at which its time is up; `UNLIMITED` if never.
    limit: AtomicU64,
    /// Nanoseconds for which the body was awaited.
    waited: AtomicU64,
    /// Since when it is awaited, in nanoseconds after the start; `RUNNING` if it is not.
    since: AtomicU64,
}

const RUNNING: u64 = u64::MAX;
const UNLIMITED: u64 = u64::MAX;

impl CallClock {
    pub(crate) fn new(started: Instant, limit: Option<Duration>) -> Self {
        let limit = AtomicU64::new(nanos_of(limit));
        Self { started, limit, waited: AtomicU64::new(0), since: AtomicU64::new(RUNNING) }
    }

    /// Copies a clock for a call that takes over from this one.
    pub(crate) fn fork(&self) -> Self {
        let copy = |nanos: &AtomicU64| AtomicU64::new(nanos.load(Relaxed));
        Self { limit: copy(&self.limit), waited: copy(&self.waited), ..Self::new(self.started, None) }
    }

    /// Changes how long the call may run in all.
    pub(crate) fn set_limit(&self, limit: Option<Duration>) {
        self.limit.store(nanos_of(limit), Relaxed);
    }

    /// The end of the call's time, moved by the time for which its body was awaited.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let limit = self.limit.load(Relaxed);
        (limit != UNLIMITED).then(|| self.started + Duration::from_nanos(limit) + self.waited())
    }

    /// How long the body was awaited so far.
    pub(crate) fn waited(&self) -> Duration {
        let since = self.since.load(Relaxed);
        let now = if since == RUNNING { 0 } else { self.nanos().saturating_sub(since) };
        Duration::from_nanos(self.waited.load(Relaxed).saturating_add(now))
    }

    /// Whether the clock stands still.
    pub(crate) fn is_paused(&self) -> bool {
        self.since.load(Relaxed) != RUNNING
    }

    /// Stops the clock until the guard is dropped.
    pub(crate) fn pause(&self) -> PausedClock<'_> {
        self.since.store(self.nanos(), Relaxed);
        PausedClock(self)
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(RUNNING - 1)
    }
}

fn nanos_of(limit: Option<Duration>) -> u64 {
    limit.map_or(UNLIMITED, |limit| u64::try_from(limit.as_nanos()).unwrap_or(UNLIMITED))
}

/// Keeps a [`CallClock`] from running.
pub(crate) struct PausedClock<'a>(&'a CallClock);

impl Drop for PausedClock<'_> {
    fn drop(&mut self) {
        let waited = self.0.waited().as_nanos();
        self.0.waited.store(u64::try_from(waited).unwrap_or(u64::MAX), Relaxed);
        self.0.since.store(RUNNING, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_paused_clock_moves_its_deadline() {
        let (second, started) = (Duration::from_secs(1), Instant::now());
        let clock = CallClock::new(started, Some(second));
        tokio::time::advance(second / 2).await;
        let paused = clock.pause();
        tokio::time::advance(second * 45).await;
        assert!(clock.is_paused());
        assert_eq!(clock.waited(), second * 45, "it counts while it lasts");
        drop(paused);
        tokio::time::advance(second / 4).await;
        assert_eq!((clock.waited(), clock.deadline()), (second * 45, Some(started + second * 46)));
        assert_eq!(clock.fork().deadline(), clock.deadline());
        clock.set_limit(Some(second * 10));
        assert_eq!(clock.deadline(), Some(started + second * 55));
        assert_eq!(CallClock::new(started, None).deadline(), None);
    }
}
