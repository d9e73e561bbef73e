//! One HTTP exchange: the request, its state while it is served, its line in the access log, and rules for its
//! response.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, EXPIRES, HeaderValue, SET_COOKIE};
use http::{HeaderMap, Method, Request, Uri};
use http_body::Body as _;
use metrics::counter;
use tokio::time::Instant;
use tracing::info;

use super::body::request::RequestBody;
use super::headers::list_elements;
use super::identity::Identity;
use crate::run_permits::RunPermit;

/// A request as it goes through the service; without a body, or with its shared state. The value is large, so functions
/// take it by reference.
pub(super) type HttpRequest = Request<Option<Arc<RequestBody>>>;

/// The permit of a request under `web.max_requests`, which it keeps until its response is sent.
#[derive(Debug)]
#[expect(dead_code, reason = "their drop is what counts")]
pub(super) enum RequestPermit {
    /// Of a request without a body.
    RunPermit(RunPermit),
    /// Of a request with a body, which gives the permit back while it is awaited.
    Body(BodyPermit),
}

/// The permit that a body has. The body itself may outlive the response: the rest of it is drained.
#[derive(Debug)]
pub(super) struct BodyPermit(Arc<RequestBody>);

impl Drop for BodyPermit {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl RequestPermit {
    pub(super) fn new(run_permit: RunPermit, body: Option<&Arc<RequestBody>>) -> Self {
        let Some(body) = body else { return Self::RunPermit(run_permit) };
        body.set_run_permit(Some(run_permit));
        Self::Body(BodyPermit(body.clone()))
    }
}

/// The state of a request while it is served.
pub(super) struct RequestState {
    /// Its permit under `web.max_requests`. A call that outlives its client takes the permit along.
    pub(super) permit: Option<RequestPermit>,
    /// The matched route, for the log: the path itself may contain secrets.
    pub(super) route: Option<Arc<str>>,
    /// Whether an action was called; the call logs a line of its own then.
    pub(super) called_action: bool,
    /// Whether the action's streams run to their end while the node stops.
    pub(super) finishes_stream: bool,
    /// Whether the response is complete. If the state is dropped before that, the client has disconnected.
    pub(super) has_response: bool,
}

impl Drop for RequestState {
    fn drop(&mut self) {
        if !self.has_response {
            counter!("phalanx_http_clients_left_total").increment(1);
        }
    }
}

/// An entry of the access log for a request that called no action; calls log a line of their own.
pub(super) struct AccessLogEntry {
    method: Method,
    uri: Uri,
    started: Instant,
}

impl AccessLogEntry {
    pub(super) fn of(request: &HttpRequest) -> Self {
        Self { method: request.method().clone(), uri: request.uri().clone(), started: Instant::now() }
    }

    /// Logs the matched route, or else the path without its query: secrets are in path parameters and in the query.
    pub(super) fn log(&self, response: &Response, identity: &Identity, route: Option<&str>) {
        let (method, status) = (&self.method, response.status().as_u16());
        let path = route.unwrap_or_else(|| self.uri.path());
        let took = self.started.elapsed();
        info!(%method, path, status, ?took, remote = %identity.remote().ip(), request = %identity.request);
    }
}

/// Forbids shared caches to store a response with cookies: they would send those of one browser to another.
pub(super) fn keep_cookies_from_shared_caches(headers: &mut HeaderMap) {
    if headers.contains_key(SET_COOKIE) && !is_for_no_shared_cache(headers) {
        headers.remove(EXPIRES);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    }
}

/// Whether no shared cache may store a response. One without an expiry may be stored, and so may one that is `no-cache`:
/// its cookies are sent again with it (RFC 9111, 4.2.2 and 5.2.2.4).
fn is_for_no_shared_cache(headers: &HeaderMap) -> bool {
    let is_private = |name: &str| ["private", "no-store"].iter().any(|private| name.eq_ignore_ascii_case(private));
    list_elements(headers, &CACHE_CONTROL).any(is_private)
}

/// Turns the response to `GET` into the one to `HEAD`: the same headers, no body.
pub(super) fn without_body(response: Response) -> Response {
    let length = response.body().size_hint().exact();
    let mut response = response.map(|_| Body::empty());
    if let Some(length) = length.filter(|length| *length > 0) {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
    response
}
