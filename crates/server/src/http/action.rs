//! One call over HTTP: finds the action of the method, checks its head, runs it, and turns the outcome into
//! a response.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use http::Method;
use phalanx_core::action::OnDisconnect;
use phalanx_core::dispatch::{self, CallRequest, Dispatched, PendingCall, StartedCall};
use phalanx_core::registry::RegisteredAction;
use phalanx_core::{ActionError, BoxFuture, CallBody, Caller, Content, Engine, Outcome, Params};

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

/// A call that was started.
pub(super) struct ActionRun {
    call: StartedCall,
    exchange: ActionExchange,
}

/// The parts of an exchange by which the response to its call is made.
struct ActionExchange {
    debug_info: DebugInfo,
    body: Option<Arc<RequestBody>>,
    caller: Arc<Caller>,
}

/// Starts the call of a request whose path is in the table of actions; `None` if it is not.
///
/// It is not `async`: only what is there after the checks takes room in the future of a request.
///
/// # Errors
///
/// The response to a request that calls no action.
pub(super) fn start(
    service: &Arc<ServiceState>,
    request: &mut HttpRequest,
    identity: &Identity,
    state: &mut RequestState,
) -> Option<Result<ActionRun, Response>> {
    let engine = &service.engine;
    let mut debug_info = DebugInfo::start(engine, identity);
    let (body, prepared) = {
        let path = service.actions.find(request.uri().path())?;
        state.route = Some(path.route());
        let Some(routed) = path.action(request.method()) else {
            return Some(Err(match *request.method() {
                Method::OPTIONS => reply::options(path.allowed()),
                _ => reply::method_not_allowed(path.allowed(), debug_info.into_fields()),
            }));
        };
        if !routed.def.cross_site
            && let Err(refused) = service.check_cross_site(request, identity)
        {
            return Some(Err(reply::error(&refused)));
        }
        let body = request.body().as_ref().filter(|_| !matches!(*request.method(), Method::GET | Method::HEAD));
        (body.cloned(), prepare(service, (routed, &path), (request, body), identity))
    };
    let (action, params, call_body) = match prepared {
        Ok(prepared) => prepared,
        Err(refused) => return Some(Err(reply::error_with(&refused, debug_info.into_fields()))),
    };
    debug_info.record(&action, &params);
    state.called_action = true;
    let counts_session = service.counts_session(request, identity);
    let uri = Some(std::mem::take(request.uri_mut()));
    let headers = std::mem::take(request.headers_mut());
    let mut caller = Caller::http(identity.fingerprint.clone(), identity.remote(), headers);
    if !counts_session {
        caller = dispatch::without_session_cookie(caller);
    }
    let caller = Arc::new(dispatch::showing_causes(caller, identity.shows_causes));
    let id = identity.request.clone();
    state.finishes_stream = action.def.finish_stream;
    let call =
        dispatch::start(engine, CallRequest { action, uri, params, body: call_body, caller: caller.clone(), id });
    Some(Ok(ActionRun { call, exchange: ActionExchange { debug_info, body, caller } }))
}

impl ActionRun {
    /// Runs the call to its end, and turns its outcome into a response.
    pub(super) async fn respond(self, engine: &Engine, method: &Method, state: &mut RequestState) -> Response {
        let Self { call, exchange } = self;
        // In a box of its own: most calls are over at once, and need no room for what the others await.
        let rest: BoxFuture<'_, Response> = match call.poll_once().await {
            Dispatched::Done(outcome) => match exchange.respond(engine, outcome, method, state.finishes_stream) {
                Ok(response) => return response,
                Err(rest) => rest,
            },
            Dispatched::Pending(pending) => Box::pin(async move {
                let outcome = finish(engine, pending, state).await;
                match exchange.respond(engine, outcome, method, state.finishes_stream) {
                    Ok(response) => response,
                    Err(rest) => rest.await,
                }
            }),
        };
        rest.await
    }
}

impl ActionExchange {
    /// Turns the outcome of the call into a response.
    ///
    /// # Errors
    ///
    /// The rest of the work, if the response must be awaited.
    fn respond(
        mut self,
        engine: &Engine,
        outcome: Outcome,
        method: &Method,
        finishes_stream: bool,
    ) -> Result<Response, BoxFuture<'static, Response>> {
        if let Some(body) = self.body {
            self.debug_info.record_body(body.take_shown());
            if let Err(refused) = &outcome
                && body.timed_out()
                && refused.code() == BodyTimeout::CODE
            {
                return Ok(reply::body_timeout(refused, self.debug_info.into_fields()));
            }
        }
        let answer = match outcome {
            Ok(answer) => answer,
            Err(refused) => return Ok(reply::refused(&refused, self.debug_info.into_fields())),
        };
        let head = (answer.status, answer.headers);
        match answer.content {
            Content::Json(object) => Ok(reply::object(head, object, self.debug_info.into_fields())),
            Content::Body(body) => {
                let (method, caller, stop) = (method.clone(), self.caller, (engine.clone(), finishes_stream));
                Err(Box::pin(async move {
                    reply::with_body(head, body, (&method, &caller.headers), (&stop.0, stop.1)).await
                }))
            }
        }
    }
}

/// Checks everything that costs nothing, and returns the call: its version, the params of its head, and its body, of
/// which nothing is read before the guards have passed.
fn prepare(
    service: &Arc<ServiceState>,
    (routed, path): (&Arc<RegisteredAction>, &PathMatch<'_>),
    (request, body): (&HttpRequest, Option<&Arc<RequestBody>>),
    identity: &Identity,
) -> Result<(Arc<RegisteredAction>, Params, CallBody), ActionError> {
    let head = params::of_head(request.uri(), path.params())?;
    let action = params::requested_version(&service.engine, routed, &head, request.method())?;
    if routed.def.cross_site && !action.def.cross_site {
        service.check_cross_site(request, identity)?;
    }
    let Some(body) = body else {
        let body = if action.def.body.is_raw { CallBody::raw(head.clone(), Bytes::new()) } else { CallBody::absent() };
        return Ok((action, head, body));
    };
    let limits = service.body_limits(action.def, identity.share.as_ref());
    let accepted = accepted::accept(request.headers(), limits)?;
    let Some(accepted) = accepted else { return Ok((action, head, CallBody::absent())) };
    let reader = BodyReader {
        service: service.clone(),
        action: action.clone(),
        method: request.method().clone(),
        request: body.clone(),
        other_site: service.other_site(&action, request, identity),
        id: identity.request.clone(),
        share: identity.share.clone(),
    };
    let call_body = CallBody::awaited(Box::pin(reader.into_params((accepted, head.clone()))));
    Ok((action, head, call_body))
}

/// Finishes a call that is pending. If its client disconnects it runs on, unless `on_disconnect` cancels it, and keeps
/// the request's permit until it ends.
async fn finish(engine: &Engine, running: PendingCall, state: &mut RequestState) -> Outcome {
    if running.on_disconnect() == OnDisconnect::Cancel {
        return running.finish().await;
    }
    let permit = state.permit.take();
    let finished = engine.shutdown().spawn(async move { (running.finish().await, permit) }).await;
    let (outcome, permit) = finished.unwrap_or_else(|error| (Err(ActionError::internal(error)), None));
    state.permit = permit;
    outcome
}
