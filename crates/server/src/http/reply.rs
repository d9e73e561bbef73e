//! The outcome of a call as a response: status, headers and body.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use phalanx_core::action;
use phalanx_core::answer::{Answer, BodySource, Content, Outcome};
use phalanx_core::dispatch::Chain;
use phalanx_core::{ActionError, ErrorKind, files};

use tracing::error;

use super::static_files;
use crate::wire_error::{body_of, status_of};

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// What a response depends on besides the outcome.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    /// What is said of server and requester in development, as the inner of a JSON object.
    pub(super) metadata: Option<String>,
}

/// Turns an outcome into a response.
pub(super) async fn respond(outcome: Outcome, asked: Asked<'_>) -> Response {
    match outcome {
        Ok(Answer { status, headers, content, .. }) => {
            let mut response = match content {
                Content::Json(object) => json(status, with_metadata(object, asked.metadata)),
                Content::Body(body) => match Box::pin(with_body(status, body, &asked)).await {
                    Ok(response) => response,
                    Err(refused) => return error(&refused),
                },
            };
            if !headers.is_empty() {
                response.headers_mut().extend(headers); // each name replaces what stands there, with all its values
            }
            response
        }
        Err(refused) => {
            let object = with_metadata(body_of(&refused).into(), asked.metadata);
            with_hints(json(status_of(refused.kind()), object), &refused)
        }
    }
}

/// An error on its own.
pub(crate) fn error(refused: &ActionError) -> Response {
    log_cause(refused);
    with_hints(json(status_of(refused.kind()), body_of(refused).into()), refused)
}

/// The client learns nothing of why something is `internal`, so the log has to.
pub(super) fn log_cause(refused: &ActionError) {
    if refused.kind() == ErrorKind::Internal {
        error!(cause = %Chain(refused), "a request failed");
    }
}

/// The path exists, the method does not.
pub(super) fn method_not_allowed(allowed: &str) -> Response {
    let mut response = error(&ActionError::of(ErrorKind::MethodNotAllowed, "this path does not answer that method"));
    response.headers_mut().insert(ALLOW, allow(allowed));
    response
}

/// What a path that can only be read answers to other methods.
pub(super) fn unless_read(method: &Method) -> Option<Response> {
    const METHODS: &str = "GET, HEAD, OPTIONS";
    match *method {
        Method::GET | Method::HEAD => None,
        Method::OPTIONS => Some(options(METHODS)),
        _ => Some(method_not_allowed(METHODS)),
    }
}

/// What `OPTIONS` is answered with.
pub(crate) fn options(allowed: &str) -> Response {
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(ALLOW, allow(allowed));
    response
}

/// The client did not send its body in time.
pub(super) fn late() -> Response {
    let refused = ActionError::new(ErrorKind::Timeout, "request_timeout", "the body did not come in time");
    let mut response = error(&refused);
    *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
    response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The methods of a path, for `Allow`.
pub(super) fn allowed_methods(methods: impl Iterator<Item = action::Method>) -> String {
    let mut names: Vec<&str> = methods.map(action::Method::as_str).collect();
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    names.push("OPTIONS");
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

fn allow(methods: &str) -> HeaderValue {
    HeaderValue::from_str(methods).unwrap_or(HeaderValue::from_static("OPTIONS"))
}

fn json(status: StatusCode, object: Bytes) -> Response {
    let mut headers = HeaderMap::with_capacity(8); // what the shell adds needs no second allocation
    headers.insert(CONTENT_TYPE, JSON);
    let mut response = Response::new(Body::from(object));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// `{…}` becomes `{…,<metadata>}`.
fn with_metadata(object: Bytes, metadata: Option<String>) -> Bytes {
    let Some(metadata) = metadata else { return object };
    let mut text = Vec::with_capacity(object.len() + metadata.len() + 1);
    text.extend_from_slice(&object[..object.len() - 1]);
    if object.len() > 2 {
        text.push(b',');
    }
    text.extend_from_slice(metadata.as_bytes());
    text.push(b'}');
    text.into()
}

fn with_hints(mut response: Response, refused: &ActionError) -> Response {
    let unavailable = (refused.kind() == ErrorKind::Unavailable).then_some(Duration::from_secs(1));
    if let Some(after) = refused.retry_after().or(unavailable) {
        let seconds = after.as_millis().div_ceil(1000).max(1) as u64;
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Nobody but the caller may keep what an action sends, unless the action says so.
const OF_AN_ACTION: &str = "private, no-cache";

async fn with_body(status: StatusCode, body: phalanx_core::Body, asked: &Asked<'_>) -> Result<Response, ActionError> {
    let mut response = match body.source {
        BodySource::Bytes(bytes) => Response::new(Body::from(bytes)),
        BodySource::Stream(stream) => {
            let pieces =
                stream.map(|piece| piece.map_err(|error| Box::new(error) as Box<dyn std::error::Error + Send + Sync>));
            Response::new(Body::from_stream(pieces))
        }
        BodySource::File(path) => {
            let file = files::open_path(&path).await?;
            static_files::respond(file, asked.method, asked.headers, OF_AN_ACTION).await
        }
    };
    if response.status() == StatusCode::OK {
        *response.status_mut() = status;
    }
    if let Some(media) = body.content_type {
        response.headers_mut().insert(CONTENT_TYPE, media);
    }
    Ok(response)
}
