//! One call over HTTP: finds the action of the method, checks its head, runs it, and turns the outcome into
//! a response.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use phalanx_core::action::OnDisconnect;
use phalanx_core::dispatch::{self, CallRequest, Dispatched};
use phalanx_core::registry::RegisteredAction;
use phalanx_core::{ActionError, CallBody, Caller, Engine, Outcome, Params};

use super::body::accepted;
use super::body::reader::BodyReader;
use super::body::request::RequestBody;
use super::body::timeout::BodyTimeout;
use super::debug_info::DebugInfo;
use super::exchange::{HttpRequest, RequestState};
use super::identity::Identity;
use super::routes::PathMatch;
use super::service::ServiceState;
use super::{params, reply};

/// Serves a request whose path is in the table of actions.
pub(super) async fn serve(
    service: &Arc<ServiceState>,
    path: &PathMatch<'_>,
    request: (&Uri, &mut HttpRequest),
    identity: &Identity,
    state: &mut RequestState,
) -> Response {
    reply::private(respond(service, path, request, identity, state).await)
}

async fn respond(
    service: &Arc<ServiceState>,
    path: &PathMatch<'_>,
    (uri, request): (&Uri, &mut HttpRequest),
    identity: &Identity,
    state: &mut RequestState,
) -> Response {
    let engine = &service.engine;
    let mut debug_info = DebugInfo::start(engine, identity);
    let Some(routed) = path.action(request.method()) else {
        return match *request.method() {
            Method::OPTIONS => reply::options(path.allowed()),
            _ => reply::method_not_allowed(path.allowed(), debug_info.into_fields()),
        };
    };
    if !routed.def.cross_site {
        let checked = service.check_cross_site((request.method(), uri, request.headers()), identity);
        if let Err(refused) = checked {
            return reply::error(&refused);
        }
    }
    let method = request.method().clone();
    let body = request.body().clone().filter(|_| !matches!(method, Method::GET | Method::HEAD));
    let outcome = match prepare(service, (routed, path), (uri, &method, request.headers(), &body), identity) {
        Ok((action, params, body)) => {
            debug_info.record(&action, &params);
            state.called_action = true;
            let headers = std::mem::take(request.headers_mut());
            let caller = Arc::new(Caller::http(identity.fingerprint.clone(), identity.remote, headers));
            let (id, uri) = (identity.request.clone(), Some(uri.clone()));
            let call = CallRequest { action, uri, params, body, caller: caller.clone(), id };
            let outcome = run(engine, call, state).await;
            let cloned = |caller: Arc<Caller>| caller.headers.clone();
            *request.headers_mut() = Arc::try_unwrap(caller).map_or_else(cloned, |caller| caller.headers);
            outcome
        }
        Err(refused) => {
            reply::log_cause(&refused);
            Err(refused)
        }
    };
    if let Some(body) = body {
        debug_info.record_body(body.take_shown());
        if body.timed_out() && outcome.as_ref().is_err_and(|refused| refused.code() == BodyTimeout::CODE) {
            return reply::body_timeout(debug_info.into_fields());
        }
    }
    let debug_fields = debug_info.into_fields();
    let context = reply::ResponseContext { method: &method, headers: request.headers(), debug_fields };
    reply::respond(outcome, context).await
}

/// Checks everything that costs nothing, and returns the call: its version, the params of its head, and its body, of
/// which nothing is read before the guards have passed.
fn prepare(
    service: &Arc<ServiceState>,
    (routed, path): (&Arc<RegisteredAction>, &PathMatch<'_>),
    (uri, method, headers, body): (&Uri, &Method, &HeaderMap, &Option<Arc<RequestBody>>),
    identity: &Identity,
) -> Result<(Arc<RegisteredAction>, Params, CallBody), ActionError> {
    let head = params::of_head(uri, path.params())?;
    let action = params::requested_version(&service.engine, routed, &head, method)?;
    if routed.def.cross_site && !action.def.cross_site {
        service.check_cross_site((method, uri, headers), identity)?;
    }
    let Some(request) = body else {
        let body = if action.def.body.is_raw { CallBody::raw(head.clone(), Bytes::new()) } else { CallBody::absent() };
        return Ok((action, head, body));
    };
    let limits = service.body_limits(action.def, identity.share.as_ref());
    let Some(accepted) = accepted::accept(headers, limits)? else { return Ok((action, head, CallBody::absent())) };
    let reader = BodyReader {
        service: service.clone(),
        action: action.clone(),
        method: method.clone(),
        request: request.clone(),
        other_site: service.other_site((&action, method), (uri, headers), identity),
        accepted,
        head: head.clone(),
        id: identity.request.clone(),
        share: identity.share.clone(),
    };
    Ok((action, head, CallBody::awaited(Box::pin(reader.read()))))
}

/// Runs an action. If its client disconnects it runs on, unless `on_disconnect` cancels it, and keeps the request's
/// permit until it ends.
async fn run(engine: &Engine, request: CallRequest, state: &mut RequestState) -> Outcome {
    match dispatch::start(engine, request).await {
        Dispatched::Done(outcome) => outcome,
        Dispatched::Pending(running) if running.on_disconnect() == OnDisconnect::Cancel => {
            Box::pin(running.finish()).await
        }
        Dispatched::Pending(running) => {
            let permit = state.permit.take();
            let finished = engine.shutdown().spawn(async move { (running.finish().await, permit) }).await;
            let (outcome, permit) = finished.unwrap_or_else(|error| (Err(ActionError::internal(error)), None));
            state.permit = permit;
            outcome
        }
    }
}
