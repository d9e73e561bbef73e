//! The request as trusted proxies describe it: the client's address, its scheme, and the host that it addressed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName, VIA};
use phalanx_core::config::{HostPort, TrustedHeader, Web};

use super::forwarded_header;
use super::headers::has_any;

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The number of entries of a header that are read: a longer list does not come from honest proxies.
const MAX_PROXIES: usize = 16;

/// The scheme of the client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UrlScheme {
    Http,
    Https,
}

impl UrlScheme {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Parses a scheme that a proxy sent; some send that of the WebSocket URL.
    fn parse(text: &str) -> Option<Self> {
        let is = |names: [&str; 2]| names.iter().any(|name| text.eq_ignore_ascii_case(name));
        if is(["https", "wss"]) {
            Some(Self::Https)
        } else if is(["http", "ws"]) {
            Some(Self::Http)
        } else {
            None
        }
    }
}

/// A request before its proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForwardedRequest {
    /// Whether the peer is a trusted proxy.
    pub(crate) is_trusted: bool,
    /// The address of the client.
    pub(crate) remote: SocketAddr,
    /// The client's scheme; `None` if neither a proxy nor the settings say it.
    pub(crate) scheme: Option<UrlScheme>,
    /// The host that a proxy reports, which is valid.
    pub(crate) host: Option<Arc<str>>,
    /// The port that a proxy reports.
    pub(crate) port: Option<u16>,
}

impl ForwardedRequest {
    /// Reads the headers of `web.trusted_headers`, if the peer is one of `web.trusted_proxies`.
    ///
    /// Each proxy appends to the lists, to the line or as a new line, so they are read from the end. The client is the last
    /// address that is not a trusted proxy; the other lists are read at the same distance from the end.
    pub(crate) fn read(peer: SocketAddr, headers: &HeaderMap, settings: &Web) -> Self {
        let by_settings = settings.tls_in_front.then_some(UrlScheme::Https);
        let is_trusted = is_trusted(peer.ip(), settings);
        let mut request = Self { is_trusted, remote: peer, scheme: by_settings, host: None, port: None };
        if is_trusted {
            request.read_headers(headers, settings);
        }
        request
    }

    fn read_headers(&mut self, headers: &HeaderMap, settings: &Web) {
        let is_named = |header| settings.trusted_headers.contains(&header);
        let (mut scheme, mut host) = (None, None);
        let depth = if is_named(TrustedHeader::Forwarded) && headers.contains_key(FORWARDED) {
            let elements = forwarded_header::from_the_right(headers).take(MAX_PROXIES);
            self.walk(elements, settings, |element| {
                scheme = element.proto.as_deref().and_then(UrlScheme::parse);
                host = element.host.as_deref().and_then(valid_host);
                element.address().map(canonical)
            })
        } else if is_named(TrustedHeader::XForwardedFor) && headers.contains_key(&FORWARDED_FOR) {
            let entries = from_the_right(headers, &FORWARDED_FOR).map(Some);
            self.walk(entries, settings, |entry| address(entry))
        } else {
            let real = is_named(TrustedHeader::XRealIp).then(|| headers.get(&REAL_IP)).flatten();
            if let Some(ip) = real.and_then(|ip| ip.to_str().ok()).and_then(address) {
                self.remote = SocketAddr::new(ip, 0);
            }
            1
        };
        let entry = |header, name| is_named(header).then(|| at_depth(headers, name, depth)).flatten();
        let x_scheme = || UrlScheme::parse(entry(TrustedHeader::XForwardedProto, &FORWARDED_PROTO)?);
        let x_host = || valid_host(entry(TrustedHeader::XForwardedHost, &FORWARDED_HOST)?);
        self.scheme = scheme.or_else(x_scheme).or(self.scheme);
        self.host = host.or_else(x_host);
        self.port = entry(TrustedHeader::XForwardedPort, &FORWARDED_PORT).and_then(port);
    }

    /// Sets the client's address to the last one that is not a trusted proxy, and returns its distance from the end.
    /// Stops at an entry that cannot be read, and at one without an address.
    fn walk<T>(
        &mut self,
        entries: impl Iterator<Item = Option<T>>,
        settings: &Web,
        mut address_of: impl FnMut(&T) -> Option<IpAddr>,
    ) -> usize {
        let mut depth = 0;
        for entry in entries {
            depth += 1;
            let Some(ip) = entry.as_ref().and_then(&mut address_of) else { break };
            self.remote = SocketAddr::new(ip, 0);
            if !is_trusted(ip, settings) {
                break;
            }
        }
        depth.max(1)
    }
}

pub(super) fn is_trusted(ip: IpAddr, settings: &Web) -> bool {
    settings.trusted_proxies.iter().any(|trusted| trusted.contains(ip))
}

/// Whether a peer is a proxy that is not in the settings: it forwards, from a network that the internet does not reach.
pub(super) fn is_unnamed_proxy(peer: IpAddr, headers: &HeaderMap) -> bool {
    is_private(peer) && has_any(headers, &[&FORWARDED_FOR, &REAL_IP, &FORWARDED])
}

/// Whether a request has a header by which a proxy shows itself.
pub(super) fn shows_proxy(headers: &HeaderMap) -> bool {
    has_any(headers, &[&FORWARDED_FOR, &FORWARDED_HOST, &REAL_IP, &FORWARDED, &VIA])
}

fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback(),
    }
}

/// The entries of a list over all its lines, last one first. Empty ones do not count (RFC 9110, 5.6.1.2); a line that is
/// not text is one entry that is no address.
pub(super) fn from_the_right<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().rev();
    let entries = lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(',')).map(str::trim);
    entries.filter(|entry| !entry.is_empty()).take(MAX_PROXIES)
}

/// The entry at a distance from the end; the first one of a list that is shorter, because not every proxy appends.
fn at_depth<'a>(headers: &'a HeaderMap, name: &HeaderName, depth: usize) -> Option<&'a str> {
    from_the_right(headers, name).take(depth).last()
}

fn valid_host(text: &str) -> Option<Arc<str>> {
    HostPort::parse(text).map(|_| text.into())
}

fn port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port > 0)
}

/// Parses `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]` or `[::1]:5`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let plain = text.parse::<IpAddr>();
    let ip = plain.or_else(|_| text.parse::<SocketAddr>().map(|addr| addr.ip())).ok()?;
    Some(canonical(ip))
}

fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

#[cfg(test)]
mod tests;
