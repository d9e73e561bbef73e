//! What is no action's: an application's own routes, under the bounds of actions; then files; then its own fallback.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering::Relaxed;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use futures_util::FutureExt;
use http::request::Parts;
use http::{Method, StatusCode};
use http_body::Body as _;
use http_body_util::Limited;
use phalanx_core::{ErrorKind, Node, dispatch};
use tower::Service;
use tracing::{Instrument, info_span};

use super::body::timeout::Paced;
use super::exchange::{Asking, Serving};
use super::identity::Identity;
use super::service::Shared;
use super::{body, reply, static_files};

/// Asks the router.
pub(super) async fn serve(shared: &Shared, request: Asking, identity: &Identity, serving: &mut Serving) -> Response {
    let settings = &shared.node.config().web;
    let most = body::Most::of_any(request.headers(), settings);
    if let Err(refused) = most.check(request.headers()) {
        return reply::error(&refused);
    }
    let (parts, body) = request.into_parts();
    let (body, is_late) = match body.filter(|body| !body.is_end_stream()) {
        None => (Body::empty(), None),
        Some(body) => {
            let mut body = Paced::new(body, settings, identity.peer.is_sending.clone());
            let is_late = body.is_late();
            (Body::new(Limited::new(body, most.bytes())), Some(is_late))
        }
    };
    let mut request = Request::from_parts(parts, body);
    request.extensions_mut().insert(identity.request.clone());
    request.extensions_mut().insert(identity.clone());
    let mut router = shared.router.clone();
    let answering = async move { router.call(request).await }.instrument(info_span!("request", id = %identity.request));
    let mut response = match AssertUnwindSafe(answering).catch_unwind().await {
        Ok(Ok(response)) => response,
        Err(panic) => reply::error(&dispatch::panicked(&*panic)),
    };
    serving.route = response.extensions_mut().remove::<MatchedPath>().map(|path| path.as_str().into());
    // axum's extractors know no better than 400 for a body that breaks off.
    match is_late {
        Some(is_late) if is_late.load(Relaxed) && response.status() == StatusCode::BAD_REQUEST => reply::late(),
        _ => response,
    }
}

/// An application's routes with files behind them.
pub(super) fn router(node: &Node, routes: Router) -> Router {
    // Bodies are bounded before they get here.
    routes.layer(DefaultBodyLimit::disable()).layer(from_fn_with_state(node.clone(), files_before_fallback))
}

/// Where no route matched: a file, else what the application's fallback says, else the answer of a node without one.
async fn files_before_fallback(
    State(node): State<Node>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(matched) = matched {
        let mut response = next.run(request).await;
        response.extensions_mut().insert(matched);
        return response;
    }
    let (parts, body) = request.into_parts();
    let instead = match file(&node, &parts).await {
        Ok(response) => return response,
        Err(instead) => instead,
    };
    let response = next.run(Request::from_parts(parts, body)).await;
    let is_bare = response.status() == StatusCode::NOT_FOUND && response.body().size_hint().exact() == Some(0);
    if is_bare { instead } else { response }
}

/// The file that a request asks for, or what it is told if nobody else knows the path.
async fn file(node: &Node, request: &Parts) -> Result<Response, Response> {
    let settings = &node.config().web;
    let path = request.uri.path();
    let prefix = settings.prefix.trim_end_matches('/');
    let below = path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if below && !prefix.is_empty() && request.method != Method::OPTIONS {
        return Err(reply::error(&dispatch::unknown_action()));
    }
    if let Some(response) = reply::unless_read(&request.method) {
        return Err(response);
    }
    let path = path.strip_prefix("/public").filter(|rest| rest.starts_with('/') || rest.is_empty()).unwrap_or(path);
    match node.files().open(path).await {
        Ok(file) => {
            let cache = format!("max-age={}, must-revalidate, public", settings.file_max_age.as_secs());
            Ok(static_files::respond(file, &request.method, &request.headers, &cache).await)
        }
        Err(error) => {
            let error = phalanx_core::ActionError::from(error);
            let is_missing = error.kind() == ErrorKind::NotFound;
            let response = reply::error(&error);
            if is_missing { Err(response) } else { Ok(response) }
        }
    }
}
