//! The params of a call, merged from path, body and query; in this order of precedence.

use std::sync::Arc;

use http::{Method, Uri};
use phalanx_core::error::unknown_action;
use phalanx_core::registry::RegisteredAction;
use phalanx_core::{ActionError, Engine, Params};

use super::routes::method_of;

/// Reads query and path parameters of a request.
pub(super) fn of_head<'a>(
    uri: &Uri,
    path: impl Iterator<Item = (&'a str, Result<String, ActionError>)>,
) -> Result<Params, ActionError> {
    let mut params = Params::default();
    if let Some(query) = uri.query() {
        params.push_query(query)?;
    }
    for (name, value) in path {
        params.push_path(name, value?)?;
    }
    Ok(params)
}

/// Returns the action in the version that the params name, or else the called one. The named version must have a route
/// for the method, on any path.
pub(super) fn requested_version(
    engine: &Engine,
    called: &Arc<RegisteredAction>,
    params: &Params,
    method: &Method,
) -> Result<Arc<RegisteredAction>, ActionError> {
    let Some(version) = params.version()? else { return Ok(called.clone()) };
    let action = engine.registry().find(called.def.name, Some(version));
    let method = method_of(method);
    let has_method =
        |action: &&Arc<RegisteredAction>| action.def.routes.iter().any(|route| route.method.as_str() == method);
    action.filter(has_method).cloned().ok_or_else(unknown_action)
}
