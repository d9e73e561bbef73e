//! The service around every request: actions, files and an application's own routes. It identifies the client, limits
//! concurrent requests, and completes the headers of every response.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use http::header::{ACCEPT_ENCODING, CONNECTION, EXPECT, HeaderValue, ORIGIN, SET_COOKIE, STRICT_TRANSPORT_SECURITY};
use http::{HeaderName, Method, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::Service;
use metrics::{Counter, counter};
use phalanx_core::action::ActionDef;
use phalanx_core::error::unknown_action;
use phalanx_core::registry::RegisteredAction;
use phalanx_core::{ActionError, BoxError, BoxFuture, Engine};

use super::action::{self, ActionRun};
use super::allowed_hosts::AllowedHosts;
use super::body::request::RequestBody;
use super::body::{self, BodyLimits, unread};
use super::cors::{self, Cors};
use super::cross_site::{CrossSiteGate, CrossSiteReports, CrossSiteRule, RequestSite, is_unsafe};
use super::exchange::{self, AccessLogEntry, HttpRequest, RequestPermit, RequestState};
use super::forwarded::ForwardedRequest;
use super::headers::has_any;
use super::identity::{Identity, Peer, REQUEST_ID};
use super::permit_body::PermitBody;
use super::routes::{self, ActionRoutes};
use super::{compression, fallback, host, reply, request_path};
use crate::AppRoutes;
use crate::listener::Drain;
use crate::quota::Quota;
use crate::run_permits::RunPermits;
use crate::shares::{AddressShare, AddressShares};

static CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");
static FRAME_OPTIONS: HeaderName = HeaderName::from_static("x-frame-options");
static REFERRER_POLICY: HeaderName = HeaderName::from_static("referrer-policy");

/// The service of one connection.
#[derive(Debug)]
pub(crate) struct HttpService(Arc<HttpConnection>);

/// A connection, and the state of its node.
struct HttpConnection {
    shared: Arc<ServiceState>,
    peer: Peer,
}

/// A request of a connection, open until its response was sent.
#[derive(Debug)]
pub(super) struct OpenRequest(Arc<HttpConnection>);

/// The state that all connections share.
pub(crate) struct ServiceState {
    pub(super) engine: Engine,
    pub(super) actions: ActionRoutes,
    pub(super) router: Router,
    allowed_hosts: AllowedHosts,
    cors: Option<Cors>,
    pub(super) cross_site: CrossSiteGate,
    /// Whether the application has sessions.
    has_sessions: bool,
    /// The paths of an application's own routes that pages of every site may send requests to.
    pub(super) cross_site_paths: matchit::Router<()>,
    pub(super) run_permits: RunPermits,
    pub(super) waiting_bodies: Quota,
    body_memory: Quota,
    uploads: Quota,
    shares: Arc<AddressShares>,
    drain: Drain,
    /// The counters of responses, by the first digit of the status.
    responses: [Counter; 5],
}

/// The routes of actions, and the paths that pages of every site may use.
///
/// # Errors
///
/// Two routes of actions conflict, an action's own bound of bodies exceeds the node's, or a path of `App::cross_site`
/// cannot match an own route.
fn declared_routes(engine: &Engine, app_routes: &AppRoutes) -> Result<(ActionRoutes, matchit::Router<()>), BoxError> {
    let actions = ActionRoutes::new(engine)?;
    body::check_actions(engine)?;
    let cross_site_paths = routes::cross_site_paths(&app_routes.cross_site, &actions)?;
    Ok((actions, cross_site_paths))
}

/// Checks the routes, as [`ServiceState::new`] does.
pub(crate) fn check_routes(engine: &Engine, app_routes: &AppRoutes) -> Result<(), BoxError> {
    declared_routes(engine, app_routes).map(drop)
}

impl ServiceState {
    /// Builds the state of a node's service.
    ///
    /// # Errors
    ///
    /// Those of [`declared_routes`].
    pub(crate) fn new(
        engine: Engine,
        app_routes: AppRoutes,
        waiting_bodies: Quota,
        shares: Arc<AddressShares>,
        drain: Drain,
    ) -> Result<Self, BoxError> {
        let (actions, cross_site_paths) = declared_routes(&engine, &app_routes)?;
        let settings = &engine.config().web;
        let cors = Cors::new(&settings.cors_origins);
        let allowed_hosts = AllowedHosts::new(settings);
        let reports = Arc::new(CrossSiteReports::new());
        let rule = CrossSiteRule::of_requests(settings);
        let cross_site = CrossSiteGate::of_requests(rule, settings.cross_site, reports.clone());
        let run_permits = RunPermits::new(settings);
        let body_memory = Quota::new("web.max_bodies_total", settings.max_bodies_total.as_u64());
        let uploads = Quota::new("web.max_uploads_total", settings.max_uploads_total.as_u64());
        let router = routes::router(&engine, app_routes.router, reports);
        metrics::describe_counter!("phalanx_http_requests_total", "HTTP requests, by the first digit of their status");
        metrics::describe_counter!(
            "phalanx_http_clients_left_total",
            "Clients that disconnected before their response"
        );
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        let responses = classes.map(|status| counter!("phalanx_http_requests_total", "status" => status));
        metrics::describe_counter!(
            "phalanx_http_requests_past_bound_total",
            "Requests to an application's own routes that ran on with their body beyond web.max_requests"
        );
        Ok(Self {
            has_sessions: engine.has_sessions(),
            engine,
            actions,
            router,
            allowed_hosts,
            cors,
            cross_site,
            cross_site_paths,
            run_permits,
            waiting_bodies,
            body_memory,
            uploads,
            shares,
            drain,
            responses,
        })
    }

    /// Refuses a request with an unsafe method that a page of another site sent.
    pub(super) fn check_cross_site(&self, request: &HttpRequest, identity: &Identity) -> Result<(), ActionError> {
        if !is_unsafe(request.method()) {
            return Ok(());
        }
        self.cross_site.check(&RequestSite::of(request.uri(), request.headers(), &identity.forwarded))
    }

    /// Whether the session of the request's cookie counts: not for a page of a site that the settings do not name. Without
    /// sessions there is none.
    pub(super) fn counts_session(&self, request: &HttpRequest, identity: &Identity) -> bool {
        !self.has_sessions
            || !has_any(request.headers(), &[&ORIGIN])
            || self.cross_site.counts_session(&RequestSite::of(request.uri(), request.headers(), &identity.forwarded))
    }

    /// Returns the other site whose page sent a request to a `cross_site` version: the body may name a version that is
    /// not, which then refuses the request.
    pub(super) fn other_site(
        &self,
        action: &RegisteredAction,
        request: &HttpRequest,
        identity: &Identity,
    ) -> Option<String> {
        if !action.def.cross_site || !is_unsafe(request.method()) {
            return None;
        }
        self.cross_site.other_site(&RequestSite::of(request.uri(), request.headers(), &identity.forwarded))
    }

    /// The limits of the body of a call.
    pub(super) fn body_limits<'a>(
        &'a self,
        action: &'static ActionDef,
        share: Option<&'a Arc<AddressShare>>,
    ) -> BodyLimits<'a> {
        BodyLimits { engine: &self.engine, uploads: &self.uploads, memory: &self.body_memory, action, share }
    }
}

