//! The signals that stop or restart a node, and those that mean nothing to it.

use std::future::poll_fn;
use std::io;
use std::os::unix::process::parent_id;
use std::task::Poll;
use std::time::Duration;

use nix::libc::{SIGRTMAX, SIGRTMIN};
use nix::sys::signal::{SigSet, Signal as SignalName};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tracing::warn;

use super::ProcessRequest;
use crate::logging;

/// Signals without a meaning for a node, which would end or stop it if it did not handle them; besides, the real-time
/// signals.
///
/// TSTP is left alone, so that a shell can suspend a node, and so are the signals of faults.
const MEANINGLESS: [SignalName; 12] = [
    SignalName::SIGQUIT,
    SignalName::SIGUSR1,
    SignalName::SIGALRM,
    SignalName::SIGVTALRM,
    SignalName::SIGPROF,
    SignalName::SIGIO,
    SignalName::SIGPWR,
    SignalName::SIGSTKFLT,
    SignalName::SIGXCPU,
    SignalName::SIGXFSZ,
    SignalName::SIGTTIN,
    SignalName::SIGTTOU,
];

/// The time from one INT to another that cuts what runs.
const BEFORE_CUT: Duration = Duration::from_secs(1);

/// The streams of the signals that a node handles.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr2: Signal,
    /// When INT came first.
    interrupted: Option<Instant>,
    meaningless: Vec<(String, Signal)>,
    /// Whether the process is a worker, whose parent decides about everything but its stop.
    is_worker: bool,
}

impl Signals {
    /// Handles the signals from now on, and lets those through that were blocked before a restart in place.
    ///
    /// It must run before other threads are started: they inherit the mask of this one.
    pub(super) fn listen(is_worker: bool) -> io::Result<Self> {
        let runtime = signal_runtime()?;
        let _entered = runtime.enter();
        let named = MEANINGLESS.iter().map(|name| (name.as_str().to_owned(), *name as i32));
        let real_time = (SIGRTMIN()..=SIGRTMAX()).map(|number| (format!("SIGRTMIN+{}", number - SIGRTMIN()), number));
        // Some cannot be handled under a debugger or an emulator, which keep them to themselves: such a program runs
        // all the same.
        let listen = |(name, number)| Some((name, signal(SignalKind::from_raw(number)).ok()?));
        let signals = Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr2: signal(SignalKind::user_defined2())?,
            interrupted: None,
            meaningless: named.chain(real_time).filter_map(listen).collect(),
            is_worker,
        };
        SigSet::all().thread_unblock()?;
        Ok(signals)
    }

    /// Waits for a request to stop (TERM, INT), to cut what runs (INT again) or to restart (USR2). HUP reopens the log
    /// meanwhile. A worker only stops: a terminal and its parent may both send INT, and only its parent knows of a second one.
    pub(super) async fn next(&mut self) -> ProcessRequest {
        loop {
            let meaningless = poll_fn(|context| {
                for (name, signal) in &mut self.meaningless {
                    if signal.poll_recv(context).is_ready() {
                        return Poll::Ready(name.clone());
                    }
                }
                Poll::Pending
            });
            tokio::select! {
                biased; // if several signals are pending, a stop wins
                _ = self.term.recv() => return ProcessRequest::Stop,
                _ = self.int.recv() => return self.interrupt(),
                _ = self.usr2.recv() => {
                    if !self.is_worker {
                        return ProcessRequest::Restart;
                    }
                    warn!(parent = parent_id(), "USR2 is for the parent of this worker, and was ignored");
                }
                _ = self.hup.recv() => logging::reopen(),
                signal = meaningless => {
                    if self.is_worker {
                        warn!(signal, parent = parent_id(), "a signal that means nothing to a worker was ignored");
                    } else {
                        warn!(signal, "a signal that means nothing to a node was ignored");
                    }
                }
            }
        }
    }

    /// Reads an INT: a person at a terminal who repeats it means it, unless it is the same key press twice.
    fn interrupt(&mut self) -> ProcessRequest {
        let first = *self.interrupted.get_or_insert_with(Instant::now);
        if first.elapsed() > BEFORE_CUT && !self.is_worker { ProcessRequest::Cut } else { ProcessRequest::Stop }
    }

    /// Takes a request that arrived since the last [`next`](Self::next), also while no runtime was running.
    pub(super) fn take_pending(&mut self) -> Option<ProcessRequest> {
        signal_runtime().ok()?.block_on(async {
            tokio::select! {
                biased;
                request = self.next() => Some(request),
                () = tokio::task::yield_now() => None, // by then the runtime has polled its signal driver
            }
        })
    }
}

/// Lets signals wait until the program that this process executes next handles them. Without that, one that arrives in
/// its first milliseconds ends it: handlers do not outlast an exec, but the mask and what is pending do.
pub(super) fn block() {
    if let Err(error) = SigSet::all().thread_block() {
        warn!(%error, "signals could not be blocked for the restart");
    }
}

/// A runtime with a signal driver. The streams also work with the drivers of later runtimes.
pub(super) fn signal_runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[test]
    fn a_signal_that_arrives_after_the_runtime_has_ended_is_handled_before_a_restart() {
        let mut signals = Signals::listen(false).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.shutdown_timeout(Duration::from_secs(1));
        assert_eq!(signals.take_pending(), None);
        kill_process(getpid(), Signal::TERM).unwrap();
        let request = loop {
            match signals.take_pending() {
                Some(request) => break request,
                None => std::thread::yield_now(), // the kernel may deliver the signal on another thread
            }
        };
        assert_eq!(request, ProcessRequest::Stop);
    }
}
