//! Redis's clock, estimated between two replies.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use phalanx_core::backend::{Clock, SystemClock};

/// A reply that took longer is too inaccurate to set the clock by, unless the clock was never set.
const MAX_ROUND_TRIP: Duration = Duration::from_millis(500);

/// This machine's clock, corrected by Redis's with every renewal of the lease.
#[derive(Debug, Default)]
pub struct RedisClock {
    own: SystemClock,
    ahead_us: AtomicI64,
    is_set: AtomicBool,
}

impl RedisClock {
    /// Sets the clock: Redis read `now_us` some time within the last `took`.
    pub(crate) fn set(&self, now_us: u64, took: Duration) {
        if self.is_set.swap(true, Relaxed) && took > MAX_ROUND_TRIP {
            return;
        }
        let then = self.own.now_us() as i64 - took.as_micros() as i64 / 2;
        self.ahead_us.store(now_us as i64 - then, Relaxed);
    }
}

impl Clock for RedisClock {
    fn now_us(&self) -> u64 {
        self.own.now_us().saturating_add_signed(self.ahead_us.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reply_sets_the_clock_only_if_it_was_never_set() {
        const HOUR_US: u64 = 3_600_000_000;
        let (clock, now_us) = (RedisClock::default(), SystemClock::default().now_us());
        let ahead = |clock: &RedisClock| (clock.now_us() - now_us) / HOUR_US;
        clock.set(now_us + HOUR_US, Duration::from_secs(2));
        assert_eq!(ahead(&clock), 1);
        clock.set(now_us + 2 * HOUR_US, Duration::from_millis(501));
        assert_eq!(ahead(&clock), 1);
        clock.set(now_us + 2 * HOUR_US, Duration::from_millis(1));
        assert_eq!(ahead(&clock), 2);
    }
}
