//! Clients over HTTP, each with its cookies. Each request has a connection of its own, so none is kept from a node that stops.

use std::fmt;
use std::net::SocketAddr;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use phalanx_core::{Action, BoxFuture, http};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::app::{AppParts, TestApp};
use super::call::{ActionRequest, TestError};
use super::cookies::CookieJar;
use super::response::TestResponse;
use super::upgrade::TestUpgrade;
use super::waiting::{ANSWER, on_clients};

/// The longest body of an answer.
const MAX_BODY: usize = 256 * 1024 * 1024;

/// A client of an application: one cookie jar for HTTP and sockets, as of one browser. Clones share it.
#[derive(Clone)]
pub struct TestClient {
    pub(super) app: Arc<AppParts>,
    jar: Arc<Mutex<CookieJar>>,
    headers: HeaderMap,
}

impl TestClient {
    pub(super) fn new(app: Arc<AppParts>) -> Self {
        app.addr(); // a node without clients says so at once
        Self { app, jar: Arc::default(), headers: HeaderMap::new() }
    }

    /// The same client at another node: with the same cookies.
    pub fn at(&self, app: &TestApp) -> Self {
        Self { jar: self.jar.clone(), headers: self.headers.clone(), ..app.client() }
    }

    /// Adds a header to every request and upgrade of this client from now on, such as `authorization`.
    ///
    /// # Panics
    ///
    /// If a header cannot have this name or value.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        let (name, value) = header_of(name, value);
        self.headers.insert(name, value);
        self
    }

    /// The value of a cookie, as a request to `/` would carry it.
    pub fn cookie(&self, name: &str) -> Option<String> {
        self.jar().get(name, self.app.now_ms())
    }

    /// Sets a cookie for all paths: a value that no answer has set.
    pub fn set_cookie(&self, name: &str, value: &str) {
        self.jar().set(name, value);
    }

    /// Requests a path; await it.
    pub fn get(&self, path: &str) -> TestRequest {
        self.request(Method::GET, path)
    }

    /// Sends JSON; await it.
    pub fn post(&self, path: &str, body: impl Serialize) -> TestRequest {
        self.request(Method::POST, path).json(body)
    }

    /// Sends JSON; await it.
    pub fn put(&self, path: &str, body: impl Serialize) -> TestRequest {
        self.request(Method::PUT, path).json(body)
    }

    /// Sends JSON; await it.
    pub fn patch(&self, path: &str, body: impl Serialize) -> TestRequest {
        self.request(Method::PATCH, path).json(body)
    }

    /// Deletes; await it.
    pub fn delete(&self, path: &str) -> TestRequest {
        self.request(Method::DELETE, path)
    }

    /// A request with any method, without a body; await it.
    pub fn request(&self, method: Method, path: &str) -> TestRequest {
        TestRequest {
            client: self.clone(),
            method,
            path: path.to_owned(),
            headers: self.headers.clone(),
            body: Bytes::new(),
        }
    }

    /// Calls an action by its first route: `client.call::<open>(Open { … }).await`. Its input fills the parameters of the path,
    /// then the query of `GET` and `DELETE`, or the JSON body of the other methods. Inputs with an upload, and answers that are
    /// no JSON, need [`TestClient::request`].
    ///
    /// # Errors
    ///
    /// The action's own, or that of the server.
    ///
    /// # Panics
    ///
    /// If HTTP does not reach the action, or its answer is no `Output`.
    #[track_caller]
    pub fn call<A>(&self, input: A::Input) -> BoxFuture<'static, Result<A::Output, TestError>>
    where
        A: Action<Input: Serialize, Output: DeserializeOwned + 'static>,
    {
        let place = Location::caller();
        // As registered, it has the prefix of its groups.
        let registered = self.app.engine.registry().find(A::DEF.name, Some(A::DEF.version)).map(|action| action.def);
        let request = match ActionRequest::new(registered.unwrap_or(&A::DEF), &self.app.config().web.prefix, &input) {
            Ok(request) => request,
            Err(problem) => panic!("{problem}"),
        };
        let sent = self.request(request.method, &request.target);
        let sent = if request.body.is_null() { sent } else { sent.json(request.body) };
        Box::pin(async move {
            let response = sent.send().await.unwrap_or_else(|problem| panic!("{problem}, called at {place}"));
            TestError::of_response(&response)?;
            let value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
            Ok(super::call::decode(value).unwrap_or_else(|error| panic!("{error}, called at {place}: {response:?}")))
        })
    }

    /// Opens a WebSocket with the cookies of this client; await it.
    pub fn socket(&self) -> TestUpgrade {
        TestUpgrade::new(self.clone(), self.headers.clone())
    }

    pub(super) fn keep_cookies(&self, answer: &HeaderMap, path: &str) {
        self.jar().keep(answer, path, self.app.now_ms());
    }

    pub(super) fn add_cookies(&self, request: &mut HeaderMap, path: &str) {
        self.jar().add_to(request, path, self.app.now_ms());
    }

    fn jar(&self) -> MutexGuard<'_, CookieJar> {
        self.jar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestClient({})", self.app.addr())
    }
}

