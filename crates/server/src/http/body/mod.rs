//! Reads request bodies into params, within limits of size and time.

mod disposition;
mod limits;
mod multipart;
pub(super) mod timeout;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use phalanx_core::params::Params;
use phalanx_core::{ActionError, ErrorKind};

pub(super) use limits::{BodyLimits, BodySizeLimit};
use timeout::{BodyTimeout, TimedBody};

/// Why a body could not be read.
#[derive(Debug)]
pub(super) enum BodyError {
    /// The client gets this error.
    Refused(ActionError),
    /// The client did not send it in time and gets a 408.
    Timeout,
}

impl From<ActionError> for BodyError {
    fn from(error: ActionError) -> Self {
        Self::Refused(error)
    }
}

/// The format of a body, by its media type.
enum BodyFormat {
    Json,
    Form,
    Multipart(String),
}

/// Reads a body into `params`. A body without a content type is not read.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Incoming,
    limits: BodyLimits<'_>,
    params: &mut Params,
) -> Result<(), BodyError> {
    if body.is_end_stream() {
        return Ok(());
    }
    let Some(format) = format_of(headers)? else { return Ok(()) };
    let settings = &limits.config().web;
    let limit = match format {
        BodyFormat::Multipart(_) if limits.takes_files() => BodySizeLimit::with_files(settings),
        BodyFormat::Multipart(_) | BodyFormat::Json | BodyFormat::Form => BodySizeLimit::without_files(settings),
    };
    limit.check(headers)?;
    let body = TimedBody::new(body, settings, limits.is_sending.clone());
    match format {
        BodyFormat::Json => params.set_json_body(&collect(body, limit).await?)?,
        BodyFormat::Form => {
            let bytes = collect(body, limit).await?;
            let text = std::str::from_utf8(&bytes).map_err(|_| malformed("the body is not UTF-8"))?;
            params.push_form(text)?;
        }
        BodyFormat::Multipart(boundary) => multipart::read(body, boundary, limit, limits, params).await?,
    }
    Ok(())
}

fn format_of(headers: &HeaderMap) -> Result<Option<BodyFormat>, ActionError> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(None) };
    let text = disposition::text_of(value.as_bytes());
    let media = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media == "application/json" || (media.starts_with("application/") && media.ends_with("+json")) {
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

async fn collect(body: TimedBody<Incoming>, limit: BodySizeLimit) -> Result<Bytes, BodyError> {
    match Limited::new(body, limit.bytes()).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<BodyTimeout>() => Err(BodyError::Timeout),
        Err(error) if error.is::<LengthLimitError>() => Err(limit.exceeded().into()),
        Err(_) => Err(malformed("the body broke off").into()),
    }
}

fn malformed(message: &'static str) -> ActionError {
    ActionError::of(ErrorKind::Malformed, message)
}
