//! Short ways from a `bool`, an `Option` or any other error to an [`ActionError`].

use super::{ActionError, BoxError};

/// Ends the function with an error unless a condition holds.
///
/// ```
/// use phalanx_core::{ActionError, ensure};
///
/// fn close(ticket: u64, is_agent: bool) -> Result<u64, ActionError> {
///     ensure!(is_agent, ActionError::forbidden("agents only"));
///     Ok(ticket)
/// }
///
/// assert_eq!(close(7, false).unwrap_err().code(), "forbidden");
/// ```
///
/// The error is made only if it is needed, and converts as by `?`: it may be one of the application's own.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $error:expr $(,)?) => {
        if $condition {
        } else {
            return ::core::result::Result::Err(::core::convert::From::from($error));
        }
    };
}

/// `or_not_found` of an `Option`.
pub trait OrNotFound<T> {
    /// The value, or `not_found`.
    ///
    /// ```
    /// use phalanx_core::{ActionError, OrNotFound};
    ///
    /// fn first(words: &[&'static str]) -> Result<&'static str, ActionError> {
    ///     words.first().copied().or_not_found()
    /// }
    ///
    /// assert_eq!(first(&[]).unwrap_err().code(), "not_found");
    /// ```
    ///
    /// # Errors
    ///
    /// `not_found` if there is none. A message of one's own: `.ok_or_else(|| ActionError::not_found("no such ticket"))`.
    fn or_not_found(self) -> Result<T, ActionError>;
}

impl<T> OrNotFound<T> for Option<T> {
    fn or_not_found(self) -> Result<T, ActionError> {
        self.ok_or_else(|| ActionError::not_found("it does not exist"))
    }
}

/// `or_internal` of a `Result`.
pub trait OrInternal<T> {
    /// The value, or `internal` with the error as its cause, for the log alone: for errors that are the fault of the
    /// server alone. An [`ActionError`] needs none: `?` hands it on with its kind, which this would hide.
    ///
    /// ```
    /// use phalanx_core::{ActionError, OrInternal};
    ///
    /// fn read(path: &str) -> Result<String, ActionError> {
    ///     std::fs::read_to_string(path).or_internal()
    /// }
    ///
    /// let error = read("/does/not/exist").unwrap_err();
    /// assert_eq!((error.code(), error.message()), ("internal", "internal error"));
    /// ```
    ///
    /// # Errors
    ///
    /// `internal` if it is an error.
    fn or_internal(self) -> Result<T, ActionError>;
}

impl<T, E: Into<BoxError>> OrInternal<T> for Result<T, E> {
    fn or_internal(self) -> Result<T, ActionError> {
        self.map_err(ActionError::internal)
    }
}
