//! The names a node may be called by.

use axum::body::Body;
use axum::response::Response;
use http::header::{HOST, LOCATION};
use http::uri::Authority;
use http::{HeaderValue, Request, StatusCode};
use phalanx_core::config::Web;

use super::identity::{Peer, scheme};

/// Sends a client that came by a name which is not among `web.allowed_hosts` to the first of them.
pub(super) fn elsewhere<B>(request: &Request<B>, peer: &Peer, settings: &Web) -> Option<Response> {
    let first = settings.allowed_hosts.first()?;
    let (uri, headers) = (request.uri(), request.headers());
    let named = || headers.get(HOST)?.to_str().ok();
    let host = uri.authority().map(Authority::as_str).or_else(named).unwrap_or_default();
    let asked = format!("{}://{host}", scheme(peer, headers, settings));
    if settings.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(&asked)) {
        return None;
    }
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let target = format!("{first}{}", if path.starts_with('/') { path } else { "" });
    let location = HeaderValue::from_bytes(target.as_bytes());
    let mut response = Response::new(Body::from(format!("You are being redirected to {target}\r\n")));
    *response.status_mut() = StatusCode::FOUND;
    // A path holds no byte that a header may not.
    response.headers_mut().extend(location.ok().map(|location| (LOCATION, location)));
    Some(response)
}
