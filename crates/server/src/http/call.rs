//! One call over HTTP: the action of the method, its params, its outcome, its response.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::response::Response;
use http::{Method, Request};
use hyper::body::Incoming;
use phalanx_core::action::OnDisconnect;
use phalanx_core::dispatch::{self, Started};
use phalanx_core::registry::Registered;
use phalanx_core::{ActionError, Caller, Node, Origin, Outcome, Params};

use super::body::BodyError;
use super::identity::Identity;
use super::metadata::Metadata;
use super::route::{Found, method_of};
use super::{params, reply};

/// Serves a request whose path belongs to actions.
///
/// Says by `is_call` whether an action was called; it has a line in the log then.
pub(super) async fn serve(
    node: &Node,
    found: Found<'_>,
    request: Request<Incoming>,
    identity: &Identity,
    is_call: &AtomicBool,
) -> Response {
    let Some(routed) = found.action(request.method()) else {
        return match *request.method() {
            Method::OPTIONS => reply::options(found.allowed()),
            _ => reply::method_not_allowed(found.allowed()),
        };
    };
    let (mut parts, body) = request.into_parts();
    let mut metadata = Metadata::wanted(node, identity);
    let outcome = match params::read(&parts, body, node.config(), found.params()).await {
        Ok(params) => match asked_version(node, routed, &params, &parts.method) {
            Ok(action) => {
                metadata.note(&action, &params);
                is_call.store(true, Relaxed);
                let headers = std::mem::take(&mut parts.headers);
                let (outcome, headers) = run(node, action, params, identity, headers).await;
                parts.headers = headers;
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
    let asked = reply::Asked { method: &parts.method, headers: &parts.headers, metadata: metadata.text() };
    reply::respond(outcome, asked).await
}

/// The version a request asks for wins over the version whose route it took, as long as it takes that method anywhere.
fn asked_version(
    node: &Node,
    routed: &Arc<Registered>,
    params: &Params,
    method: &Method,
) -> Result<Arc<Registered>, ActionError> {
    let asked = params.get_str("apiVersion").filter(|version| !version.is_empty());
    let Some(asked) = asked else { return Ok(routed.clone()) };
    let version = asked.parse().map_err(|_| dispatch::unknown_action())?;
    let action = node.registry().find(routed.def.name, Some(version));
    let wanted = method_of(method);
    let takes = |action: &&Arc<Registered>| action.def.routes.iter().any(|route| route.method.as_str() == wanted);
    action.filter(takes).cloned().ok_or_else(dispatch::unknown_action)
}

/// Runs an action. It goes on if its client leaves, unless it says otherwise.
async fn run(
    node: &Node,
    action: Arc<Registered>,
    params: Params,
    identity: &Identity,
    headers: http::HeaderMap,
) -> (Outcome, http::HeaderMap) {
    let caller = Arc::new(Caller {
        transport: Origin::Http,
        fingerprint: identity.fingerprint.clone(),
        remote: Some(identity.remote),
        headers,
        connection: None,
    });
    let request = dispatch::Request { action, params, caller: caller.clone(), id: identity.request.clone() };
    let outcome = match dispatch::start(node, request).await {
        Started::Done(outcome) => outcome,
        Started::Running(running) if running.on_disconnect() == OnDisconnect::Cancel => running.finish().await,
        Started::Running(running) => {
            let finished = node.shutdown().spawn(running.finish()).await;
            finished.unwrap_or_else(|error| Err(ActionError::internal(error)))
        }
    };
    let headers = Arc::try_unwrap(caller).map_or_else(|shared| shared.headers.clone(), |caller| caller.headers);
    (outcome, headers)
}
