//! Reading a request's body: within its size and its time, into params.

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

pub(super) use limits::{Limits, Most};
use timeout::{Late, Paced};

/// Why a body could not be read.
#[derive(Debug)]
pub(super) enum BodyError {
    /// The client is told in the usual way.
    Refused(ActionError),
    /// The client did not send it in time: 408.
    Late,
}

impl From<ActionError> for BodyError {
    fn from(error: ActionError) -> Self {
        Self::Refused(error)
    }
}

/// What reads a body, by its media type.
enum Reader {
    Json,
    Form,
    Multipart(String),
}

/// Reads a body into `params`. Without a content type it is not read.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Incoming,
    limits: Limits<'_>,
    params: &mut Params,
) -> Result<(), BodyError> {
    if body.is_end_stream() {
        return Ok(());
    }
    let Some(reader) = reader_of(headers)? else { return Ok(()) };
    let settings = &limits.config().web;
    let most = match reader {
        Reader::Multipart(_) if limits.takes_files() => Most::with_files(settings),
        Reader::Multipart(_) | Reader::Json | Reader::Form => Most::without_files(settings),
    };
    most.check(headers)?;
    let body = Paced::new(body, settings, limits.is_sending.clone());
    match reader {
        Reader::Json => params.set_json_body(&collect(body, most).await?)?,
        Reader::Form => {
            let bytes = collect(body, most).await?;
            let text = std::str::from_utf8(&bytes).map_err(|_| malformed("the body is not UTF-8"))?;
            params.push_form(text)?;
        }
        Reader::Multipart(boundary) => multipart::read(body, boundary, most, limits, params).await?,
    }
    Ok(())
}

fn reader_of(headers: &HeaderMap) -> Result<Option<Reader>, ActionError> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let media = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media == "application/json" || (media.starts_with("application/") && media.ends_with("+json")) {
        return Ok(Some(Reader::Json));
    }
    match media.as_str() {
        "application/x-www-form-urlencoded" => Ok(Some(Reader::Form)),
        "multipart/form-data" => {
            let boundary = multer::parse_boundary(text).map_err(|_| malformed("the body names no boundary"))?;
            Ok(Some(Reader::Multipart(boundary)))
        }
        _ => {
            let message = "send application/json, application/x-www-form-urlencoded or multipart/form-data";
            Err(ActionError::of(ErrorKind::UnsupportedMediaType, message))
        }
    }
}

async fn collect(body: Paced<Incoming>, most: Most) -> Result<Bytes, BodyError> {
    match Limited::new(body, most.bytes()).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<Late>() => Err(BodyError::Late),
        Err(error) if error.is::<LengthLimitError>() => Err(most.exceeded().into()),
        Err(_) => Err(malformed("the body broke off").into()),
    }
}

fn malformed(message: &'static str) -> ActionError {
    ActionError::of(ErrorKind::Malformed, message)
}
