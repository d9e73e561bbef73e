//! The shell around every request, actions, files and an application's own routes alike: one layer, not a stack of
//! nine. It knows who asks, bounds how many are served at once, and finishes every response.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, EXPIRES, HeaderValue, ORIGIN, SET_COOKIE, STRICT_TRANSPORT_SECURITY,
};
use http::{HeaderName, Method, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use metrics::{Counter, counter};
use phalanx_core::initializer::BoxError;
use phalanx_core::{ActionError, ErrorKind, Node};
use tower::Service;

use super::cors::{self, Cors};
use super::exchange::{self, Asked, Asking, Serving};
use super::identity::{Identity, Peer, REQUEST_ID};
use super::permit_body::Held;
use super::routes::{self, ActionPaths};
use super::{action, allowed_hosts, compression, fallback, reply};
use crate::listener::Serve;
use crate::quota::Bound;

static CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");
static FRAME_OPTIONS: HeaderName = HeaderName::from_static("x-frame-options");
static REFERRER_POLICY: HeaderName = HeaderName::from_static("referrer-policy");

/// The service of one connection.
#[derive(Clone)]
pub(crate) struct Shell {
    shared: Arc<Shared>,
    peer: Option<Peer>,
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) node: Node,
    actions: ActionPaths,
    pub(super) router: Router,
    cors: Option<Cors>,
    requests: Bound,
    pub(super) uploads: Bound,
    answered: [Counter; 5],
}

impl Shell {
    /// Puts together what a node serves.
    ///
    /// # Errors
    ///
    /// Two routes that no request can tell apart, or an origin in `web.cors_origins` that is none.
    pub(crate) fn new(node: Node, own: Router) -> Result<Self, BoxError> {
        let actions = ActionPaths::new(&node)?;
        let settings = &node.config().web;
        let cors = Cors::new(&settings.cors_origins)?;
        let requests = Bound::new("web.max_requests", settings.max_requests as u64);
        let uploads = Bound::new("web.max_uploads_total", settings.max_uploads_total.as_u64());
        let router = routes::router(&node, own);
        metrics::describe_counter!("phalanx_http_requests_total", "HTTP requests, by the first digit of their status");
        metrics::describe_counter!("phalanx_http_clients_left_total", "Clients that left before their answer");
        let answered = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        let answered = answered.map(|status| counter!("phalanx_http_requests_total", "status" => status));
        let shared = Arc::new(Shared { node, actions, router, cors, requests, uploads, answered });
        Ok(Self { shared, peer: None })
    }

    pub(crate) fn into_make_service(self) -> MakeShell {
        MakeShell(self)
    }

    async fn serve(&self, request: &mut Asking) -> Response<Held> {
        let Some(peer) = &self.peer else {
            let broken = ActionError::internal("a request without a peer");
            return reply::error(&broken).map(|body| Held::new(body, None));
        };
        let settings = self.shared.node.config();
        let has_body = request.body().as_ref().is_some_and(|body| !body.is_end_stream());
        peer.is_sending.store(has_body, Relaxed);
        if let Some(response) = allowed_hosts::elsewhere(request, peer, &settings.web) {
            self.count(response.status());
            return response.map(|body| Held::new(body, None));
        }
        let query = request.uri().path().eq(&settings.websocket.path).then(|| request.uri().query()).flatten();
        let identity = Identity::read(&self.shared.node, peer, request.headers(), query);
        let Some(place) = self.shared.requests.take(1) else {
            let busy = ActionError::of(ErrorKind::Unavailable, "the server has as many requests as it may");
            return self.finish(reply::error(&busy), &identity).map(|body| Held::new(body, None));
        };
        let mut serving = Serving { place: Some(place), route: None, is_call: false, is_answered: false };
        let encodings = request.headers().get(ACCEPT_ENCODING).cloned().filter(|_| settings.web.compress);
        let is_head = request.method() == Method::HEAD;
        let asked = settings.web.access_log.then(|| Box::new(Asked::of(request)));
        let response = match &self.shared.cors {
            None => self.route(request, &identity, &mut serving).await,
            Some(cors) if cors::is_preflight(request) => {
                Box::pin(cors.preflight(std::mem::take(request.headers_mut()))).await
            }
            Some(cors) => {
                let origin = request.headers().get(ORIGIN).cloned();
                let response = self.route(request, &identity, &mut serving).await;
                Box::pin(cors.finish(origin, response)).await
            }
        };
        let response = match encodings {
            _ if is_head => exchange::without_body(response),
            Some(encodings) if compression::is_worth_compressing(&response) => {
                Box::pin(compression::compressed(response, encodings)).await
            }
            _ => response,
        };
        let response = self.finish(response, &identity);
        if let Some(asked) = asked.filter(|_| !serving.is_call) {
            asked.log(&response, &identity, serving.route.as_deref());
        }
        serving.is_answered = true;
        let place = serving.place.take();
        response.map(|body| Held::new(body, place))
    }

    /// Actions first, then everything else.
    async fn route(&self, request: &mut Asking, identity: &Identity, serving: &mut Serving) -> Response {
        let uri = std::mem::take(request.uri_mut());
        if let Some(found) = self.shared.actions.find(uri.path()) {
            serving.route = Some(found.route());
            return action::serve(&self.shared, &found, (&uri, request), identity, serving).await;
        }
        *request.uri_mut() = uri;
        Box::pin(fallback::serve(&self.shared, std::mem::take(request), identity, serving)).await
    }

    /// Puts on what every response carries.
    fn finish(&self, mut response: Response, identity: &Identity) -> Response {
        let settings = &self.shared.node.config().web;
        let status = response.status();
        let headers = response.headers_mut();
        headers.entry(&CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
        headers.entry(&FRAME_OPTIONS).or_insert(HeaderValue::from_static("SAMEORIGIN"));
        headers.entry(&REFERRER_POLICY).or_insert(HeaderValue::from_static("strict-origin-when-cross-origin"));
        if settings.tls_in_front {
            let year = HeaderValue::from_static("max-age=31536000; includeSubDomains");
            headers.entry(STRICT_TRANSPORT_SECURITY).or_insert(year);
        }
        if let Some(cookie) = identity.cookie(settings) {
            headers.append(SET_COOKIE, cookie);
            if exchange::is_for_all(headers) {
                // A shared cache must not hand one browser's cookie to another.
                headers.remove(EXPIRES);
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
            }
        }
        if let Ok(id) = identity.request.with_text(HeaderValue::from_str) {
            headers.insert(&REQUEST_ID, id);
        }
        self.count(status);
        response
    }

    fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.shared.answered[class - 1].increment(1);
    }
}

impl Serve for Shell {
    fn for_peer(self, peer: Peer) -> Self {
        Self { peer: Some(peer), ..self }
    }
}

impl Service<Request<Incoming>> for Shell {
    type Response = Response<Held>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Held>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let (shell, mut request) = (self.clone(), request.map(Some));
        Box::pin(async move { Ok(shell.serve(&mut request).await) })
    }
}

/// Makes the service of each connection.
#[derive(Clone)]
pub(crate) struct MakeShell(Shell);

impl<T> Service<T> for MakeShell {
    type Response = Shell;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Shell, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: T) -> Self::Future {
        std::future::ready(Ok(self.0.clone()))
    }
}
