//! Signals.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Ending;
use crate::logging::Log;

/// The signals that a node understands.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr2: Signal,
}

impl Signals {
    pub(super) fn listen() -> Self {
        let listen = |kind| signal(kind).expect("the runtime's signal driver is on");
        Self {
            term: listen(SignalKind::terminate()),
            int: listen(SignalKind::interrupt()),
            hup: listen(SignalKind::hangup()),
            usr2: listen(SignalKind::user_defined2()),
        }
    }

    /// Waits until the process is asked to stop (TERM, INT) or to restart (USR2); HUP reopens the log.
    pub(super) async fn next(&mut self, log: &Log) -> Ending {
        loop {
            tokio::select! {
                biased; // where several came, whoever wants the node gone is heard first
                _ = self.term.recv() => return Ending::Stop,
                _ = self.int.recv() => return Ending::Stop,
                _ = self.usr2.recv() => return Ending::Restart,
                _ = self.hup.recv() => log.reopen(),
            }
        }
    }

    /// What came since they were listened to last, also while no runtime was there to hear it.
    pub(super) fn came_since(&mut self, log: &Log) -> Option<Ending> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async {
            tokio::select! {
                biased;
                heard = self.next(log) => Some(heard),
                () = tokio::task::yield_now() => None, // by then the runtime has looked
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[test]
    fn a_signal_that_comes_when_no_runtime_is_left_is_heard_before_the_process_begins_anew() {
        let log = Log::default();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let mut signals = runtime.block_on(async { Signals::listen() });
        runtime.shutdown_timeout(Duration::from_secs(1));
        assert_eq!(signals.came_since(&log), None);
        kill_process(getpid(), Signal::TERM).unwrap();
        let heard = loop {
            match signals.came_since(&log) {
                Some(heard) => break heard,
                None => std::thread::yield_now(), // another thread is about to take it
            }
        };
        assert_eq!(heard, Ending::Stop);
    }
}
