//! The error of an action: one kind, one stable code, one public message.

mod results;

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use http::HeaderMap;
use metrics::counter;
use tracing::error;

pub use results::{OrInternal, OrNotFound};

/// The kind of an error, in terms that every transport can express.
///
/// Closed on purpose: a new kind must be handled by every transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request could not be parsed.
    Malformed,
    /// The action requires a signed-in caller, and there is none.
    Unauthenticated,
    /// The caller is known and lacks the permission.
    Forbidden,
    /// The action, version, room, connection or record does not exist.
    NotFound,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The request conflicts with the current state.
    Conflict,
    /// The request is larger than the limit.
    PayloadTooLarge,
    /// The content type of the body is not supported.
    UnsupportedMediaType,
    /// The request was parsed, but its fields are not valid.
    InvalidInput,
    /// Too many requests in a period of time.
    RateLimited,
    /// Too many requests of this connection are still running.
    TooManyPending,
    /// A fault of the server; its cause is logged and never sent to the client.
    Internal,
    /// The server is stopping, or a backend refused, or did not answer: then the request may have taken effect.
    Unavailable,
    /// The deadline passed.
    Timeout,
}

impl ErrorKind {
    /// Every kind, in the order of their HTTP status.
    pub const ALL: [Self; 14] = [
        Self::Malformed,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidInput,
        Self::RateLimited,
        Self::TooManyPending,
        Self::Internal,
        Self::Unavailable,
        Self::Timeout,
    ];

    /// The kind's name on the wire, which is also the code of an error that has none of its own.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Conflict => "conflict",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::InvalidInput => "invalid_input",
            Self::RateLimited => "rate_limited",
            Self::TooManyPending => "too_many_pending",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
        }
    }
}

/// One wrong field of an input, or one limit that refuses a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// The path in the input: `address.lines[0]`; empty for the input as a whole.
    pub path: String,
    /// The stable code of the fault: `required`, `type`, `length`, `range`, ….
    pub code: Cow<'static, str>,
    /// The human-readable message; never contains the rejected value.
    pub message: Cow<'static, str>,
    /// The time after which the client may retry, if it is about time: `retryAfterMs`.
    pub retry_after: Option<Duration>,
}

impl Detail {
    /// Makes a detail about the field at `path`.
    pub fn new(
        path: impl Into<String>,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { path: path.into(), code: code.into(), message: message.into(), retry_after: None }
    }

    /// Sets the time after which the client may retry.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

/// The error of an action or a verb: kind, code, message and details for the client, and the cause for the log only.
///
/// One pointer wide. Messages are lower case, without a full stop.
///
/// An application's own error converts into it, so that `?` works in an action. The attribute `#[derive(ActionError)]` writes
/// what an enum of errors needs for that:
///
/// ```
/// use phalanx_core::{ActionError, ErrorKind};
///
/// #[derive(Debug, thiserror::Error)]
/// enum UserError {
///     #[error("that email address is taken")]
///     EmailTaken,
///     #[error("the store failed")]
///     Store(#[from] std::io::Error),
/// }
///
/// impl From<UserError> for ActionError {
///     fn from(error: UserError) -> Self {
///         match error {
///             UserError::EmailTaken => Self::new(ErrorKind::Conflict, "email_taken", error.to_string()),
///             // Logged with its chain of causes; the client sees `internal error`.
///             UserError::Store(_) => Self::internal(error),
///         }
///     }
/// }
///
/// let taken = ActionError::from(UserError::EmailTaken);
/// assert_eq!((taken.kind(), taken.code()), (ErrorKind::Conflict, "email_taken"));
/// let store = ActionError::from(UserError::Store(std::io::Error::other("disk full")));
/// assert_eq!((store.code(), store.message()), ("internal", "internal error"));
/// ```
pub struct ActionError(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    code: Cow<'static, str>,
    message: Cow<'static, str>,
    details: Vec<Detail>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn Error + Send + Sync>>,
    /// Headers that its call has for the answer.
    headers: Option<Box<HeaderMap>>,
    /// Whether the client is shown the source.
    shows_cause: bool,
}

impl ActionError {
    /// A copy of everything that clients get: all but the source.
    pub(crate) fn public_copy(&self) -> Self {
        let Inner { kind, code, message, details, retry_after, .. } = &*self.0;
        let (code, message, details) = (code.clone(), message.clone(), details.clone());
        Self(Box::new(Inner {
            kind: *kind,
            code,
            message,
            details,
            retry_after: *retry_after,
            source: None,
            headers: None,
            shows_cause: false,
        }))
    }

