//! The host that a request is for, and requests without a valid one.

use std::net::IpAddr;

use axum::response::Response;
use http::header::{CONNECTION, HOST};
use http::{HeaderMap, HeaderValue, Request, Uri, Version};
use phalanx_core::config::HostPort;
use phalanx_core::{ActionError, ErrorKind};

use super::forwarded::ForwardedRequest;
use super::reply;

/// Refuses a request whose host two programs could read differently: RFC 9112, section 3.2. `None` if it is valid.
///
/// HTTP/1.0 has requests without a host; balancers check the health of a node by them.
pub(super) fn refuse_invalid<B>(request: &Request<B>) -> Option<Response> {
    let mut lines = request.headers().get_all(HOST).iter();
    let problem = match (lines.next(), lines.next()) {
        (None, _) if request.version() < Version::HTTP_11 => None,
        (None, _) => Some("the request has no Host header"),
        (Some(_), Some(_)) => Some("the request has several Host headers"),
        (Some(line), None) if line.to_str().ok().and_then(HostPort::parse).is_none() => {
            Some("the Host header is not a host with an optional port")
        }
        (Some(_), None) => None,
    };
    let target = request.uri().authority();
    let is_invalid_target = || target.is_some_and(|authority| HostPort::parse(authority.as_str()).is_none());
    let problem = problem.or_else(|| is_invalid_target().then_some("the host of the request target is not valid"))?;
    let mut response = reply::error(&ActionError::of(ErrorKind::Malformed, problem));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Some(response)
}

/// Returns the host that the client addressed: as a trusted proxy reports it, else that of the request target, else that
/// of the `Host` header.
pub(crate) fn of_request<'a>(
    uri: &'a Uri,
    headers: &'a HeaderMap,
    forwarded: &'a ForwardedRequest,
) -> Option<HostPort<'a>> {
    let target = || uri.authority().map(http::uri::Authority::as_str);
    let header = || headers.get(HOST)?.to_str().ok();
    let host = HostPort::parse(forwarded.host.as_deref().or_else(target).or_else(header)?)?;
    Some(HostPort { port: host.port.or(forwarded.port), ..host })
}

/// Whether a host is the machine itself: `localhost`, `127.0.0.0/8` or `[::1]`.
pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_itself_is_a_name_and_the_loopback_addresses() {
        for host in ["localhost", "LocalHost", "127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "127.0.0.1.example", "10.0.0.1", "[::2]", "evil", "127.1", "0.0.0.0"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
