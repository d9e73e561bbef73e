//! Requests that a page of another site makes a browser send, with the cookies of its user: requests with unsafe methods,
//! and upgrades. One function decides on both.

mod gate;

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, ORIGIN};
use http::{Method, Uri};
use phalanx_core::config::{HostPort, Web, WebOrigin};

pub(crate) use gate::{CrossSiteGate, CrossSiteReports};

use super::allowed_hosts::parsed;
use super::forwarded::{self, FORWARDED_HOST, ForwardedRequest, UrlScheme};
use super::host;

static FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether `*` is among the allowed origins, and for which requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnyOrigin {
    No,
    /// For requests without credentials that a browser adds by itself.
    WithoutCredentials,
    Yes,
}

/// The settings that decide whether a page may send a request.
#[derive(Debug)]
pub(crate) struct CrossSiteRule {
    /// Other origins whose pages may.
    named: Vec<WebOrigin<Box<str>>>,
    any: AnyOrigin,
    /// The origins of the node itself, `web.allowed_hosts`.
    own: Vec<WebOrigin<Box<str>>>,
}

impl CrossSiteRule {
    /// The rule for requests: `web.cors_origins`, where `*` means all origins without credentials.
    pub(crate) fn of_requests(web: &Web) -> Self {
        Self::new(&web.cors_origins, AnyOrigin::WithoutCredentials, web)
    }

    /// The rule for WebSocket connections: `websocket.allowed_origins`.
    pub(crate) fn of_sockets(allowed: &[String], web: &Web) -> Self {
        Self::new(allowed, AnyOrigin::Yes, web)
    }

    fn new(named: &[String], meaning_of_any: AnyOrigin, web: &Web) -> Self {
        let any = if named.iter().any(|origin| origin == "*") { meaning_of_any } else { AnyOrigin::No };
        Self { named: parsed(named), any, own: parsed(&web.allowed_hosts) }
    }

    /// Whether a request may have its effect: its page belongs to this site or is allowed, or no page sent it.
    pub(crate) fn permits(&self, request: &RequestSite<'_>) -> bool {
        let headers = request.headers;
        if !headers.contains_key(ORIGIN) && !headers.contains_key(&FETCH_SITE) {
            return true; // not a browser, or a page of the same site
        }
        self.is_own_or_named(request)
            || match self.any {
                AnyOrigin::No => false,
                AnyOrigin::WithoutCredentials => !has_ambient_credentials(headers),
                AnyOrigin::Yes => true,
            }
    }

    /// Whether the session of a request's cookie counts: a page with an origin is of this site, or is named; that all origins
    /// are allowed names none. Requests without an origin are those of no page, and those that follow a link.
    pub(crate) fn counts_session(&self, request: &RequestSite<'_>) -> bool {
        !request.headers.contains_key(ORIGIN) || self.is_own_or_named(request)
    }

    fn is_own_or_named(&self, request: &RequestSite<'_>) -> bool {
        let origin = request.headers.get(ORIGIN);
        let parsed = origin.and_then(|origin| WebOrigin::parse(origin.to_str().ok()?));
        let is_named = parsed.is_some_and(|origin| self.named.iter().any(|named| named.is_same(&origin)));
        is_named
            || match request.fetch_site() {
                Some(is_own_page) => is_own_page,
                None => parsed.is_some_and(|origin| self.is_own(&origin, request)),
            }
    }

    /// Whether the origin of a page is that of the node, as the client addressed it.
    ///
    /// The scheme is compared only where it is known. Elsewhere a proxy may terminate TLS, and pages of the node have an
    /// `https` origin on requests that arrive by `http`.
    fn is_own(&self, origin: &WebOrigin<&str>, request: &RequestSite<'_>) -> bool {
        let is_downgraded = request.forwarded.scheme == Some(UrlScheme::Https) && origin.has_scheme("http");
        let is_web = origin.has_scheme("http") || origin.has_scheme("https");
        if is_downgraded || !is_web {
            return false;
        }
        // A page of another site cannot set this header without a preflight, so it counts from every peer.
        let mut reported = forwarded::from_the_right(request.headers, &FORWARDED_HOST).filter_map(HostPort::parse);
        request.host().is_some_and(|host| origin.is_at(host))
            || self.own.iter().any(|own| own.is_same(origin))
            || reported.any(|host| origin.is_at(host))
    }
}

/// The parts of a request that say which page sent it, and to which site.
#[derive(Debug)]
pub(crate) struct RequestSite<'a> {
    uri: &'a Uri,
    headers: &'a HeaderMap,
    forwarded: &'a ForwardedRequest,
}

impl<'a> RequestSite<'a> {
    pub(crate) fn of(uri: &'a Uri, headers: &'a HeaderMap, forwarded: &'a ForwardedRequest) -> Self {
        Self { uri, headers, forwarded }
    }

    /// Returns the host that the client addressed. Parsed here, because most requests name no origin to compare it with.
    fn host(&self) -> Option<HostPort<'a>> {
        host::of_request(self.uri, self.headers, self.forwarded)
    }

    /// Returns the judgement of the browser, if it sent one: whether the page is of the same origin, or the user typed the
    /// address.
    fn fetch_site(&self) -> Option<bool> {
        let mut lines = self.headers.get_all(&FETCH_SITE).iter().peekable();
        lines.peek()?;
        Some(lines.all(|site| matches!(site.as_bytes(), b"same-origin" | b"none")))
    }
}

/// Whether a method may have an effect: RFC 9110, section 9.2.1.
pub(crate) fn is_unsafe(method: &Method) -> bool {
    !method.is_safe()
}

/// Whether a request has credentials that a browser adds by itself; a token is added by the page.
fn has_ambient_credentials(headers: &HeaderMap) -> bool {
    const AMBIENT: [&[u8]; 4] = [b"basic", b"digest", b"negotiate", b"ntlm"];
    let schemes = headers.get_all(AUTHORIZATION).iter().map(|line| line.as_bytes().trim_ascii_start());
    let mut schemes = schemes.map(|line| line.split(|byte| *byte == b' ').next().unwrap_or_default());
    headers.contains_key(COOKIE)
        || schemes.any(|scheme| AMBIENT.iter().any(|ambient| scheme.eq_ignore_ascii_case(ambient)))
}

#[cfg(test)]
mod tests;
