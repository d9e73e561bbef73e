//! Reading a request's body: within its size and its time, into params.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use phalanx_core::config::{Config, Web};
use phalanx_core::params::Params;
use phalanx_core::{ActionError, ErrorKind, Node, bound_reached};

use super::multipart;
use super::pace::{Late, Paced};
use crate::bound::Bound;

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

/// What a body may bring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits<'a> {
    pub(super) node: &'a Node,
    /// Whether the client sends it still.
    pub(super) is_sending: &'a Arc<AtomicBool>,
    /// The bytes of all files that wait for their requests.
    pub(super) uploads: &'a Bound,
    /// The action that is asked for; the body may say in which version.
    pub(super) action: &'static str,
}

impl<'a> Limits<'a> {
    pub(super) fn config(&self) -> &'a Config {
        self.node.config()
    }

    /// Whether the action takes any files: what nobody asked for is not stored.
    pub(super) fn takes_files(&self) -> bool {
        self.node.registry().versions(self.action).iter().any(|version| version.takes_files)
    }
}

/// Most bytes of a body, and the setting that says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    bound: &'static str,
    bytes: u64,
}

impl Most {
    fn with_files(settings: &Web) -> Self {
        Self { bound: "web.max_upload", bytes: settings.max_upload.as_u64() }
    }

    fn without_files(settings: &Web) -> Self {
        Self { bound: "web.max_body", bytes: settings.max_body.as_u64() }
    }

    /// Of a body that is read by somebody else.
    pub(super) fn of_any(headers: &HeaderMap, settings: &Web) -> Self {
        let media = headers.get(CONTENT_TYPE).map_or(b"".as_slice(), HeaderValue::as_bytes);
        match media.get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/")) {
            true => Self::with_files(settings),
            false => Self::without_files(settings),
        }
    }

    pub(super) fn bytes(self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }

    /// Refuses a body that says itself that it is larger.
    pub(super) fn check(self, headers: &HeaderMap) -> Result<(), ActionError> {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > self.bytes) { Err(self.exceeded()) } else { Ok(()) }
    }

    pub(super) fn exceeded(self) -> ActionError {
        over(self.bound, "the body is too large")
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

pub(super) fn malformed(message: &'static str) -> ActionError {
    ActionError::of(ErrorKind::Malformed, message)
}

/// A bound was met: it is counted by its name.
pub(super) fn over(bound: &'static str, message: &'static str) -> ActionError {
    bound_reached(bound);
    ActionError::of(ErrorKind::PayloadTooLarge, message)
}
