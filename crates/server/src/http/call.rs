//! One call over HTTP: the action of the method, its params, its outcome, its response.

use std::sync::Arc;

use axum::body::Body;
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
use super::route::Found;
use super::{params, reply};

/// Serves a request whose path belongs to actions.
pub(super) async fn serve(node: &Node, found: Found<'_>, request: Request<Incoming>, identity: &Identity) -> Response {
    let Some(routed) = found.action(request.method()) else {
        return match *request.method() {
            Method::OPTIONS => reply::options(found.allowed()),
            _ => reply::method_not_allowed(found.allowed()),
        };
    };
    let (mut parts, body) = request.into_parts();
    let mut metadata = Metadata::wanted(node, identity);
    let outcome = match params::read(&parts, body, node.config(), found.params()).await {
        Ok(params) => match asked_version(node, routed, &params) {
            Ok(action) => {
                metadata.note(&action, &params);
                let headers = std::mem::take(&mut parts.headers);
                let (outcome, headers) = run(node, action, params, identity, headers).await;
                parts.headers = headers;
                outcome
            }
            Err(unknown) => Err(unknown),
        },
        Err(BodyError::Refused(refused)) => Err(refused),
        Err(BodyError::Late) => return reply::late(),
    };
    let asked = reply::Asked { node, method: &parts.method, headers: &parts.headers, metadata: metadata.text() };
    let response = reply::respond(outcome, asked).await;
    match parts.method {
        Method::HEAD => response.map(|_| Body::empty()),
        _ => response,
    }
}

/// The version a request asks for wins over the version whose route it took.
fn asked_version(node: &Node, routed: &Arc<Registered>, params: &Params) -> Result<Arc<Registered>, ActionError> {
    let Some(asked) = params.get_str("apiVersion") else { return Ok(routed.clone()) };
    let version = asked.parse().map_err(|_| dispatch::unknown_action())?;
    let action = node.registry().find(routed.def.name, Some(version));
    action.filter(|action| !action.def.routes.is_empty()).cloned().ok_or_else(dispatch::unknown_action)
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
