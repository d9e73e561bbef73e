//! Turns the outcome of a call into a response: status, headers and body.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, EXPIRES, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use phalanx_core::action;
use phalanx_core::answer::{Answer, BodySource, Content, Outcome};
use phalanx_core::error::Chain;
use phalanx_core::protocol::{error_body, splice_fields};
use phalanx_core::{ActionError, ErrorKind, files};
use tracing::error;

use super::body::timeout::BodyTimeout;
use super::static_files;
use crate::wire_error::status_of;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// The parts of a request, and the debug facts, that shape its response besides the outcome.
pub(super) struct ResponseContext<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    /// The fields of [`DebugInfo`](super::debug_info::DebugInfo), to be appended to a JSON object.
    pub(super) debug_fields: Option<String>,
}

/// Turns an outcome into a response.
pub(super) async fn respond(outcome: Outcome, context: ResponseContext<'_>) -> Response {
    match outcome {
        Ok(Answer { status, headers, content, .. }) => {
            let mut response = match content {
                Content::Json(object) => json(status, with_fields(object, context.debug_fields)),
                Content::Body(body) => match Box::pin(with_body(status, body, &context)).await {
                    Ok(response) => response,
                    Err(refused) => return error(&refused),
                },
            };
            if !headers.is_empty() {
                response.headers_mut().extend(headers); // each name replaces all values that are there
            }
            response
        }
        // `dispatch` has logged its cause.
        Err(refused) => {
            let object = with_fields(error_body(&refused).into(), context.debug_fields);
            with_retry_after(json(status_of(refused.kind()), object), &refused)
        }
    }
}

/// Responds with an error that no action returned.
pub(crate) fn error(refused: &ActionError) -> Response {
    error_with(refused, None)
}

/// Responds with an error that no action returned, and with the debug facts of the request.
pub(super) fn error_with(refused: &ActionError, debug_fields: Option<String>) -> Response {
    log_cause(refused);
    let object = with_fields(error_body(refused).into(), debug_fields);
    with_retry_after(json(status_of(refused.kind()), object), refused)
}

/// Forbids shared caches to store a response of the path of actions, unless the action says otherwise: some of them go
/// by extensions, and would keep the answer or the 404 of `/api/me.css` for everybody.
pub(super) fn private(mut response: Response) -> Response {
    let headers = response.headers_mut();
    if !headers.contains_key(EXPIRES) {
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static(ACTION_CACHE_CONTROL));
    }
    response
}

/// Logs the cause of an `internal` error: the client gets none of it.
pub(super) fn log_cause(refused: &ActionError) {
    if refused.kind() == ErrorKind::Internal {
        error!(cause = %Chain(refused), "a request failed");
    }
}

/// Responds that the path exists, but not with this method.
pub(super) fn method_not_allowed(allowed: &str, debug_fields: Option<String>) -> Response {
    let refused = ActionError::of(ErrorKind::MethodNotAllowed, "this path does not answer that method");
    let mut response = error_with(&refused, debug_fields);
    response.headers_mut().insert(ALLOW, allow(allowed));
    response
}

/// Responds to the methods that a read-only path does not serve; `None` for `GET` and `HEAD`.
pub(super) fn refuse_unless_read(method: &Method) -> Option<Response> {
    const METHODS: &str = "GET, HEAD, OPTIONS";
    match *method {
        Method::GET | Method::HEAD => None,
        Method::OPTIONS => Some(options(METHODS)),
        _ => Some(method_not_allowed(METHODS, None)),
    }
}

/// Responds to `OPTIONS`.
pub(crate) fn options(allowed: &str) -> Response {
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(ALLOW, allow(allowed));
    response
}

/// Responds 408: the client did not send its body in time.
pub(super) fn body_timeout(debug_fields: Option<String>) -> Response {
    let mut response = error_with(&BodyTimeout.into(), debug_fields);
    *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
    response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Lists the methods of a path for `Allow`.
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
    let mut headers = HeaderMap::with_capacity(8); // room for those that the service adds
    headers.insert(CONTENT_TYPE, JSON);
    let mut response = Response::new(Body::from(object));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Turns `{…}` into `{…,<fields>}`.
fn with_fields(object: Bytes, fields: Option<String>) -> Bytes {
    match fields {
        Some(fields) => splice_fields(&object, &[fields.as_bytes()]),
        None => object,
    }
}

/// Adds `Retry-After` where the error says or implies one.
fn with_retry_after(mut response: Response, refused: &ActionError) -> Response {
    let unavailable = (refused.kind() == ErrorKind::Unavailable).then_some(Duration::from_secs(1));
    if let Some(after) = refused.retry_after().or(unavailable) {
        let seconds = after.as_millis().div_ceil(1000).max(1) as u64;
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The `Cache-Control` of what an action returns: only its caller may store it, unless the action sets the header.
const ACTION_CACHE_CONTROL: &str = "private, no-cache";

async fn with_body(
    status: StatusCode,
    body: phalanx_core::Body,
    context: &ResponseContext<'_>,
) -> Result<Response, ActionError> {
    let mut response = match body.source {
        BodySource::Bytes(bytes) => Response::new(Body::from(bytes)),
        BodySource::Stream(stream) => {
            let pieces =
                stream.map(|piece| piece.map_err(|error| Box::new(error) as Box<dyn std::error::Error + Send + Sync>));
            Response::new(Body::from_stream(pieces))
        }
        BodySource::File(path) => {
            let file = files::open_path(&path).await?;
            static_files::respond(file, context.method, context.headers, ACTION_CACHE_CONTROL).await
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
