//! Requests that match no action: the application's own routes, then static files, then the application's fallback; all
//! of them under the same body limits as actions.

use std::panic::AssertUnwindSafe;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use futures_util::FutureExt;
use http::header::UPGRADE;
use http::request::Parts;
use http::{Method, StatusCode};
use http_body::Body as _;
use http_body_util::Limited;
use hyper::upgrade::OnUpgrade;
use phalanx_core::error::{panicked, unknown_action};
use phalanx_core::{ActionError, Engine, ErrorKind, RequestId};
use tower::Service;
use tracing::{Instrument, info_span};

use super::body::own_route::OwnRouteBody;
use super::body::timeout::BodyTimeout;
use super::cross_site::{RequestSite, is_unsafe};
use super::debug_info::DebugInfo;
use super::exchange::{HttpRequest, RequestState};
use super::identity::Identity;
use super::own_route_call::OwnRouteCall;
use super::service::ServiceState;
use super::{body, reply, static_files};
use crate::ws::elsewhere;

/// Serves a request with axum's router.
pub(super) async fn serve(
    service: &ServiceState,
    request: HttpRequest,
    identity: &Identity,
    state: &mut RequestState,
) -> Response {
    let settings = service.engine.config();
    if let Err(refused) = check_cross_site(service, &request, identity) {
        return reply::error(&refused);
    }
    let counts_session = service.counts_session(&request, identity);
    let limit = body::BodySizeLimit::for_headers(request.headers(), &settings.web);
    if let Err(refused) = limit.check(request.headers()) {
        return reply::error(&refused);
    }
    let (parts, body) = request.into_parts();
    let reader = body.as_ref().and_then(|body| OwnRouteBody::of(body, service, identity.share.clone()));
    let reader = reader.map(|reader| Body::new(Limited::new(reader, limit.bytes())));
    let mut request = Request::from_parts(parts, reader.unwrap_or_else(Body::empty));
    request.extensions_mut().insert(identity.request.clone());
    request.extensions_mut().insert(identity.clone());
    // Nothing would end a socket of the application's. Requests that offer HTTP/2 ask for an upgrade too, and are served.
    let is_refused = service.engine.shutdown().is_draining()
        && request.uri().path() != settings.websocket.path
        && request.extensions_mut().remove::<OnUpgrade>().is_some();
    let call = OwnRouteCall::new(service.engine.clone(), request.uri().clone(), counts_session);
    request.extensions_mut().insert(call.clone());
    let mut router = service.router.clone();
    let responding =
        async move { router.call(request).await }.instrument(info_span!("request", id = %identity.request));
    let mut response = match AssertUnwindSafe(responding).catch_unwind().await {
        Ok(Ok(response)) => response,
        Err(panic) if identity.shows_causes => reply::error(&panicked(&*panic).showing_cause()),
        Err(panic) => reply::error(&panicked(&*panic)),
    };
    state.route = response.extensions_mut().remove::<MatchedPath>().map(|path| path.as_str().into());
    // axum responds 426 to what it cannot upgrade.
    if is_refused && matches!(response.status(), StatusCode::UPGRADE_REQUIRED | StatusCode::SWITCHING_PROTOCOLS) {
        response = reply::error(&elsewhere());
    }
    // axum's extractors respond 400 to every body that fails, a slow one included.
    let mut response = match body.filter(|_| response.status() == StatusCode::BAD_REQUEST) {
        Some(body) if body.timed_out() => reply::body_timeout(&BodyTimeout.into(), None),
        Some(body) => body.take_refusal().map_or(response, |refused| reply::error(&refused)),
        None => response,
    };
    // Last: the cookies go with whichever response is sent.
    call.finish(&mut response);
    response
}

/// Refuses a request that a page of another site sent, unless its path is one of `App::cross_site`. An upgrade counts as
/// well: an application may serve sockets of its own. The endpoint of the node's sockets has a rule of its own.
fn check_cross_site(service: &ServiceState, request: &HttpRequest, identity: &Identity) -> Result<(), ActionError> {
    let (uri, headers) = (request.uri(), request.headers());
    let has_effect = is_unsafe(request.method()) || headers.contains_key(UPGRADE);
    let is_endpoint = || uri.path() == service.engine.config().websocket.path;
    let is_exempt = || service.cross_site_paths.at(uri.path()).is_ok();
    if !has_effect || is_endpoint() || is_exempt() {
        return Ok(());
    }
    service.cross_site.check(&RequestSite::of(uri, headers, &identity.forwarded))
}

/// Returns the application's routes with static files behind them.
pub(super) fn router(engine: &Engine, routes: Router) -> Router {
    // `serve` limits bodies before they get here.
    routes.layer(DefaultBodyLimit::disable()).layer(from_fn_with_state(engine.clone(), files_before_fallback))
}

/// Serves a request that matched no route: with a file, else with the application's fallback. If there is neither, it
/// responds with the error of the file lookup.
async fn files_before_fallback(
    State(engine): State<Engine>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(matched) = matched {
        let id = request.extensions().get::<RequestId>().cloned();
        let running = engine.shutdown().unfinished(|| {
            let id = id.map(|id| format!(" (request {id})")).unwrap_or_default();
            format!("route {}{id}", matched.as_str())
        });
        let mut response = next.run(request).await;
        running.finish();
        response.extensions_mut().insert(matched);
        return response;
    }
    let (parts, body) = request.into_parts();
    let missing = match find_file(&engine, &parts).await {
        FileLookup::Served(response) => return response,
        FileLookup::Missing(response) => response,
    };
    let response = next.run(Request::from_parts(parts, body)).await;
    let is_bare = response.status() == StatusCode::NOT_FOUND && response.body().size_hint().exact() == Some(0);
    if is_bare { missing } else { response }
}

/// The result of looking for a static file.
enum FileLookup {
    /// The response with the file, or with an error of reading it.
    Served(Response),
    /// No file; the response if the application has no fallback.
    Missing(Response),
}

/// Looks for the file that a request names.
async fn find_file(engine: &Engine, request: &Parts) -> FileLookup {
    let settings = &engine.config().web;
    let path = request.uri.path();
    let prefix = settings.prefix.trim_end_matches('/');
    let is_below_prefix = path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if is_below_prefix && !prefix.is_empty() && request.method != Method::OPTIONS {
        let identity = request.extensions.get::<Identity>();
        let debug_fields = identity.and_then(|identity| DebugInfo::start(engine, identity).into_fields());
        let mut response = reply::error_with(&unknown_action(), debug_fields);
        reply::make_private(&mut response);
        return FileLookup::Missing(response);
    }
    if let Some(response) = reply::refuse_unless_read(&request.method) {
        return FileLookup::Missing(response);
    }
    let path = path.strip_prefix("/public").filter(|rest| rest.starts_with('/') || rest.is_empty()).unwrap_or(path);
    match engine.files().open(path).await {
        Ok(file) => {
            let cache = format!("max-age={}, must-revalidate, public", settings.file_max_age.as_secs());
            FileLookup::Served(static_files::respond(file, &request.method, &request.headers, &cache).await)
        }
        Err(error) => {
            let error = ActionError::from(error);
            let is_missing = error.kind() == ErrorKind::NotFound;
            let response = reply::error(&error);
            if is_missing { FileLookup::Missing(response) } else { FileLookup::Served(response) }
        }
    }
}
