//! Ends of an attempt that are neither success nor failure, on their way from the function to the worker.

use std::fmt;
use std::time::Duration;

use crate::error::{ActionError, ErrorKind};

/// The request of a task about its job, instead of a result. It travels as the source of an error, so that a task may use
/// `?` and layers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskControl {
    /// The attempt counts, and the next one comes after this time.
    RetryIn(Duration),
    /// The attempt does not count, and the next one comes after this time.
    Snooze(Duration),
    /// The job fails, for that reason, without a further attempt.
    Cancel(String),
    /// The job is over: neither a success nor a failure.
    Discard,
    /// The attempt learnt that it is to end.
    Ended,
    /// This node cannot decode the input; another version of the application may.
    Undecodable,
}

impl TaskControl {
    /// The request that an error carries.
    pub fn of(error: &ActionError) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref()
    }

    /// The error that carries it.
    pub(crate) fn into_error(self) -> ActionError {
        let (kind, code) = match &self {
            Self::RetryIn(_) => (ErrorKind::Unavailable, "task_retried"),
            Self::Snooze(_) => (ErrorKind::Unavailable, "task_snoozed"),
            Self::Cancel(_) => (ErrorKind::Conflict, "task_cancelled"),
            Self::Discard => (ErrorKind::Conflict, "task_discarded"),
            Self::Ended => (ErrorKind::Conflict, "task_ended"),
            Self::Undecodable => (ErrorKind::InvalidInput, "invalid_input"),
        };
        ActionError::new(kind, code, self.to_string()).with_source(self)
    }
}

impl fmt::Display for TaskControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RetryIn(pause) => write!(f, "the task is to run again in {pause:?}"),
            Self::Snooze(pause) => write!(f, "the task is to run in {pause:?} instead"),
            Self::Cancel(reason) => f.write_str(reason),
            Self::Discard => f.write_str("the task discards its job"),
            Self::Ended => f.write_str("the attempt is to end"),
            Self::Undecodable => f.write_str("the input cannot be decoded"),
        }
    }
}

impl std::error::Error for TaskControl {}