    /// Makes an error with a code of its own, narrower than its kind's name.
    pub fn new(kind: ErrorKind, code: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            code: code.into(),
            message: message.into(),
            details: Vec::new(),
            retry_after: None,
            source: None,
            headers: None,
            shows_cause: false,
        }))
    }

    /// Makes an error whose code is its kind's name.
    pub fn of(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(kind, kind.code(), message)
    }

    /// Hides `source` behind an `internal` error: it is logged with its chain of causes and never sent to the client.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let mut error = Self::of(ErrorKind::Internal, "internal error");
        error.0.source = Some(source.into());
        error
    }

    /// Makes a `not_found` error: the requested thing does not exist.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::of(ErrorKind::NotFound, message)
    }

    /// Makes a `forbidden` error: the caller lacks the permission.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::of(ErrorKind::Forbidden, message)
    }

    /// Makes an `unauthenticated` error: the caller must sign in first.
    pub fn unauthenticated(message: impl Into<Cow<'static, str>>) -> Self {
        Self::of(ErrorKind::Unauthenticated, message)
    }

    /// Makes a `conflict` error: the request conflicts with the current state.
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> Self {
        Self::of(ErrorKind::Conflict, message)
    }

    /// Makes an `invalid_input` error with its faulty fields.
    pub fn invalid_input(details: Vec<Detail>) -> Self {
        let mut error = Self::of(ErrorKind::InvalidInput, "the input is not valid");
        error.0.details = details;
        error
    }

    /// Sets the faulty fields.
    #[must_use]
    pub fn with_details(mut self, details: Vec<Detail>) -> Self {
        self.0.details = details;
        self
    }

    /// Replaces the message.
    #[must_use]
    pub(crate) fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.0.message = message.into();
        self
    }

    /// Sets the time after which the client may retry.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Sets the cause, for the log only.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The headers that its call has for the answer, to be changed.
    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        self.0.headers.get_or_insert_default()
    }

    /// The headers that its call has for the answer, for transports that have them.
    pub fn headers(&self) -> Option<&HeaderMap> {
        self.0.headers.as_deref()
    }

    /// Shows the client the cause of an `internal` error: for transports, and only for a developer on the machine of the
    /// node.
    #[must_use]
    pub fn showing_cause(mut self) -> Self {
        self.show_cause();
        self
    }

    pub(crate) fn show_cause(&mut self) {
        self.0.shows_cause = self.0.kind == ErrorKind::Internal;
    }

    /// The cause, if the client is shown it; [`MAX_SHOWN_CAUSE`] characters at most.
    pub(crate) fn shown_cause(&self) -> Option<String> {
        let source = self.source().filter(|_| self.0.shows_cause)?;
        Some(Chain(source).to_string().chars().take(MAX_SHOWN_CAUSE).collect())
    }

    /// The kind, in terms that every transport can express.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The stable code: the kind's name, or a narrower one.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The message that a client sees.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The faulty fields.
    pub fn details(&self) -> &[Detail] {
        &self.0.details
    }

    /// The time after which the client may retry.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for ActionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for ActionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActionError")
            .field("kind", &self.0.kind)
            .field("code", &self.0.code)
            .field("message", &self.0.message)
            .field("details", &self.0.details)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl Error for ActionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// Most characters of a cause that a developer is shown; the log has all of it.
const MAX_SHOWN_CAUSE: usize = 2_000;

/// Any error of an application.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The error for a name, a version or a route that leads to no action.
pub fn unknown_action() -> ActionError {
    ActionError::not_found("unknown action or invalid apiVersion")
}

/// A panic of the application's code, as an error.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {0}")]
pub struct Panicked(String);

impl Panicked {
    /// The error of what a panic was caught with.
    pub fn with(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self(text.unwrap_or("no message").chars().take(500).collect())
    }
}

/// The error that a caller gets for a panic: `internal`, and no more; the log has the panic's message.
pub fn panicked(panic: &(dyn Any + Send)) -> ActionError {
    ActionError::internal(Panicked::with(panic))
}

/// Counts and logs the panic of a hook or an observer, and returns the error for its caller.
pub(crate) fn report_panic(panic: &(dyn Any + Send)) -> ActionError {
    let refused = panicked(panic);
    counter!("phalanx_hook_panics_total").increment(1);
    error!(cause = %Chain(&refused), "a hook of the application panicked");
    refused
}

/// An error with the causes behind it, for the log. A cause that reads as the error before it is not repeated: wrappers often
/// hand on the text of what they wrap.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An author's error formats itself by the author's code, and the log must survive its panic.
        catch_unwind(AssertUnwindSafe(|| self.write(f))).unwrap_or_else(|_| f.write_str("(its message panicked)"))
    }
}

impl Chain<'_> {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = text(self.0);
        f.write_str(&last)?;
        let mut cause = self.0.source();
        for _ in 0..16 {
            let Some(error) = cause else { break };
            let next = text(error);
            if next != last {
                write!(f, ": {next}")?;
                last = next;
            }
            cause = error.source();
        }
        Ok(())
    }
}

/// The text of one error, which may panic as well.
fn text(error: &dyn Error) -> String {
    catch_unwind(AssertUnwindSafe(|| error.to_string())).unwrap_or_else(|_| "(its message panicked)".to_owned())
}