/// A request that is about to be sent; await it for its answer.
///
/// # Panics
///
/// When awaited, if no answer comes within a minute.
#[must_use = "a request is sent when this is awaited"]
#[derive(Debug)]
pub struct TestRequest {
    client: TestClient,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl TestRequest {
    /// Sets a header.
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

    /// Sets a JSON body.
    ///
    /// # Panics
    ///
    /// If the value cannot be written as JSON.
    #[track_caller]
    pub fn json(self, body: impl Serialize) -> Self {
        let text = serde_json::to_vec(&body).unwrap_or_else(|error| panic!("the body is no JSON: {error}"));
        self.body("application/json", text)
    }

    /// Sets a body of any media type.
    ///
    /// # Panics
    ///
    /// If there is no such media type.
    #[track_caller]
    pub fn body(mut self, media_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header(CONTENT_TYPE.as_str(), media_type)
    }

    /// Sets a multipart body with one file, as a form sends it.
    ///
    /// # Panics
    ///
    /// If one of the names has a quote or a line break.
    #[track_caller]
    pub fn file(self, field: &str, name: &str, content: impl AsRef<[u8]>) -> Self {
        const BOUNDARY: &str = "phalanx-test-mQ3vYd8e";
        let is_plain = |text: &str| !text.contains(['"', '\r', '\n']);
        assert!(is_plain(field) && is_plain(name), "{field:?}, {name:?}: no name of a part");
        let head = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\n\
             content-type: application/octet-stream\r\n\r\n"
        );
        let body = [head.as_bytes(), content.as_ref(), format!("\r\n--{BOUNDARY}--\r\n").as_bytes()].concat();
        self.body(&format!("multipart/form-data; boundary={BOUNDARY}"), body)
    }

    async fn send(self) -> Result<TestResponse, String> {
        let Self { client, method, path, mut headers, body } = self;
        let (addr, line) = (client.app.addr(), format!("{method} {path}"));
        let plain_path = path.split('?').next().unwrap_or_default().to_owned();
        client.add_cookies(&mut headers, &plain_path);
        let host = HeaderValue::from_str(&addr.to_string()).map_err(|error| error.to_string())?;
        headers.entry(HOST).or_insert(host);
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let request = Request::builder().method(method).uri(&path).body(Full::new(body));
        let mut request = request.map_err(|error| format!("{line} is no request: {error}"))?;
        *request.headers_mut() = headers;
        let answer = on_clients(async move { timeout(ANSWER, exchange(addr, request)).await }).await;
        let note = client.app.panics.note();
        let answer = answer.unwrap_or_else(|_| Err(format!("within {ANSWER:?}").into()));
        let answer = answer.map_err(|error| format!("{line} was not answered: {error}{note}"))?;
        client.keep_cookies(answer.headers(), &plain_path);
        let (head, body) = answer.into_parts();
        Ok(TestResponse { request: line, status: head.status, headers: head.headers, body, note })
    }
}

impl IntoFuture for TestRequest {
    type Output = TestResponse;
    type IntoFuture = BoxFuture<'static, TestResponse>;

    #[track_caller]
    fn into_future(self) -> Self::IntoFuture {
        let place = Location::caller();
        Box::pin(async move { self.send().await.unwrap_or_else(|problem| panic!("{problem}, sent at {place}")) })
    }
}

/// Sends a request over a connection of its own.
async fn exchange(
    addr: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let receiving = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    let driving = async {
        // Its error, if there is one, is that of the request too.
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        received = receiving => received,
        () = driving => unreachable!("it is pending for ever"),
    }
}

#[track_caller]
pub(super) fn header_of(name: &str, value: &str) -> (HeaderName, HeaderValue) {
    let parsed = (name.parse::<HeaderName>(), value.parse::<HeaderValue>());
    let (Ok(name), Ok(value)) = parsed else { panic!("{name}: {value:?} is no header") };
    (name, value)
}
