//! What an action answers when it cannot answer: one kind, one stable code, one public message.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// What went wrong, in terms every transport can express.
///
/// Closed on purpose: a new kind must be answered everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request could not be read at all.
    Malformed,
    /// Nobody is signed in, and somebody must be.
    Unauthenticated,
    /// The caller is known, and may not.
    Forbidden,
    /// There is no such thing: action, version, room, connection, record.
    NotFound,
    /// The path exists, not with this method.
    MethodNotAllowed,
    /// The state of things does not allow it.
    Conflict,
    /// The request is larger than the limit.
    PayloadTooLarge,
    /// No reader knows the content type of the body.
    UnsupportedMediaType,
    /// The request was read, and its fields are wrong.
    InvalidInput,
    /// Too many requests in a span of time.
    RateLimited,
    /// Too many requests of this connection are still running.
    TooManyPending,
    /// A fault of the server; its cause is logged, never told.
    Internal,
    /// The server is stopping, or a backend did not answer: whether it happened is unknown.
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

/// One wrong field of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// Where in the input: `address.lines[0]`; empty for the input as a whole.
    pub path: String,
    /// What is wrong with it, stable: `required`, `type`, `length`, `range`, ….
    pub code: Cow<'static, str>,
    /// The same for people; never contains the rejected value.
    pub message: Cow<'static, str>,
}

impl Detail {
    /// Names what is wrong at `path`.
    pub fn new(
        path: impl Into<String>,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { path: path.into(), code: code.into(), message: message.into() }
    }
}

/// The error of an action or a verb: what the client learns, and beside it the cause that only the log sees.
///
/// One pointer wide. Messages are lower case, without a full stop.
pub struct ActionError(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    code: Cow<'static, str>,
    message: Cow<'static, str>,
    details: Vec<Detail>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl ActionError {
    /// Makes an error with a code of its own, narrower than its kind's name.
    pub fn new(kind: ErrorKind, code: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            code: code.into(),
            message: message.into(),
            details: Vec::new(),
            retry_after: None,
            source: None,
        }))
    }

    /// Makes an error whose code is its kind's name.
    pub fn of(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(kind, kind.code(), message)
    }

    /// Hides `source` behind an `internal` error: it is logged with its chain, the client learns nothing of it.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let mut error = Self::of(ErrorKind::Internal, "internal error");
        error.0.source = Some(source.into());
        error
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::of(ErrorKind::NotFound, message)
    }

    /// The caller may not.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::of(ErrorKind::Forbidden, message)
    }

    /// Somebody must sign in first.
    pub fn unauthenticated(message: impl Into<Cow<'static, str>>) -> Self {
        Self::of(ErrorKind::Unauthenticated, message)
    }

    /// The state of things does not allow it.
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> Self {
        Self::of(ErrorKind::Conflict, message)
    }

    /// The input was read, and these of its fields are wrong.
    pub fn invalid_input(details: Vec<Detail>) -> Self {
        let mut error = Self::of(ErrorKind::InvalidInput, "the input is not valid");
        error.0.details = details;
        error
    }

    /// Adds what is wrong, field by field.
    #[must_use]
    pub fn with_details(mut self, details: Vec<Detail>) -> Self {
        self.0.details = details;
        self
    }

    /// Tells the client when to try again.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Adds the cause, for the log alone.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong, in terms every transport can express.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The stable code: the kind's name, or a narrower one.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The message a client sees.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What is wrong, field by field.
    pub fn details(&self) -> &[Detail] {
        &self.0.details
    }

    /// When the client may try again.
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