impl HttpConnection {
    async fn serve(&self, request: &mut HttpRequest) -> Response<PermitBody> {
        let body = request.body().clone();
        let mut response = self.respond(request).await;
        if let Some(body) = body {
            unread::finish(&body, response.headers_mut(), &self.shared.engine);
        }
        if self.shared.drain.has_begun() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn respond(&self, request: &mut HttpRequest) -> Response<PermitBody> {
        let identity = match self.identify(request) {
            Ok(identity) => identity,
            Err(response) => {
                self.count(response.status());
                return (*response).map(|body| PermitBody::new(body, None));
            }
        };
        let run_permit = match self.shared.run_permits.try_enter(identity.share.as_ref()) {
            Ok(run_permit) => run_permit,
            Err(refused) => {
                let mut response = reply::error(&refused);
                self.finish(&mut response, &identity);
                return response.map(|body| PermitBody::new(body, None));
            }
        };
        let settings = self.shared.engine.config();
        let permit = RequestPermit::new(run_permit, request.body().as_ref());
        let mut state = RequestState {
            permit: Some(permit),
            route: None,
            called_action: false,
            finishes_stream: false,
            has_response: false,
        };
        let encodings = request.headers().get(ACCEPT_ENCODING).cloned();
        let (is_head, version) = (request.method() == Method::HEAD, request.version());
        let log_entry = settings.web.access_log.then(|| Box::new(AccessLogEntry::of(request)));
        let mut response = match &self.shared.cors {
            None => self.route(request, &identity, &mut state).await,
            Some(cors) if cors::is_preflight(request) => {
                Box::pin(cors.preflight(std::mem::take(request.headers_mut()))).await
            }
            Some(cors) => {
                let origin = request.headers().get(ORIGIN).cloned();
                let response = self.route(request, &identity, &mut state).await;
                Box::pin(cors.finish(origin, response)).await
            }
        };
        let may_compress = settings.web.compress && compression::negotiate(&mut response);
        if is_head {
            response = exchange::without_body(response);
        } else if let Some(encodings) = encodings.filter(|_| may_compress) {
            response = Box::pin(compression::compressed(response, encodings)).await;
        }
        self.finish(&mut response, &identity);
        if let Some(entry) = log_entry.filter(|_| !state.called_action) {
            entry.log(&response, &identity, state.route.as_deref());
        }
        if self.shared.drain.has_begun() {
            *response.version_mut() = version; // else hyper adds `keep-alive` for a client of HTTP/1.0
        }
        state.has_response = true;
        let permit = state.permit.take();
        response.map(|body| PermitBody::new(body, permit))
    }

    /// Identifies the client of a request.
    ///
    /// # Errors
    ///
    /// The response to a request whose host is not valid, or not one of `web.allowed_hosts`.
    fn identify(&self, request: &HttpRequest) -> Result<Identity, Box<Response>> {
        let peer = &self.peer;
        let settings = self.shared.engine.config();
        let forwarded = ForwardedRequest::read(peer.addr, request.headers(), &settings.web);
        let refused = host::refuse_invalid(request);
        if let Some(response) = refused.or_else(|| self.shared.allowed_hosts.redirect(request, &forwarded)) {
            return Err(Box::new(response));
        }
        let engine = (&self.shared.engine, &self.shared.shares);
        Ok(Identity::read(engine, peer, forwarded, (request.headers(), request.uri())))
    }

    /// Routes a request to an action, or else to axum's router.
    async fn route(&self, request: &mut HttpRequest, identity: &Identity, state: &mut RequestState) -> Response {
        let run = match self.start_action(request, identity, state) {
            Some(Ok(run)) => run,
            Some(Err(mut response)) => {
                reply::make_private(&mut response);
                return response;
            }
            None => return Box::pin(fallback::serve(&self.shared, std::mem::take(request), identity, state)).await,
        };
        let mut response = run.respond(&self.shared.engine, request.method(), state).await;
        reply::make_private(&mut response);
        response
    }

    fn start_action(
        &self,
        request: &mut HttpRequest,
        identity: &Identity,
        state: &mut RequestState,
    ) -> Option<Result<ActionRun, Response>> {
        match request_path::normalize(request.uri_mut()) {
            Ok(()) => action::start(&self.shared, request, identity, state),
            Err(request_path::DotSegment) => Some(Err(reply::error(&unknown_action()))),
        }
    }

    /// Adds the headers that every response carries, and counts it.
    fn finish(&self, response: &mut Response, identity: &Identity) {
        let settings = &self.shared.engine.config().web;
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
            exchange::keep_cookies_from_shared_caches(headers);
        }
        if let Ok(id) = identity.request.with_bytes(HeaderValue::from_bytes) {
            headers.insert(&REQUEST_ID, id);
        }
        self.count(status);
    }

    fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.shared.responses[class - 1].increment(1);
    }
}

impl HttpService {
    pub(crate) fn new(shared: Arc<ServiceState>, peer: Peer) -> Self {
        Self(Arc::new(HttpConnection { shared, peer }))
    }
}

impl Service<Request<Incoming>> for HttpService {
    type Response = Response<PermitBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<PermitBody>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let open = OpenRequest::new(self.0.clone());
        let expects_continue = !request.body().is_end_stream() && request.headers().contains_key(EXPECT);
        let request = request.map(|body| {
            let activity = || self.0.peer.activity.clone();
            (!body.is_end_stream()).then(|| RequestBody::new(body, expects_continue, activity()))
        });
        Box::pin(open.answer(request))
    }
}

impl OpenRequest {
    fn new(connection: Arc<HttpConnection>) -> Self {
        connection.peer.activity.begin_request();
        Self(connection)
    }

    /// Answers the request. This future is allocated.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` keeps its arguments twice")]
    fn answer(self, mut request: HttpRequest) -> impl Future<Output = Result<Response<PermitBody>, Infallible>> + Send {
        async move {
            let mut response = self.0.serve(&mut request).await;
            response.body_mut().keep_open(self);
            Ok(response)
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.peer.activity.end_request();
    }
}

impl fmt::Debug for HttpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpConnection({})", self.peer.addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::reader::BodyReader;

    /// Each thread of glibc keeps freed blocks of up to 1,032 bytes at hand; a larger one costs some 300 instructions more.
    const AT_HAND: usize = 1_032;

    fn size_of_future<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_futures_of_a_request_and_of_its_body_fit_blocks_that_the_allocator_has_at_hand() {
        let request = size_of_future(OpenRequest::answer);
        let body = size_of_future(BodyReader::into_params);
        assert!(request <= AT_HAND && body <= AT_HAND, "{request} and {body} bytes, not {AT_HAND}: see what they keep");
    }
}
