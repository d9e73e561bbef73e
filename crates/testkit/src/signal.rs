//! Signals to children of this process.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

pub(crate) fn signal_child(id: u32, signal: Signal) {
    kill_process(pid(id), signal).expect("a child process accepts signals");
}

/// Stops a child, and returns when all of its threads stand: a signal is sent before it acts.
pub(crate) fn freeze_child(id: u32) {
    signal_child(id, Signal::STOP);
    // `NOWAIT` leaves the state of the child to its parent's other waits.
    waitid(WaitId::Pid(pid(id)), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).expect("a child process stops");
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id as i32).expect("a process id is not zero")
}
