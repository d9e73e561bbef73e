//! The signals that stop or restart a node.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::SignalRequest;
use crate::logging;

/// The streams of the signals that a node handles.
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

    /// Waits for a request to stop (TERM, INT) or to restart (USR2). HUP reopens the log meanwhile.
    pub(super) async fn next(&mut self) -> SignalRequest {
        loop {
            tokio::select! {
                biased; // if several signals are pending, a stop wins
                _ = self.term.recv() => return SignalRequest::Stop,
                _ = self.int.recv() => return SignalRequest::Stop,
                _ = self.usr2.recv() => return SignalRequest::Restart,
                _ = self.hup.recv() => logging::reopen(),
            }
        }
    }

    /// Takes a request that arrived since the last [`next`](Self::next), also while no runtime was running.
    pub(super) fn take_pending(&mut self) -> Option<SignalRequest> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async {
            tokio::select! {
                biased;
                request = self.next() => Some(request),
                () = tokio::task::yield_now() => None, // by then the runtime has polled its signal driver
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
    fn a_signal_that_arrives_after_the_runtime_has_ended_is_handled_before_a_restart() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let mut signals = runtime.block_on(async { Signals::listen() });
        runtime.shutdown_timeout(Duration::from_secs(1));
        assert_eq!(signals.take_pending(), None);
        kill_process(getpid(), Signal::TERM).unwrap();
        let request = loop {
            match signals.take_pending() {
                Some(request) => break request,
                None => std::thread::yield_now(), // the kernel may deliver the signal on another thread
            }
        };
        assert_eq!(request, SignalRequest::Stop);
    }
}
