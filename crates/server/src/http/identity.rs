//! The identity of a client: its address, the fingerprint of its browser, and the id of its request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::header::{COOKIE, HeaderMap, HeaderValue};
use http::{Extensions, HeaderName};
use phalanx_core::config::Web;
use phalanx_core::{Engine, RequestId};

/// The other end of a TCP connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    /// Set while the client may still be sending the body of its last request.
    pub(crate) is_sending: Arc<AtomicBool>,
}

/// The identity of the client, as handlers find it in the extensions of the request.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) peer: Peer,
    /// The address of the client, which may be behind trusted proxies.
    pub(crate) remote: SocketAddr,
    pub(crate) fingerprint: Arc<str>,
    /// Whether the client sent no fingerprint and this one was just generated.
    pub(crate) is_new: bool,
    pub(crate) request: RequestId,
}

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static SESSION_ID: HeaderName = HeaderName::from_static("x-sessionid");

impl Identity {
    /// Reads the identity from the headers and, for sockets, from the query.
    pub(crate) fn read(engine: &Engine, peer: &Peer, headers: &HeaderMap, query: Option<&str>) -> Self {
        let settings = &engine.config().web;
        let trusted = is_trusted(canonical(peer.addr.ip()), settings);
        let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let remote = if trusted { forwarded(headers, peer.addr, settings) } else { peer.addr };
        let request = match header(&REQUEST_ID) {
            Some(id) if trusted && is_token(id) => RequestId::Given(id.into()),
            _ => engine.next_request_id(),
        };
        let sent = fingerprint(headers, settings, query);
        let is_new = sent.is_none();
        let fingerprint = sent.unwrap_or_else(|| engine.new_fingerprint().into());
        Self { peer: peer.clone(), remote, fingerprint, is_new, request }
    }

    /// Returns the identity that the service stored in the extensions.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().expect("the service stores an identity in every request")
    }

    /// Returns the cookie for a browser that sent no fingerprint.
    pub(crate) fn cookie(&self, settings: &Web) -> Option<HeaderValue> {
        if !self.is_new {
            return None;
        }
        let mut cookie = phalanx_core::Cookie::new(&settings.fingerprint_cookie, &self.fingerprint);
        cookie = cookie.max_age(settings.fingerprint_lifetime);
        Some(if settings.tls_in_front { cookie.secure().header() } else { cookie.header() })
    }
}

/// Returns the scheme that the client uses, as reported by a trusted proxy or by the settings.
pub(super) fn scheme<'a>(peer: &Peer, headers: &'a HeaderMap, settings: &Web) -> &'a str {
    let forwarded = headers.get(&FORWARDED_PROTO).filter(|_| is_trusted(canonical(peer.addr.ip()), settings));
    let default = if settings.tls_in_front { "https" } else { "http" };
    forwarded.and_then(|scheme| scheme.to_str().ok()).unwrap_or(default)
}

/// Returns the last address in `X-Forwarded-For` that is not a trusted proxy. Proxies append, to the line or as a new
/// line, so the entries are read from the end; reading stops at the first entry that does not parse.
fn forwarded(headers: &HeaderMap, peer: SocketAddr, settings: &Web) -> SocketAddr {
    if !headers.contains_key(&FORWARDED_FOR) {
        let real = headers.get(&REAL_IP).and_then(|value| value.to_str().ok()).and_then(address);
        return real.map_or(peer, |ip| SocketAddr::new(ip, 0));
    }
    let mut best = peer;
    let lines: Vec<&HeaderValue> = headers.get_all(&FORWARDED_FOR).iter().collect();
    for line in lines.into_iter().rev() {
        let Ok(line) = line.to_str() else { return best };
        for entry in line.rsplit(',').take(MAX_PROXIES) {
            let Some(ip) = address(entry.trim()) else { return best };
            best = SocketAddr::new(ip, 0);
            if !is_trusted(ip, settings) {
                return best;
            }
        }
    }
    best
}

/// The number of entries of one line that are read: a longer line does not come from honest proxies.
const MAX_PROXIES: usize = 16;

fn is_trusted(ip: IpAddr, settings: &Web) -> bool {
    settings.trusted_proxies.iter().any(|trusted| trusted.contains(ip))
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

/// Returns the fingerprint that the client sends: from the cookie, else from a header, else (for sockets) from the
/// query.
fn fingerprint(headers: &HeaderMap, settings: &Web, query: Option<&str>) -> Option<Arc<str>> {
    let name = settings.fingerprint_cookie.as_str();
    let mut pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let cookie = pairs.find_map(|pair| token(pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?));
    let header = |name: &str| token(headers.get(name)?.as_bytes());
    let found = cookie.or_else(|| header(name)).or_else(|| header(SESSION_ID.as_str())).map(Into::into);
    found.or_else(|| {
        let mut pairs = form_urlencoded::parse(query?.as_bytes());
        pairs.find_map(|(key, value)| token(value.as_bytes()).filter(|_| key == name).map(Into::into))
    })
}

fn token(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| is_token(text))
}

/// Whether a text has 1 to 128 characters, each of which is safe in a header, a cookie and a log without escaping.
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:~".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests;
