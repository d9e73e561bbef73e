//! Redis's time, as far as a node can know it between two answers.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use phalanx_core::backend::{Clock, SystemClock};

/// An answer that took longer says too little of the time, unless nothing is known yet.
const SLOWEST: Duration = Duration::from_millis(500);

/// This machine's clock, set by Redis's with every renewal of the lease.
#[derive(Debug, Default)]
pub struct RedisClock {
    own: SystemClock,
    ahead_us: AtomicI64,
    is_set: AtomicBool,
}

impl RedisClock {
    /// Redis said `now_us` some time within the last `took`.
    pub(crate) fn set(&self, now_us: u64, took: Duration) {
        if self.is_set.swap(true, Relaxed) && took > SLOWEST {
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
    fn an_answer_that_took_long_sets_a_clock_only_if_nothing_did_before() {
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
