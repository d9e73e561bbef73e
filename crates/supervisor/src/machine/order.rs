//! The orders of the parent, which the shell carries out.

use super::{RollEnd, WorkerKey};

/// An order to the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start a worker's process.
    Start(WorkerKey, ProgramChoice),
    /// Stop a worker while others serve on: over its link, or by TERM if it does not read that.
    Stop(WorkerKey),
    /// Stop a worker with all others.
    StopAll(WorkerKey),
    /// Send a signal to a worker.
    Signal(WorkerKey, WorkerSignal),
    /// Wait no longer for a worker that was killed; [`WorkerEnd::Stuck`](super::WorkerEnd::Stuck) follows from it.
    Abandon(WorkerKey),
    /// Make a worker cut off what still runs.
    Cut(WorkerKey),
    /// Open the program anew for a roll; [`Trigger::NoProgram`](super::Trigger::NoProgram) if that fails.
    OpenProgram,
    /// From now on the program of the roll is the current one.
    KeepProgram,
    /// Close the parent's copies of the sockets for clients.
    CloseSockets,
    /// Print the addresses of that worker: it is the first one that is ready.
    FirstReady(WorkerKey),
    /// Reopen the parent's log.
    Reopen,
    /// A roll has ended.
    RollEnded(RollEnd),
    /// Log a line.
    Log(Level, String),
    /// End with that code, and say why if there is a reason.
    Exit(u8, Option<String>),
}

/// The program of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramChoice {
    /// The one of the start or of the last completed roll.
    Current,
    /// The one of the running roll.
    OfRoll,
}

/// A signal to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerSignal {
    /// To reopen its log.
    Hup,
    /// To end and leave a core file: it is hung.
    Abrt,
    /// To end.
    Kill,
}

/// The level of a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As expected.
    Info,
    /// To look at.
    Warn,
    /// It needs an operator.
    Error,
}
