//! Whether the threads of attempts still poll: tasks that block them by mistake can take all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::runtime::Handle;

/// So many looks in a row without a beat, and all threads are blocked. Looks are counted, not seconds: after a process stood
/// still, its first look proves nothing.
const MISSED: u32 = 20;

/// A beat on the runtime of attempts.
#[derive(Debug, Default)]
pub(crate) struct RuntimePulse {
    beat: Arc<AtomicBool>,
    is_awaited: bool,
    missed: u32,
}

impl RuntimePulse {
    /// Looks for the last beat, and has the runtime send the next one.
    pub(crate) fn look(&mut self, runtime: &Handle) {
        if self.is_awaited && !self.beat.swap(false, Relaxed) {
            self.missed = self.missed.saturating_add(1);
            return;
        }
        (self.is_awaited, self.missed) = (true, 0);
        let beat = self.beat.clone();
        runtime.spawn(async move { beat.store(true, Relaxed) });
    }

    /// Whether all threads are blocked.
    pub(crate) fn is_lost(&self) -> bool {
        self.missed >= MISSED
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_runtime_whose_threads_are_blocked_has_no_pulse_until_one_returns() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (release, blocked) = channel::<()>();
        let (started, has_started) = channel();
        runtime.spawn(async move {
            started.send(()).unwrap();
            let _ = blocked.recv();
        });
        has_started.recv().unwrap();
        let mut pulse = RuntimePulse::default();
        for looks in 0..=MISSED {
            assert!(!pulse.is_lost(), "after {looks} looks");
            pulse.look(runtime.handle());
        }
        assert!(pulse.is_lost());
        drop(release);
        while pulse.is_lost() {
            pulse.look(runtime.handle());
        }
    }
}
