//! The triggers of the decisions.

use super::{WorkerEnd, WorkerKey};

/// An event that the parent reacts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Time has passed.
    Time,
    /// A second has passed, and all that workers have sent was read.
    Check,
    /// A worker serves.
    Ready(WorkerKey),
    /// A worker's runtime runs.
    Beat(WorkerKey),
    /// A worker cannot serve, for that reason.
    Failed(WorkerKey, String),
    /// A worker has cut off work of these names.
    CutWork(WorkerKey, String),
    /// A worker's process has ended, or could not be started.
    Ended(WorkerKey, WorkerEnd),
    /// To replace all workers one by one: USR2.
    Roll,
    /// The program that the roll shall start cannot be opened.
    NoProgram(String),
    /// To change the number of workers: TTIN, TTOU, `scale`.
    Scale(ScaleChange),
    /// To stop all: TERM.
    Stop,
    /// To stop all, and to cut off what still runs if it comes again: INT.
    Interrupt,
    /// To reopen logs: HUP.
    Reopen,
}

/// A change of the number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleChange {
    /// One more: TTIN.
    Add,
    /// One less: TTOU.
    Remove,
    /// So many.
    To(u32),
}
