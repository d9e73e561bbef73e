//! The limits of a request body.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use phalanx_core::action::{ActionDef, BodyRules};
use phalanx_core::config::{Config, Web};
use phalanx_core::{ActionError, BoxError, Engine, ErrorKind, bound_reached};

use crate::quota::Quota;
use crate::shares::AddressShare;

/// Everything that limits the body of a call.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct BodyLimits<'a> {
    pub(in crate::http) engine: &'a Engine,
    /// The quota for the bytes of all uploaded files of the node.
    pub(in crate::http) uploads: &'a Quota,
    /// The quota for the bytes of all bodies in memory.
    pub(in crate::http) memory: &'a Quota,
    /// The share of the client's address.
    pub(in crate::http) share: Option<&'a Arc<AddressShare>>,
    /// The called action; the body may name another version of it.
    pub(in crate::http) action: &'static ActionDef,
}

impl<'a> BodyLimits<'a> {
    pub(in crate::http) fn config(&self) -> &'a Config {
        self.engine.config()
    }

    /// The limit of everything that is kept in memory: of a body without files, of the fields beside files.
    pub(in crate::http) fn without_files(&self) -> BodySizeLimit {
        BodySizeLimit::without_files(&self.config().web, self.action.body)
    }

    /// The limit of a whole body, which may have files.
    pub(super) fn of_body(&self, action: &ActionDef, has_files: bool) -> BodySizeLimit {
        let settings = &self.config().web;
        if has_files {
            BodySizeLimit::with_files(settings, action.body)
        } else {
            BodySizeLimit::without_files(settings, action.body)
        }
    }

    /// Whether any version of the action takes files; otherwise uploaded files are not stored.
    pub(in crate::http) fn takes_files(&self) -> bool {
        self.engine.registry().versions(self.action.name).iter().any(|version| version.takes_files)
    }
}

/// Checks that the bounds of the node hold one body of each action.
///
/// # Errors
///
/// A sentence for the first action whose own bound is larger.
pub(in crate::http) fn check_actions(engine: &Engine) -> Result<(), BoxError> {
    let web = &engine.config().web;
    for ActionDef { name, body, .. } in engine.registry().actions().map(|action| action.def) {
        if body.max_body.is_some_and(|bytes| bytes > web.max_bodies_total.as_u64()) {
            return Err(format!("action {name:?}: max_body is more than web.max_bodies_total").into());
        }
        if body.max_upload.is_some_and(|bytes| bytes > web.max_uploads_total.as_u64()) {
            return Err(format!("action {name:?}: max_upload is more than web.max_uploads_total").into());
        }
    }
    Ok(())
}

/// The maximum size of a body, and the setting that defines it.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct BodySizeLimit {
    setting: &'static str,
    bytes: u64,
}

impl BodySizeLimit {
    fn with_files(settings: &Web, action: BodyRules) -> Self {
        let default = Self { setting: "web.max_upload", bytes: settings.max_upload.as_u64() };
        action.max_upload.map_or(default, |bytes| Self { setting: "action.max_upload", bytes })
    }

    fn without_files(settings: &Web, action: BodyRules) -> Self {
        let default = Self { setting: "web.max_body", bytes: settings.max_body.as_u64() };
        action.max_body.map_or(default, |bytes| Self { setting: "action.max_body", bytes })
    }

    /// The limit of a body that is not read by an action, by its media type.
    pub(in crate::http) fn for_headers(headers: &HeaderMap, settings: &Web) -> Self {
        let value = headers.get(CONTENT_TYPE).map_or(b"".as_slice(), HeaderValue::as_bytes);
        let media = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if media.eq_ignore_ascii_case(b"multipart/form-data") {
            Self::with_files(settings, BodyRules::DEFAULT)
        } else {
            Self::without_files(settings, BodyRules::DEFAULT)
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
        self.exceeded_by("the body is too large")
    }

    pub(super) fn exceeded_by(self, message: &'static str) -> ActionError {
        limit_exceeded(self.setting, message)
    }
}

/// Counts that a limit was exceeded, and returns the error.
pub(super) fn limit_exceeded(setting: &'static str, message: &'static str) -> ActionError {
    bound_reached(setting);
    ActionError::of(ErrorKind::PayloadTooLarge, message)
}
