//! Signals of the parent: all are blocked, and read from a descriptor beside the links.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tracing::{info, warn};

use crate::machine::{ScaleChange, Trigger};

/// Signals that are left alone: those of faults, and those by which a shell suspends a process.
const LEFT_ALONE: [Signal; 10] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGCONT,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
    Signal::SIGTSTP,
    Signal::SIGWINCH,
];

/// The signals of this process, blocked from now on.
#[derive(Debug)]
pub struct BlockedSignals {
    signals: SignalFd,
}

impl BlockedSignals {
    /// Blocks signals. It must run before other threads are started, which inherit that. Workers inherit it too: a
    /// signal that comes before a worker handles it waits, instead of ending the worker.
    ///
    /// # Errors
    ///
    /// The process has no descriptors left.
    pub fn block() -> io::Result<Self> {
        let mut mask = SigSet::all();
        for signal in LEFT_ALONE {
            mask.remove(signal);
        }
        mask.thread_block()?;
        Ok(Self { signals: SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)? })
    }

    /// The triggers of the signals that have arrived. There are at most as many as kinds of signals.
    pub(super) fn take(&self) -> Vec<Trigger> {
        let mut triggers = Vec::new();
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            let name = signal.map_or_else(|| info.ssi_signo.to_string(), |signal| signal.to_string());
            match signal {
                Some(Signal::SIGCHLD) => continue,
                Some(Signal::SIGTERM) => triggers.push(Trigger::Stop),
                Some(Signal::SIGINT) => triggers.push(Trigger::Interrupt),
                Some(Signal::SIGHUP) => triggers.push(Trigger::Reopen),
                Some(Signal::SIGUSR2) => triggers.push(Trigger::Roll),
                Some(Signal::SIGTTIN) => triggers.push(Trigger::Scale(ScaleChange::Add)),
                Some(Signal::SIGTTOU) => triggers.push(Trigger::Scale(ScaleChange::Remove)),
                _ => {
                    warn!(signal = name, "a signal that means nothing to the parent was ignored");
                    continue;
                }
            }
            info!(signal = name, "requested by a signal");
        }
        triggers
    }
}

impl AsFd for BlockedSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}
