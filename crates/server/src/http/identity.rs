//! The identity of a client: its address, the fingerprint of its browser, and the id of its request.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderValue};
use http::{Extensions, HeaderName, Uri};
use phalanx_core::config::Web;
use phalanx_core::{Cookie, Cookies, Engine, RequestId};

use super::forwarded::{self, ForwardedRequest};
use super::host;
use crate::listener::Activity;
use crate::shares::{AddressShare, AddressShares};

/// The other end of a TCP connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    pub(crate) activity: Arc<Activity>,
    /// The share of its address; `None` for trusted proxies and for the machine itself.
    pub(crate) share: Option<Arc<AddressShare>>,
}

/// The identity of the client, as handlers find it in the extensions of the request.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The request as trusted proxies describe it.
    pub(crate) forwarded: ForwardedRequest,
    pub(crate) fingerprint: Arc<str>,
    /// Whether the client sent no fingerprint and this one was just generated.
    pub(crate) is_new: bool,
    pub(crate) request: RequestId,
    /// Whether the client is shown the cause of an `internal` error: in development, on this machine, through no proxy.
    pub(crate) shows_causes: bool,
    /// The share of the client's address.
    pub(crate) share: Option<Arc<AddressShare>>,
}

pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static SESSION_ID: HeaderName = HeaderName::from_static("x-sessionid");

impl Identity {
    /// Reads the identity from the headers and, for sockets, from the query.
    pub(crate) fn read(
        (engine, shares): (&Engine, &Arc<AddressShares>),
        peer: &Peer,
        forwarded: ForwardedRequest,
        (headers, uri): (&HeaderMap, &Uri),
    ) -> Self {
        let settings = &engine.config().web;
        let query = uri.path().eq(&engine.config().websocket.path).then(|| uri.query()).flatten();
        let given = headers.get(&REQUEST_ID).filter(|_| forwarded.is_trusted).and_then(|id| token(id.as_bytes()));
        let request = given.map_or_else(|| engine.next_request_id(), |id| RequestId::Given(id.into()));
        let sent = fingerprint(headers, settings, query);
        let is_new = sent.is_none();
        let fingerprint = sent.unwrap_or_else(|| engine.new_fingerprint().into());
        let share = if forwarded.is_trusted {
            let client = forwarded.remote.ip();
            if forwarded::is_trusted(client, settings) { None } else { shares.of(client) }
        } else {
            let share = peer.share.clone();
            let is_looked_for = share.is_some() || shares.looks_for_local_proxies();
            let is_proxy = is_looked_for && forwarded::is_unnamed_proxy(peer.addr.ip(), headers);
            if is_proxy {
                shares.warn_of_unnamed_proxy(peer.addr.ip());
            }
            share.filter(|_| !is_proxy)
        };
        let shows_causes =
            engine.node().environment().is_development() && is_on_machine(peer.addr, &forwarded, (headers, uri));
        Self { forwarded, fingerprint, is_new, request, shows_causes, share }
    }

    /// The address of the client, which may be behind trusted proxies.
    pub(crate) fn remote(&self) -> SocketAddr {
        self.forwarded.remote
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
        let cookie = Cookie::new(settings.fingerprint_cookie.clone(), &*self.fingerprint);
        cookie.max_age(settings.fingerprint_lifetime).header(settings.tls_in_front).ok()
    }
}

/// Whether a request comes from this machine, as far as it shows: its peer and the host that it addressed are on it, and no
/// proxy has left a header. A page of another site whose name was made to lead here addresses that name.
fn is_on_machine(peer: SocketAddr, forwarded: &ForwardedRequest, (headers, uri): (&HeaderMap, &Uri)) -> bool {
    !forwarded.is_trusted
        && peer.ip().to_canonical().is_loopback()
        && !forwarded::shows_proxy(headers)
        && host::of_request(uri, headers, forwarded).is_some_and(|addressed| host::is_loopback(addressed.host))
}

/// Returns the fingerprint that the client sends: from the cookie, else from a header, else (for sockets) from the
/// query.
fn fingerprint(headers: &HeaderMap, settings: &Web, query: Option<&str>) -> Option<Arc<str>> {
    let name = settings.fingerprint_cookie.as_str();
    let header = |name: &str| token(headers.get(name)?.as_bytes());
    let found = Cookies::of(headers)
        .all(name)
        .find(|value| is_token(value))
        .or_else(|| header(name))
        .or_else(|| header(SESSION_ID.as_str()))
        .map(Into::into);
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
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| OF_TOKEN[usize::from(byte)])
}

/// The bytes of a token. A table, because the fingerprint of every request is checked.
static OF_TOKEN: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0_u8);
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'~');
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests;
