//! Redis's time, as far as a node can know it between two answers.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use phalanx_core::backend::{Clock, SystemClock};

/// This machine's clock, set by Redis's with every renewal of the lease.
#[derive(Debug, Default)]
pub struct RedisClock {
    own: SystemClock,
    ahead_us: AtomicI64,
}

impl RedisClock {
    /// Redis said `now_us` some time within the last `took`.
    pub(crate) fn set(&self, now_us: u64, took: Duration) {
        let then = self.own.now_us() as i64 - took.as_micros() as i64 / 2;
        self.ahead_us.store(now_us as i64 - then, Relaxed);
    }
}

impl Clock for RedisClock {
    fn now_us(&self) -> u64 {
        self.own.now_us().saturating_add_signed(self.ahead_us.load(Relaxed))
    }
}
