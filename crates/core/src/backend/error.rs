//! The error of a backend.

use std::error::Error;
use std::time::Duration;

use crate::error::{ActionError, ErrorKind};

/// Why a backend did not carry out an operation.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// It did not answer: whether the operation took effect is unknown.
    #[error("the backend does not answer: {0}")]
    Unavailable(Box<dyn Error + Send + Sync>),
    /// It replied that it does not carry out the operation: nothing was changed.
    #[error("the backend refuses: {0}")]
    Refused(Box<dyn Error + Send + Sync>),
    /// It replied that the operation failed half-way: a part of it may have taken effect.
    #[error("the backend failed half-way: {0}")]
    Failed(Box<dyn Error + Send + Sync>),
    /// It is stored, but in fewer copies than the settings require: it may be lost with the server that has it.
    #[error("stored, and confirmed by {confirmed} of {wanted} replicas in time")]
    NotReplicated {
        /// How many replicas confirmed it.
        confirmed: u64,
        /// How many are required.
        wanted: usize,
    },
    /// The value under the key is of another kind.
    #[error("what is stored under {key:?} is of another kind")]
    WrongKind {
        /// The key.
        key: String,
    },
    /// It is full; nothing was stored.
    #[error("the backend is full")]
    Full,
    /// The key is locked by another owner.
    #[error("{key:?} is locked")]
    Locked {
        /// The key.
        key: String,
    },
}

impl BackendError {
    /// An `Unavailable` with a reason in words.
    pub fn unavailable(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(reason.into())
    }

    /// The same for another call that shared its fate, with the reason in words.
    pub fn for_another_call(&self) -> Self {
        let reason = |cause: &(dyn Error + Send + Sync)| cause.to_string().into();
        match self {
            Self::Unavailable(cause) => Self::Unavailable(reason(&**cause)),
            Self::Refused(cause) => Self::Refused(reason(&**cause)),
            Self::Failed(cause) => Self::Failed(reason(&**cause)),
            Self::NotReplicated { confirmed, wanted } => Self::NotReplicated { confirmed: *confirmed, wanted: *wanted },
            Self::WrongKind { key } => Self::WrongKind { key: key.clone() },
            Self::Full => Self::Full,
            Self::Locked { key } => Self::Locked { key: key.clone() },
        }
    }

    /// A `Refused` with a reason in words.
    pub fn refused(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Refused(reason.into())
    }
}

impl From<BackendError> for ActionError {
    fn from(error: BackendError) -> Self {
        let unavailable =
            |message: &'static str| Self::of(ErrorKind::Unavailable, message).with_retry_after(Duration::from_secs(1));
        match error {
            BackendError::Unavailable(_) => {
                unavailable("the backend did not answer: whether it happened is unknown").with_source(error)
            }
            BackendError::Refused(_) => unavailable("the backend refused it: nothing was changed").with_source(error),
            BackendError::Failed(_) => {
                unavailable("the backend failed half-way: a part of it may have happened").with_source(error)
            }
            BackendError::NotReplicated { .. } => {
                let message = "it is stored, but replicas of the backend did not confirm it: it may be lost";
                let error = Self::new(ErrorKind::Unavailable, "not_replicated", message).with_source(error);
                error.with_retry_after(Duration::from_secs(1))
            }
            BackendError::Full => {
                Self::of(ErrorKind::Unavailable, "the backend is full, nothing was stored").with_source(error)
            }
            BackendError::Locked { .. } => {
                Self::new(ErrorKind::Conflict, "locked", "somebody else holds the lock").with_source(error)
            }
            BackendError::WrongKind { .. } => Self::internal(error),
        }
    }
}
