//! Why a remote call has no result.

use std::time::Duration;

use crate::backend::{BackendError, InteropError};
use crate::error::{ActionError, ErrorKind};

/// Why a call to a connection or a node has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// No connection has that id.
    #[error("there is no such connection")]
    NotFound,
    /// The connection has no such method; nothing ran.
    #[error("connections have no such method")]
    UnknownMethod,
    /// Its node does not receive: nothing ran, it is safe to try again.
    #[error("the node of the connection cannot be reached")]
    Unreachable,
    /// No reply came in time; whether the method ran is unknown.
    #[error("the connection did not answer in time")]
    Late,
    /// The method's own error.
    #[error(transparent)]
    Refused(ActionError),
}

impl From<ApplyError> for ActionError {
    fn from(error: ApplyError) -> Self {
        let message = error.to_string();
        match error {
            ApplyError::NotFound => Self::not_found(message),
            ApplyError::UnknownMethod => Self::new(ErrorKind::NotFound, "unknown_method", message),
            ApplyError::Unreachable => {
                Self::new(ErrorKind::Unavailable, "unreachable", message).with_retry_after(Duration::from_secs(1))
            }
            ApplyError::Late => Self::new(ErrorKind::Timeout, "late", message),
            ApplyError::Refused(error) => error,
        }
    }
}

impl From<ActionError> for ApplyError {
    fn from(error: ActionError) -> Self {
        Self::Refused(error)
    }
}

impl From<BackendError> for ApplyError {
    fn from(error: BackendError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<InteropError> for ApplyError {
    fn from(error: InteropError) -> Self {
        match error {
            InteropError::UnknownMethod => Self::UnknownMethod,
            InteropError::Late => Self::Late,
            InteropError::Refused(error) => Self::Refused(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_of_a_call_has_its_code_and_kind() {
        for (error, code, kind) in [
            (ApplyError::NotFound, "not_found", ErrorKind::NotFound),
            (ApplyError::UnknownMethod, "unknown_method", ErrorKind::NotFound),
            (ApplyError::Unreachable, "unreachable", ErrorKind::Unavailable),
            (ApplyError::Late, "late", ErrorKind::Timeout),
            (ApplyError::Refused(ActionError::forbidden("no")), "forbidden", ErrorKind::Forbidden),
        ] {
            let error = ActionError::from(error);
            assert_eq!((error.code(), error.kind()), (code, kind));
        }
    }
}
