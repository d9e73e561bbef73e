//! The way from a client to its socket.

use std::panic::Location;

use http::header::{HOST, HeaderMap, HeaderName};
use phalanx_core::{BoxFuture, http};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::client::{TestClient, header_of};
use super::response::TestResponse;
use super::socket::TestSocket;
use super::waiting::{ANSWER, on_clients};

/// A socket that is about to open; await it.
///
/// # Panics
///
/// When awaited, if it is refused: with status and body.
#[must_use = "a socket opens when this is awaited"]
#[derive(Debug)]
pub struct TestUpgrade {
    client: TestClient,
    headers: HeaderMap,
    query: String,
}

impl TestUpgrade {
    pub(super) fn new(client: TestClient, headers: HeaderMap) -> Self {
        Self { client, headers, query: String::new() }
    }

    /// Sets a header of the upgrade.
    ///
    /// # Panics
    ///
    /// If a header cannot have this name or value.
    #[track_caller]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let (name, value) = header_of(name, value);
        self.headers.insert(name, value);
        self
    }

    /// Sets the query, as it is written in a URL: `name=ada`.
    pub fn query(mut self, query: &str) -> Self {
        query.clone_into(&mut self.query);
        self
    }

    /// Opens it where a refusal is expected: returns the answer.
    ///
    /// # Panics
    ///
    /// If it opens.
    #[track_caller]
    pub fn refused(self) -> BoxFuture<'static, TestResponse> {
        let place = Location::caller();
        Box::pin(async move {
            match self.open().await {
                Ok(Ok(socket)) => panic!("{socket:?} has opened, and was to be refused, opened at {place}"),
                Ok(Err(response)) => response,
                Err(problem) => panic!("{problem}, opened at {place}"),
            }
        })
    }

    /// Opens it. The answer, if there is one, is one of refusal.
    async fn open(self) -> Result<Result<TestSocket, TestResponse>, String> {
        let Self { client, mut headers, query } = self;
        let (addr, path) = (client.app.addr(), &*client.app.config().websocket.path);
        let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let request = format!("ws://{addr}{target}").into_client_request();
        let mut request = request.map_err(|error| format!("{target} is no target: {error}"))?;
        client.add_cookies(&mut headers, path);
        for (name, value) in headers.iter().filter(|(name, _)| is_settable(name)) {
            request.headers_mut().insert(name, value.clone());
        }
        let connecting = async move {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            tokio_tungstenite::client_async(request, stream).await
        };
        let note = client.app.panics.note();
        let opened = on_clients(async move { timeout(ANSWER, connecting).await }).await;
        let failed = |reason: String| format!("the upgrade of {target} was not answered: {reason}{note}");
        match opened.map_err(|_| failed(format!("within {ANSWER:?}")))? {
            Ok((stream, response)) => {
                client.keep_cookies(response.headers(), path);
                let socket = TestSocket::open(client.app.clone(), stream).await;
                socket.map(Ok).map_err(failed)
            }
            Err(Error::Http(refused)) => {
                client.keep_cookies(refused.headers(), path);
                let (head, body) = refused.into_parts();
                let (request, body) = (format!("the upgrade of {target}"), body.unwrap_or_default().into());
                Ok(Err(TestResponse { request, status: head.status, headers: head.headers, body, note }))
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// Whether a header is not one of the handshake itself.
fn is_settable(name: &HeaderName) -> bool {
    *name != HOST && !["connection", "upgrade", "sec-websocket-key", "sec-websocket-version"].contains(&name.as_str())
}

impl IntoFuture for TestUpgrade {
    type Output = TestSocket;
    type IntoFuture = BoxFuture<'static, TestSocket>;

    #[track_caller]
    fn into_future(self) -> Self::IntoFuture {
        let place = Location::caller();
        Box::pin(async move {
            match self.open().await {
                Ok(Ok(socket)) => socket,
                Ok(Err(response)) => panic!("{response:?}, opened at {place}"),
                Err(problem) => panic!("{problem}, opened at {place}"),
            }
        })
    }
}
