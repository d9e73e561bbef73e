//! The caller of an action.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use http::HeaderMap;

use crate::connection::Connection;
use crate::origin::Origin;

/// The caller of an action, and its transport.
#[non_exhaustive]
pub struct Caller {
    /// The transport.
    pub transport: Origin,
    /// Ties the calls and sockets of one browser together.
    pub fingerprint: Arc<str>,
    /// The client's address; behind trusted proxies the one that they forward.
    pub remote: Option<SocketAddr>,
    /// The headers of the HTTP request, or in a connect hook of the upgrade; empty for a socket.
    pub headers: HeaderMap,
    /// The socket.
    pub connection: Option<Connection>,
    /// Whether it is shown the cause of an `internal` error, as its transport decides.
    pub(crate) shows_causes: bool,
    /// Whether the session of its cookie counts: not for a page of a site that the settings do not name.
    pub(crate) counts_cookie: bool,
}

impl Caller {
    /// An HTTP client.
    pub const fn http(fingerprint: Arc<str>, remote: SocketAddr, headers: HeaderMap) -> Self {
        let transport = Origin::Http;
        let (connection, shows_causes, counts_cookie) = (None, false, true);
        Self { transport, fingerprint, remote: Some(remote), headers, connection, shows_causes, counts_cookie }
    }

    /// The client of an upgrade, before it has a connection: its headers are those of the upgrade, and it can be given no cookie.
    pub const fn upgrade(fingerprint: Arc<str>, remote: SocketAddr, headers: HeaderMap) -> Self {
        let mut caller = Self::http(fingerprint, remote, headers);
        caller.transport = Origin::Websocket;
        caller
    }

    /// The client of a socket, or a remote caller of a method on it.
    pub fn socket(connection: Connection) -> Self {
        Self {
            transport: Origin::Websocket,
            fingerprint: connection.fingerprint().into(),
            remote: Some(connection.remote()),
            headers: HeaderMap::new(),
            connection: Some(connection),
            shows_causes: false,
            counts_cookie: false,
        }
    }

    /// The same for all jobs.
    pub(crate) fn application() -> Arc<Self> {
        static APPLICATION: LazyLock<Arc<Caller>> = LazyLock::new(|| Arc::new(Caller::internal()));
        APPLICATION.clone()
    }

    /// The application itself: its jobs, its command line, another node.
    pub fn internal() -> Self {
        Self {
            transport: Origin::Internal,
            fingerprint: Arc::from(""),
            remote: None,
            headers: HeaderMap::new(),
            connection: None,
            shows_causes: false,
            counts_cookie: false,
        }
    }
}

/// Without the values of headers, which may be credentials.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, remote, headers, connection, .. } = self;
        let mut shown = f.debug_struct("Caller");
        shown.field("transport", transport).field("remote", remote).field("connection", connection);
        shown.field("headers", &headers.keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_headers_are_not_shown() {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", "id=secret".parse().unwrap());
        let shown = format!("{:?}", Caller { headers, ..Caller::internal() });
        assert!(shown.contains("cookie") && !shown.contains("secret"), "{shown}");
    }
}
