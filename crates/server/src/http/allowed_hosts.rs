//! The host names that a node serves.

use axum::body::Body;
use axum::response::Response;
use http::header::{HOST, LOCATION};
use http::uri::Authority;
use http::{HeaderValue, Request, StatusCode};
use phalanx_core::config::Web;

use super::identity::{Peer, scheme};

/// Redirects a client whose host is not in `web.allowed_hosts` to the first of them; `None` if no redirect is needed.
pub(super) fn redirect<B>(request: &Request<B>, peer: &Peer, settings: &Web) -> Option<Response> {
    let first = settings.allowed_hosts.first()?;
    let (uri, headers) = (request.uri(), request.headers());
    let host_header = || headers.get(HOST)?.to_str().ok();
    let host = uri.authority().map(Authority::as_str).or_else(host_header).unwrap_or_default();
    let origin = format!("{}://{host}", scheme(peer, headers, settings));
    if settings.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(&origin)) {
        return None;
    }
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let target = format!("{first}{}", if path.starts_with('/') { path } else { "" });
    let location = HeaderValue::from_bytes(target.as_bytes());
    let mut response = Response::new(Body::from(format!("You are being redirected to {target}\r\n")));
    *response.status_mut() = StatusCode::FOUND;
    // Every byte that a path may contain is valid in a header.
    response.headers_mut().extend(location.ok().map(|location| (LOCATION, location)));
    Some(response)
}
