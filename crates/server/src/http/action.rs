//! One call over HTTP: finds the action of the method, reads its params, runs it, and turns the outcome into a
//! response.

use std::sync::Arc;

use axum::response::Response;
use http::{Method, Uri};
use phalanx_core::action::OnDisconnect;
use phalanx_core::dispatch::{self, Dispatched};
use phalanx_core::error::unknown_action;
use phalanx_core::registry::RegisteredAction;
use phalanx_core::{ActionError, Caller, Engine, Outcome, Params};

use super::body::{BodyError, BodyLimits};
use super::debug_info::DebugInfo;
use super::exchange::{HttpRequest, RequestState};
use super::identity::Identity;
use super::routes::{PathMatch, method_of};
use super::service::ServiceState;
use super::{params, reply};

/// Serves a request whose path is in the table of actions.
pub(super) async fn serve(
    service: &ServiceState,
    path: &PathMatch<'_>,
    request: (&Uri, &mut HttpRequest),
    identity: &Identity,
    state: &mut RequestState,
) -> Response {
    reply::private(respond(service, path, request, identity, state).await)
}

async fn respond(
    service: &ServiceState,
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
    if !routed.def.cross_site
        && let Err(refused) = service.check_cross_site((request.method(), uri, request.headers()), identity)
    {
        return reply::error(&refused);
    }
    let (method, body) = (request.method().clone(), request.body_mut().take());
    let is_sending = &identity.peer.is_sending;
    let limits = BodyLimits { engine, is_sending, uploads: &service.uploads, action: routed.def.name };
    let outcome = match params::read((&method, uri, request.headers()), body, limits, path.params()).await {
        Ok(params) => match requested_version(engine, routed, &params, &method).and_then(|action| {
            if routed.def.cross_site && !action.def.cross_site {
                service.check_cross_site((&method, uri, request.headers()), identity)?;
            }
            Ok(action)
        }) {
            Ok(action) => {
                debug_info.record(&action, &params);
                state.called_action = true;
                let headers = std::mem::take(request.headers_mut());
                let caller = Arc::new(Caller::http(identity.fingerprint.clone(), identity.remote, headers));
                let id = identity.request.clone();
                let outcome =
                    run(engine, dispatch::CallRequest { action, params, caller: caller.clone(), id }, state).await;
                let cloned = |caller: Arc<Caller>| caller.headers.clone();
                *request.headers_mut() = Arc::try_unwrap(caller).map_or_else(cloned, |caller| caller.headers);
                outcome
            }
            Err(unknown) => Err(unknown),
        },
        Err(BodyError::Refused(refused)) => {
            reply::log_cause(&refused);
            Err(refused)
        }
        Err(BodyError::Timeout) => return reply::body_timeout(debug_info.into_fields()),
    };
    let debug_fields = debug_info.into_fields();
    let context = reply::ResponseContext { method: &method, headers: request.headers(), debug_fields };
    reply::respond(outcome, context).await
}

/// Returns the action in the version that the params name, or else the version whose route matched. The named version
/// must have a route for the method, on any path.
fn requested_version(
    engine: &Engine,
    routed: &Arc<RegisteredAction>,
    params: &Params,
    method: &Method,
) -> Result<Arc<RegisteredAction>, ActionError> {
    let Some(version) = params.version()? else { return Ok(routed.clone()) };
    let action = engine.registry().find(routed.def.name, Some(version));
    let method = method_of(method);
    let has_method =
        |action: &&Arc<RegisteredAction>| action.def.routes.iter().any(|route| route.method.as_str() == method);
    action.filter(has_method).cloned().ok_or_else(unknown_action)
}

/// Runs an action. If its client disconnects it runs on, unless `on_disconnect` cancels it, and keeps the request's
/// permit until it ends.
async fn run(engine: &Engine, request: dispatch::CallRequest, state: &mut RequestState) -> Outcome {
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
