//! From a path to what serves it: actions by a table of their own, everything else by axum's router.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use http::Method;
use percent_encoding::percent_decode_str;
use phalanx_core::action;
use phalanx_core::config::CLIENT_PATHS;
use phalanx_core::initializer::BoxError;
use phalanx_core::registry::{Registered, path_of};
use phalanx_core::{ActionError, ErrorKind, Node};

use super::{client_assets, fallback, reply};
use crate::ws::{Upgrades, upgrade};

/// The paths of actions. They are looked up before any other, so an application's own routes cannot hide one.
pub(super) struct ActionPaths(matchit::Router<PathActions>);

/// The actions of one path, by method.
#[derive(Clone)]
struct PathActions {
    route: Arc<str>,
    by_method: Arc<[(action::Method, Arc<Registered>)]>,
    allowed: Arc<str>,
}

impl ActionPaths {
    /// Reads the routes of every action.
    ///
    /// # Errors
    ///
    /// Two paths that no request can tell apart.
    pub(super) fn new(node: &Node) -> Result<Self, BoxError> {
        let prefix = node.config().web.prefix.trim_end_matches('/');
        let mut table = matchit::Router::new();
        for (path, by_method) in by_path(node) {
            let allowed = reply::allowed_methods(by_method.iter().map(|(method, _)| *method)).into();
            let full = format!("{prefix}{path}");
            let actions = PathActions { route: full.as_str().into(), by_method: by_method.into(), allowed };
            let takes_the_rest = full.rsplit('/').next().is_some_and(|last| last.starts_with("{*"));
            if !full.ends_with('/') && !takes_the_rest {
                let slashed = format!("{full}/");
                table.insert(slashed, actions.clone()).map_err(|error| format!("the path {full}/: {error}"))?;
            }
            table.insert(full.clone(), actions).map_err(|error| format!("the path {full}: {error}"))?;
        }
        Ok(Self(table))
    }

    /// What a path leads to, if to actions.
    pub(super) fn find<'a>(&'a self, path: &'a str) -> Option<Found<'a>> {
        let found = self.0.at(path).ok()?;
        Some(Found { actions: found.value, params: found.params })
    }
}

/// The actions of a request's path.
pub(super) struct Found<'a> {
    actions: &'a PathActions,
    params: matchit::Params<'a, 'a>,
}

impl<'a> Found<'a> {
    /// The action that answers this method; `GET` answers `HEAD` too.
    pub(super) fn action(&self, method: &Method) -> Option<&'a Arc<Registered>> {
        let wanted = method_of(method);
        self.actions.by_method.iter().find(|(method, _)| method.as_str() == wanted).map(|(_, action)| action)
    }

    /// The path as it was declared, its parameters by name.
    pub(super) fn route(&self) -> Arc<str> {
        self.actions.route.clone()
    }

    /// The methods of the path, for `Allow`.
    pub(super) fn allowed(&self) -> &'a str {
        &self.actions.allowed
    }

    /// The parameters in the path, decoded.
    ///
    /// # Errors
    ///
    /// `malformed` if one is not percent-encoded UTF-8.
    pub(super) fn params(&self) -> impl Iterator<Item = (&str, Result<String, ActionError>)> {
        self.params.iter().map(|(name, value)| (name, decoded(value)))
    }
}

/// The method whose action answers: `HEAD` is a `GET` without its body.
pub(super) fn method_of(method: &Method) -> &str {
    if method == Method::HEAD { "GET" } else { method.as_str() }
}

/// `+` is a space here too.
fn decoded(value: &str) -> Result<String, ActionError> {
    if !value.bytes().any(|byte| matches!(byte, b'+' | b'%')) {
        return Ok(value.to_owned());
    }
    let spaced = value.replace('+', " ");
    let text = percent_decode_str(&spaced).decode_utf8().map(std::borrow::Cow::into_owned);
    let malformed = |_| ActionError::of(ErrorKind::Malformed, "the path is not percent-encoded UTF-8");
    text.map_err(malformed)
}

fn by_path(node: &Node) -> BTreeMap<String, Vec<(action::Method, Arc<Registered>)>> {
    let mut paths: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for action in node.registry().actions() {
        for route in action.def.routes {
            paths.entry(path_of(action.def, route)).or_default().push((route.method, action.clone()));
        }
    }
    paths
}

/// Everything that is no action: the endpoint, the browser client, an application's own routes, files.
pub(super) fn router(node: &Node, routes: Router) -> Router {
    let upgrades = Arc::new(Upgrades::new(node.clone()));
    // As a fallback, so that no route of the application's can stand in front of these.
    Router::new()
        .route(&node.config().websocket.path, any(upgrade).with_state(upgrades))
        .route(CLIENT_PATHS[0], any(client_assets::module))
        .route(CLIENT_PATHS[1], any(client_assets::types))
        .fallback_service(fallback::router(node, routes))
}
