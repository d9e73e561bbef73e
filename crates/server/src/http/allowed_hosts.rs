//! The origins under which clients may reach a node.

use axum::body::Body;
use axum::response::Response;
use http::header::LOCATION;
use http::{HeaderValue, Request, StatusCode, Version};
use phalanx_core::config::{Web, WebOrigin};

use super::forwarded::{ForwardedRequest, UrlScheme};
use super::host;

/// The parsed `web.allowed_hosts`.
pub(super) struct AllowedHosts {
    origins: Vec<WebOrigin<Box<str>>>,
    first: Option<String>,
}

impl AllowedHosts {
    /// Reads the settings, which were validated.
    pub(super) fn new(settings: &Web) -> Self {
        Self { origins: parsed(&settings.allowed_hosts), first: settings.allowed_hosts.first().cloned() }
    }

    /// Redirects a client whose host is not allowed to the first one that is; `None` if no redirect is needed.
    pub(super) fn redirect<B>(&self, request: &Request<B>, forwarded: &ForwardedRequest) -> Option<Response> {
        let first = self.first.as_ref()?;
        let host = host::of_request(request.uri(), request.headers(), forwarded);
        if host.is_none() && request.version() < Version::HTTP_11 {
            return None; // the check of a balancer: no browser makes such a request
        }
        let scheme = forwarded.scheme.unwrap_or(UrlScheme::Http).as_str();
        let is_allowed =
            |origin: &WebOrigin<Box<str>>| origin.has_scheme(scheme) && host.is_some_and(|host| origin.is_at(host));
        if self.origins.iter().any(is_allowed) {
            return None;
        }
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let target = format!("{first}{}", if path.starts_with('/') { path } else { "" });
        let location = HeaderValue::from_bytes(target.as_bytes());
        let mut response = Response::new(Body::from(format!("You are being redirected to {target}\r\n")));
        *response.status_mut() = StatusCode::FOUND;
        // Every byte that a path may contain is valid in a header.
        response.headers_mut().extend(location.ok().map(|location| (LOCATION, location)));
        Some(response)
    }
}

/// Parses origins of the settings, which were validated; `*` is none.
pub(crate) fn parsed(origins: &[String]) -> Vec<WebOrigin<Box<str>>> {
    origins.iter().filter_map(|text| WebOrigin::parse(text)).map(|origin| origin.to_boxed()).collect()
}
