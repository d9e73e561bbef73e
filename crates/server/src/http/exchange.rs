//! One request and its response.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, EXPIRES};
use http::{HeaderMap, Method, Request, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use metrics::counter;
use tokio::time::Instant;
use tracing::info;

use super::identity::Identity;
use crate::quota::Share;

/// A request, until somebody takes it or a part of it. It is large, so it is handed on by reference.
pub(super) type Asking = Request<Option<Incoming>>;

/// What becomes of a request while it is served.
pub(super) struct Serving {
    /// Its place among those served at once. A call that outlives its client takes it along.
    pub(super) place: Option<Share>,
    /// The route it took, for the log: its path may hold what nobody should read.
    pub(super) route: Option<Arc<str>>,
    /// Whether an action was called; it has a line in the log then.
    pub(super) is_call: bool,
    pub(super) is_answered: bool,
}

impl Drop for Serving {
    fn drop(&mut self) {
        if !self.is_answered {
            counter!("phalanx_http_clients_left_total").increment(1);
        }
    }
}

/// What the log says of a request that reached no action; those that did have a line of their own.
pub(super) struct Asked {
    method: Method,
    uri: Uri,
    started: Instant,
}

impl Asked {
    pub(super) fn of(request: &Asking) -> Self {
        Self { method: request.method().clone(), uri: request.uri().clone(), started: Instant::now() }
    }

    /// The route where one was taken, else the path without its query: what nobody should read stands in the rest.
    pub(super) fn log(&self, response: &Response, identity: &Identity, route: Option<&str>) {
        let (method, status) = (&self.method, response.status().as_u16());
        let path = route.unwrap_or_else(|| self.uri.path());
        let took = self.started.elapsed();
        info!(%method, path, status, ?took, remote = %identity.remote.ip(), request = %identity.request);
    }
}

/// Whether shared caches may keep a response: it says for how long, and not that it is somebody's.
pub(super) fn is_for_all(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let mut directives = lines.flat_map(|line| line.split(',')).map(str::trim).peekable();
    let is_dated = directives.peek().is_some() || headers.contains_key(EXPIRES);
    is_dated
        && !directives.any(|name| ["private", "no-store", "no-cache"].iter().any(|own| name.eq_ignore_ascii_case(own)))
}

/// What `HEAD` answers: everything that `GET` does, less the body.
pub(super) fn without_body(response: Response) -> Response {
    let length = response.body().size_hint().exact();
    let mut response = response.map(|_| Body::empty());
    if let Some(length) = length.filter(|length| *length > 0) {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
    response
}
