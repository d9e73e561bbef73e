//! An answer over HTTP, as a test looks at it.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use phalanx_core::http;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The answer to a request.
#[derive(Clone)]
pub struct TestResponse {
    /// Method and path of the request.
    pub(super) request: String,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// More for the message of a failure.
    pub(super) note: String,
}

impl TestResponse {
    /// The status, which compares with numbers: `assert_eq!(response.status(), 401)`.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// All headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The first value of a header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body.
    pub fn bytes(&self) -> &Bytes {
        &self.body
    }

    /// The body as text, other bytes replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// If it is something else: with status and body.
    #[track_caller]
    pub fn json(&self) -> Value {
        self.read()
    }

    /// The body as a value of a type.
    ///
    /// # Panics
    ///
    /// If it is something else: with status and body.
    #[track_caller]
    pub fn read<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of an error, `error.code` of the body; `None` if the body has none.
    pub fn error_code(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        body["error"]["code"].as_str().map(str::to_owned)
    }

    /// Checks that the status is one of success.
    ///
    /// # Panics
    ///
    /// If it is not: with status and body.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.is_success(), "{self:?}");
        self
    }

    /// Checks that this is an error with this code, such as `unauthenticated`.
    ///
    /// # Panics
    ///
    /// If it is not: with status and body.
    #[track_caller]
    pub fn refused(self, code: &str) -> Self {
        assert_eq!(self.error_code().as_deref(), Some(code), "{self:?}");
        self
    }
}

/// Most characters of a body that a failure prints.
const PRINTED: usize = 4000;

impl fmt::Debug for TestResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        let printed: String = text.chars().take(PRINTED).collect();
        let rest = if printed.len() < text.len() { " …" } else { "" };
        write!(f, "{} was answered with {}: {printed}{rest}{}", self.request, self.status, self.note)
    }
}
