//! The opening handshake: RFC 6455, section 4.2.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    CONNECTION, HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const SUBPROTOCOL: &str = "phalanx.1";

/// A request that may become a WebSocket.
pub(super) struct Opening {
    /// The connection, once the response is written.
    pub(super) upgrade: OnUpgrade,
    accept: String,
    names_subprotocol: bool,
}

impl Opening {
    /// Takes out of a request what the handshake needs, if it asks for a WebSocket.
    pub(super) fn take(parts: &mut Parts) -> Option<Self> {
        let upgrade = parts.extensions.remove::<OnUpgrade>()?;
        let headers = &parts.headers;
        let key = headers.get(SEC_WEBSOCKET_KEY)?;
        let is_asked = parts.method == Method::GET
            && words(headers, &CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"))
            && words(headers, &UPGRADE).any(|word| word.eq_ignore_ascii_case("websocket"))
            && words(headers, &SEC_WEBSOCKET_VERSION).any(|word| word == "13");
        is_asked.then(|| Self {
            upgrade,
            accept: derive_accept_key(key.as_bytes()),
            names_subprotocol: words(headers, &SEC_WEBSOCKET_PROTOCOL).any(|word| word == SUBPROTOCOL),
        })
    }

    /// The 101.
    pub(super) fn response(&self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&self.accept).expect("base64 is ASCII"));
        if self.names_subprotocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        response
    }
}

/// What a header lists, over all its lines.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}
