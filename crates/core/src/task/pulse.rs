//! The deadline of an attempt, which heartbeats move.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// When the time of an attempt is up: so long after its start, or after its last heartbeat.
#[derive(Debug)]
pub struct AttemptClock {
    started: Instant,
    limit: Option<Duration>,
    /// Nanoseconds from the start to the last heartbeat.
    beat: AtomicU64,
}

impl AttemptClock {
    /// The clock of an attempt that starts at this time.
    pub fn start(started: Instant, limit: Option<Duration>) -> Self {
        Self { started, limit, beat: AtomicU64::new(0) }
    }

    /// When the attempt started.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// How long the attempt may take without a heartbeat.
    pub fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// When its time is up.
    pub fn deadline(&self) -> Option<Instant> {
        self.limit.map(|limit| self.started + Duration::from_nanos(self.beat.load(Relaxed)) + limit)
    }

    /// Starts the time anew; returns how long the attempt may take in all.
    pub(super) fn beat(&self) -> Option<Duration> {
        let elapsed = self.started.elapsed();
        self.beat.fetch_max(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.limit.map(|limit| elapsed + limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_starts_the_time_anew() {
        let (second, started) = (Duration::from_secs(1), Instant::now());
        let clock = AttemptClock::start(started, Some(second));
        assert_eq!(clock.deadline(), Some(started + second));
        tokio::time::advance(second / 2).await;
        assert_eq!((clock.beat(), clock.deadline()), (Some(second * 3 / 2), Some(started + second * 3 / 2)));
        assert_eq!(AttemptClock::start(started, None).deadline(), None);
    }
}
