//! Turns the outcome of a call into a response: status, headers and body.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, EXPIRES, Entry, HeaderMap, HeaderName, HeaderValue,
    RETRY_AFTER, SET_COOKIE,
};
use http::{Method, StatusCode};
use phalanx_core::action;
use phalanx_core::answer::BodySource;
use phalanx_core::error::Chain;
use phalanx_core::protocol::{error_body, splice_fields};
use phalanx_core::{ActionError, Engine, ErrorKind, files};
use tracing::error;

use super::stream_end::end_with_node;
use super::{exchange, static_files};
use crate::wire_error::status_of;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// Responds with an object, to which the debug facts are appended.
pub(super) fn object(
    (status, headers): (StatusCode, HeaderMap),
    object: Bytes,
    debug_fields: Option<String>,
) -> Response {
    let mut response = json(status, with_fields(object, debug_fields));
    add_headers(&mut response, headers);
    response
}

/// Responds with the error of a call; `dispatch` has logged its cause.
pub(super) fn refused(refused: &ActionError, debug_fields: Option<String>) -> Response {
    let object = with_fields(error_body(refused).into(), debug_fields);
    let mut response = with_retry_after(json(status_of(refused.kind()), object), refused);
    if let Some(headers) = refused.headers() {
        add_headers(&mut response, headers.clone());
    }
    response
}

/// Responds with a body; method and headers of the request select a part of a file.
pub(super) async fn with_body(
    (status, headers): (StatusCode, HeaderMap),
    body: phalanx_core::Body,
    request: (&Method, &HeaderMap),
    (engine, finish_stream): (&Engine, bool),
) -> Response {
    let mut response = match body.source {
        BodySource::Bytes(bytes) => Response::new(Body::from(bytes)),
        BodySource::Stream(stream) => {
            // A length that the action announces is kept.
            let is_kept = finish_stream || headers.contains_key(CONTENT_LENGTH);
            let stream = if is_kept { stream } else { end_with_node(stream, engine).boxed() };
            let pieces =
                stream.map(|piece| piece.map_err(|error| Box::new(error) as Box<dyn std::error::Error + Send + Sync>));
            Response::new(Body::from_stream(pieces))
        }
        BodySource::File(path) => match files::open_path(&path).await {
            Ok(file) => static_files::respond(file, request.0, request.1, ACTION_CACHE_CONTROL).await,
            Err(missing) => {
                let mut response = error(&missing.into());
                add_headers(&mut response, staged_of(headers));
                return response;
            }
        },
    };
    if response.status() == StatusCode::OK {
        *response.status_mut() = status;
    }
    if let Some(media) = body.content_type {
        response.headers_mut().insert(CONTENT_TYPE, media);
    }
    add_headers(&mut response, headers);
    response
}

/// Adds the headers that an action set; each name replaces all values that are there.
fn add_headers(response: &mut Response, headers: HeaderMap) {
    if !headers.is_empty() {
        response.headers_mut().extend(headers);
        exchange::keep_cookies_from_shared_caches(response.headers_mut());
    }
}

/// Cookies, the caching that they need and the state of limits, among headers that were meant for another response.
fn staged_of(mut headers: HeaderMap) -> HeaderMap {
    let mut staged = HeaderMap::new();
    for name in [SET_COOKIE, HeaderName::from_static("ratelimit-policy"), HeaderName::from_static("ratelimit")] {
        if let Entry::Occupied(values) = headers.entry(&name) {
            staged.extend(values.remove_entry_mult().1.map(|value| (name.clone(), value)));
        }
    }
    // The answer with a cookie of a session, which no cache may keep.
    if let Some(caching) = headers.remove(CACHE_CONTROL).filter(|caching| caching == "no-store") {
        staged.insert(CACHE_CONTROL, caching);
    }
    staged
}

/// Responds with an error that no action returned.
pub(crate) fn error(refused: &ActionError) -> Response {
    error_with(refused, None)
}

/// Responds with an error that no action returned, and with the debug facts of the request.
pub(super) fn error_with(refused: &ActionError, debug_fields: Option<String>) -> Response {
    log_cause(refused);
    self::refused(refused, debug_fields)
}

/// Forbids shared caches to store a response of the path of actions, unless the action says otherwise: some of them go
/// by extensions, and would keep the answer or the 404 of `/api/me.css` for everybody.
pub(super) fn make_private(response: &mut Response) {
    let headers = response.headers_mut();
    // They are few: to compare their names costs less than to hash one.
    if !headers.keys().any(|name| *name == EXPIRES) {
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static(ACTION_CACHE_CONTROL));
    }
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
pub(super) fn body_timeout(timed_out: &ActionError, debug_fields: Option<String>) -> Response {
    let mut response = error_with(timed_out, debug_fields);
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
    // Room for those that the service adds in production. The next larger map is too large for the allocator's fast path.
    let mut headers = HeaderMap::with_capacity(6);
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
        let seconds = after.as_millis().div_ceil(1000) as u64;
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The `Cache-Control` of what an action returns: only its caller may store it, unless the action sets the header.
const ACTION_CACHE_CONTROL: &str = "private, no-cache";
