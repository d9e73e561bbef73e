//! One call over HTTP: the action of the method, its params, its outcome, its response.

use std::sync::Arc;

use axum::response::Response;
use http::{Method, Uri};
use phalanx_core::action::OnDisconnect;
use phalanx_core::dispatch::{self, Started};
use phalanx_core::registry::Registered;
use phalanx_core::{ActionError, Caller, Node, Origin, Outcome, Params};

use super::body::{BodyError, Limits};
use super::debug_info::Metadata;
use super::exchange::{Asking, Serving};
use super::identity::Identity;
use super::routes::{Found, method_of};
use super::service::Shared;
use super::{params, reply};

/// Serves a request whose path belongs to actions.
pub(super) async fn serve(
    shared: &Shared,
    found: &Found<'_>,
    (uri, request): (&Uri, &mut Asking),
    identity: &Identity,
    serving: &mut Serving,
) -> Response {
    let node = &shared.node;
    let Some(routed) = found.action(request.method()) else {
        return match *request.method() {
            Method::OPTIONS => reply::options(found.allowed()),
            _ => reply::method_not_allowed(found.allowed()),
        };
    };
    let (method, body) = (request.method().clone(), request.body_mut().take());
    let mut metadata = Metadata::wanted(node, identity);
    let is_sending = &identity.peer.is_sending;
    let limits = Limits { node, is_sending, uploads: &shared.uploads, action: routed.def.name };
    let outcome = match params::read((&method, uri, request.headers()), body, limits, found.params()).await {
        Ok(params) => match asked_version(node, routed, &params, &method) {
            Ok(action) => {
                metadata.note(&action, &params);
                serving.is_call = true;
                let caller = Arc::new(Caller {
                    transport: Origin::Http,
                    fingerprint: identity.fingerprint.clone(),
                    remote: Some(identity.remote),
                    headers: std::mem::take(request.headers_mut()),
                    connection: None,
                });
                let id = identity.request.clone();
                let outcome =
                    run(node, dispatch::Request { action, params, caller: caller.clone(), id }, serving).await;
                let shared = |caller: Arc<Caller>| caller.headers.clone();
                *request.headers_mut() = Arc::try_unwrap(caller).map_or_else(shared, |caller| caller.headers);
                outcome
            }
            Err(unknown) => Err(unknown),
        },
        Err(BodyError::Refused(refused)) => {
            reply::log_cause(&refused);
            Err(refused)
        }
        Err(BodyError::Late) => return reply::late(),
    };
    let asked = reply::Asked { method: &method, headers: request.headers(), metadata: metadata.text() };
    reply::respond(outcome, asked).await
}

/// The version a request asks for wins over the version whose route it took, as long as it takes that method anywhere.
fn asked_version(
    node: &Node,
    routed: &Arc<Registered>,
    params: &Params,
    method: &Method,
) -> Result<Arc<Registered>, ActionError> {
    let Some(version) = params.version()? else { return Ok(routed.clone()) };
    let action = node.registry().find(routed.def.name, Some(version));
    let wanted = method_of(method);
    let takes = |action: &&Arc<Registered>| action.def.routes.iter().any(|route| route.method.as_str() == wanted);
    action.filter(takes).cloned().ok_or_else(dispatch::unknown_action)
}

/// Runs an action. It goes on if its client leaves, unless it says otherwise, and keeps its place until it ends.
async fn run(node: &Node, request: dispatch::Request, serving: &mut Serving) -> Outcome {
    match dispatch::start(node, request).await {
        Started::Done(outcome) => outcome,
        Started::Running(running) if running.on_disconnect() == OnDisconnect::Cancel => {
            Box::pin(running.finish()).await
        }
        Started::Running(running) => {
            let place = serving.place.take();
            let finished = node.shutdown().spawn(async move { (running.finish().await, place) }).await;
            let (outcome, place) = finished.unwrap_or_else(|error| (Err(ActionError::internal(error)), None));
            serving.place = place;
            outcome
        }
    }
}
