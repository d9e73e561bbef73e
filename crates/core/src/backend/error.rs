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
}

impl From<BackendError> for ActionError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Unavailable(_) => {
                Self::of(ErrorKind::Unavailable, "the backend did not answer: whether it happened is unknown")
                    .with_retry_after(Duration::from_secs(1))
                    .with_source(error)
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
