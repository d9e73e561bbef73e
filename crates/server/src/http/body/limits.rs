//! What a body may bring.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use phalanx_core::config::{Config, Web};
use phalanx_core::{ActionError, ErrorKind, Node, bound_reached};

use crate::quota::Bound;

/// What a body may bring.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Limits<'a> {
    pub(in crate::http) node: &'a Node,
    /// Whether the client sends it still.
    pub(in crate::http) is_sending: &'a Arc<AtomicBool>,
    /// The bytes of all files that wait for their requests.
    pub(in crate::http) uploads: &'a Bound,
    /// The action that is asked for; the body may say in which version.
    pub(in crate::http) action: &'static str,
}

impl<'a> Limits<'a> {
    pub(in crate::http) fn config(&self) -> &'a Config {
        self.node.config()
    }

    /// Whether the action takes any files: what nobody asked for is not stored.
    pub(in crate::http) fn takes_files(&self) -> bool {
        self.node.registry().versions(self.action).iter().any(|version| version.takes_files)
    }
}

/// Most bytes of a body, and the setting that says so.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Most {
    bound: &'static str,
    bytes: u64,
}

impl Most {
    pub(super) fn with_files(settings: &Web) -> Self {
        Self { bound: "web.max_upload", bytes: settings.max_upload.as_u64() }
    }

    pub(super) fn without_files(settings: &Web) -> Self {
        Self { bound: "web.max_body", bytes: settings.max_body.as_u64() }
    }

    /// Of a body that is read by somebody else.
    pub(in crate::http) fn of_any(headers: &HeaderMap, settings: &Web) -> Self {
        let media = headers.get(CONTENT_TYPE).map_or(b"".as_slice(), HeaderValue::as_bytes);
        match media.get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/")) {
            true => Self::with_files(settings),
            false => Self::without_files(settings),
        }
    }

    pub(in crate::http) fn bytes(self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }

    /// Refuses a body that says itself that it is larger.
    pub(in crate::http) fn check(self, headers: &HeaderMap) -> Result<(), ActionError> {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > self.bytes) { Err(self.exceeded()) } else { Ok(()) }
    }

    pub(in crate::http) fn exceeded(self) -> ActionError {
        over(self.bound, "the body is too large")
    }
}

/// A bound was met: it is counted by its name.
pub(super) fn over(bound: &'static str, message: &'static str) -> ActionError {
    bound_reached(bound);
    ActionError::of(ErrorKind::PayloadTooLarge, message)
}
