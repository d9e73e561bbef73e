//! The opening handshake of RFC 6455, section 4.2.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::http::headers::list_elements;

const SUBPROTOCOL: &str = "phalanx.1";

/// A request that may become a WebSocket.
pub(super) struct OpeningHandshake {
    /// Resolves to the connection once the response is written.
    pub(super) upgrade: OnUpgrade,
    accept: String,
    offers_subprotocol: bool,
}

impl OpeningHandshake {
    /// Takes the parts of a handshake out of a request; `None` if it is not a WebSocket upgrade.
    pub(super) fn take(parts: &mut Parts) -> Option<Self> {
        let upgrade = parts.extensions.remove::<OnUpgrade>()?;
        let headers = &parts.headers;
        let key = headers.get(SEC_WEBSOCKET_KEY)?;
        let is_upgrade = parts.method == Method::GET
            && list_elements(headers, &CONNECTION).any(|element| element.eq_ignore_ascii_case("upgrade"))
            && list_elements(headers, &UPGRADE).any(|element| element.eq_ignore_ascii_case("websocket"))
            && list_elements(headers, &SEC_WEBSOCKET_VERSION).any(|element| element == "13");
        is_upgrade.then(|| Self {
            upgrade,
            accept: derive_accept_key(key.as_bytes()),
            offers_subprotocol: list_elements(headers, &SEC_WEBSOCKET_PROTOCOL).any(|element| element == SUBPROTOCOL),
        })
    }

    /// Returns the 101 response.
    pub(super) fn response(&self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&self.accept).expect("base64 is ASCII"));
        if self.offers_subprotocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        response
    }
}
