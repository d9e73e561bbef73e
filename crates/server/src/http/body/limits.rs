//! The limits of a request body.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use phalanx_core::config::{Config, Web};
use phalanx_core::{ActionError, Engine, ErrorKind, bound_reached};

use crate::quota::Quota;

/// Everything that limits the body of a call.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct BodyLimits<'a> {
    pub(in crate::http) engine: &'a Engine,
    /// Whether the client may still be sending it.
    pub(in crate::http) is_sending: &'a Arc<AtomicBool>,
    /// The quota for the bytes of all uploaded files of the node.
    pub(in crate::http) uploads: &'a Quota,
    /// The name of the called action; the body may name its version.
    pub(in crate::http) action: &'static str,
}

impl<'a> BodyLimits<'a> {
    pub(in crate::http) fn config(&self) -> &'a Config {
        self.engine.config()
    }

    /// Whether any version of the action takes files; otherwise uploaded files are not stored.
    pub(in crate::http) fn takes_files(&self) -> bool {
        self.engine.registry().versions(self.action).iter().any(|version| version.takes_files)
    }
}

/// The maximum size of a body, and the setting that defines it.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct BodySizeLimit {
    setting: &'static str,
    bytes: u64,
}

impl BodySizeLimit {
    pub(super) fn with_files(settings: &Web) -> Self {
        Self { setting: "web.max_upload", bytes: settings.max_upload.as_u64() }
    }

    pub(super) fn without_files(settings: &Web) -> Self {
        Self { setting: "web.max_body", bytes: settings.max_body.as_u64() }
    }

    /// The limit of a body that is not read by an action, by its media type.
    pub(in crate::http) fn for_headers(headers: &HeaderMap, settings: &Web) -> Self {
        let media = headers.get(CONTENT_TYPE).map_or(b"".as_slice(), HeaderValue::as_bytes);
        if media.get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/")) {
            Self::with_files(settings)
        } else {
            Self::without_files(settings)
        }
    }

    pub(in crate::http) fn bytes(self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }

    /// Refuses a body whose `Content-Length` exceeds the limit.
    pub(in crate::http) fn check(self, headers: &HeaderMap) -> Result<(), ActionError> {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > self.bytes) { Err(self.exceeded()) } else { Ok(()) }
    }

    pub(in crate::http) fn exceeded(self) -> ActionError {
        limit_exceeded(self.setting, "the body is too large")
    }
}

/// Counts that a limit was exceeded, and returns the error.
pub(super) fn limit_exceeded(setting: &'static str, message: &'static str) -> ActionError {
    bound_reached(setting);
    ActionError::of(ErrorKind::PayloadTooLarge, message)
}
