//! The seam for time.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::time::Instant;

/// The time, as nodes agree on it.
pub trait Clock: Send + Sync + 'static {
    /// Unix time in microseconds.
    fn now_us(&self) -> u64;

    /// Unix time in milliseconds.
    fn now_ms(&self) -> u64 {
        self.now_us() / 1000
    }

    /// Notifies `wake` whenever the clock is put forward: a timer that was set by it learns nothing of that. A clock that only
    /// goes on never does.
    fn on_advance(&self, wake: &Arc<Notify>) {
        let _ = wake;
    }
}

/// The time of this machine. It goes on with tokio's, so that a paused clock pauses it.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start_us: u64,
    started: Instant,
}

impl SystemClock {
    /// Reads the machine's clock once.
    pub fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start_us: since.as_micros() as u64, started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now_us(&self) -> u64 {
        self.start_us + self.started.elapsed().as_micros() as u64
    }
}
