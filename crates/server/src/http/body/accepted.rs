//! The checks of a body that cost nothing: media type and declared length, before a byte of it is read.

use http::header::{CONTENT_TYPE, HeaderMap};
use phalanx_core::action::ActionDef;
use phalanx_core::{ActionError, ErrorKind};

use super::disposition;
use super::limits::{BodyLimits, BodySizeLimit};
use super::malformed;

/// The format of a body, by its media type.
pub(super) enum BodyFormat {
    Json,
    Form,
    Multipart(String),
    /// The action takes the bytes as they come.
    Raw,
}

/// A body that the head of its request lets in.
pub(in crate::http) struct AcceptedBody {
    pub(super) format: BodyFormat,
    /// Whether files are stored, so that the larger limit holds.
    pub(super) has_files: bool,
    pub(super) limit: BodySizeLimit,
}

/// Refuses a body of `received` bytes that names another version of its action, if that one takes fewer.
pub(super) fn check_other_version(
    other: &ActionDef,
    received: u64,
    has_files: bool,
    limits: BodyLimits<'_>,
) -> Result<(), ActionError> {
    let limit = limits.of_body(other, has_files);
    if received > limit.bytes() as u64 { Err(limit.exceeded()) } else { Ok(()) }
}

/// Checks what the head says of a body: its media type and its length. Returns `None` for a body without a content
/// type, which is not read.
pub(in crate::http) fn accept(
    headers: &HeaderMap,
    limits: BodyLimits<'_>,
) -> Result<Option<AcceptedBody>, ActionError> {
    let format = if limits.action.body.is_raw { Some(BodyFormat::Raw) } else { format_of(headers)? };
    let Some(format) = format else { return Ok(None) };
    let has_files = matches!(format, BodyFormat::Multipart(_)) && limits.takes_files();
    let limit = limits.of_body(limits.action, has_files);
    limit.check(headers)?;
    Ok(Some(AcceptedBody { format, has_files, limit }))
}

fn format_of(headers: &HeaderMap) -> Result<Option<BodyFormat>, ActionError> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(None) };
    let text = disposition::text_of(value.as_bytes());
    let media = text.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/json") {
        return Ok(Some(BodyFormat::Json));
    }
    let media = media.to_ascii_lowercase();
    if media.starts_with("application/") && media.ends_with("+json") {
        return Ok(Some(BodyFormat::Json));
    }
    match media.as_str() {
        "application/x-www-form-urlencoded" => Ok(Some(BodyFormat::Form)),
        "multipart/form-data" => {
            let boundary = disposition::boundary_of(&text).ok_or_else(|| malformed("the body names no boundary"))?;
            Ok(Some(BodyFormat::Multipart(boundary)))
        }
        _ => {
            let message = "send application/json, application/x-www-form-urlencoded or multipart/form-data";
            Err(ActionError::of(ErrorKind::UnsupportedMediaType, message))
        }
    }
}
