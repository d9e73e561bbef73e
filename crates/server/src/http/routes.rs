//! The routes of a node: actions have a table of their own, axum's router serves everything else.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use http::Method;
use percent_encoding::percent_decode_str;
use phalanx_core::BoxError;
use phalanx_core::action;
use phalanx_core::config::CLIENT_PATHS;
use phalanx_core::registry::{RegisteredAction, path_of};
use phalanx_core::{ActionError, Engine, ErrorKind};

use super::cross_site::CrossSiteReports;
use super::{client_assets, fallback, reply, request_path};
use crate::ws::{UpgradeState, upgrade};

/// The table of action paths. It is searched before axum's router, so an application's own route cannot hide an action.
pub(super) struct ActionRoutes(matchit::Router<PathActions>);

/// The actions of one path by method.
#[derive(Clone)]
struct PathActions {
    route: Arc<str>,
    by_method: Arc<[(action::Method, Arc<RegisteredAction>)]>,
    allowed: Arc<str>,
}

impl ActionRoutes {
    /// Builds the table from the routes of every action.
    ///
    /// # Errors
    ///
    /// Two paths conflict: a request could match both.
    pub(super) fn new(engine: &Engine) -> Result<Self, BoxError> {
        let prefix = engine.config().web.prefix.trim_end_matches('/');
        let mut table = matchit::Router::new();
        for (path, by_method) in by_path(engine) {
            let allowed = reply::allowed_methods(by_method.iter().map(|(method, _)| *method)).into();
            let full = format!("{prefix}{path}");
            let literal = request_path::declared(&full);
            let actions = PathActions { route: full.as_str().into(), by_method: by_method.into(), allowed };
            let is_catch_all = full.rsplit('/').next().is_some_and(|last| last.starts_with("{*"));
            if !full.ends_with('/') && !is_catch_all {
                let with_slash = format!("{literal}/");
                table.insert(with_slash, actions.clone()).map_err(|error| format!("the path {full}/: {error}"))?;
            }
            table.insert(literal, actions).map_err(|error| format!("the path {full}: {error}"))?;
        }
        Ok(Self(table))
    }

    /// Returns the actions of a path in its [normal form](request_path::normalize); `None` if it has none.
    pub(super) fn find<'a>(&'a self, path: &'a str) -> Option<PathMatch<'a>> {
        let found = self.0.at(path).ok()?;
        Some(PathMatch { actions: found.value, params: found.params })
    }
}

/// A path of the table that matched a request, with the values of its parameters.
pub(super) struct PathMatch<'a> {
    actions: &'a PathActions,
    params: matchit::Params<'a, 'a>,
}

impl<'a> PathMatch<'a> {
    /// Returns the action of a method; `HEAD` has that of `GET`.
    pub(super) fn action(&self, method: &Method) -> Option<&'a Arc<RegisteredAction>> {
        let wanted = method_of(method);
        self.actions.by_method.iter().find(|(method, _)| method.as_str() == wanted).map(|(_, action)| action)
    }

    /// Returns the path as declared, with the names of its parameters.
    pub(super) fn route(&self) -> Arc<str> {
        self.actions.route.clone()
    }

    /// Returns the methods of the path, for `Allow`.
    pub(super) fn allowed(&self) -> &'a str {
        &self.actions.allowed
    }

    /// Returns the parameters of the path, percent-decoded.
    ///
    /// # Errors
    ///
    /// `malformed` if one is not percent-encoded UTF-8.
    pub(super) fn params(&self) -> impl Iterator<Item = (&str, Result<String, ActionError>)> {
        self.params.iter().map(|(name, value)| (name, percent_decoded(value)))
    }
}

/// Returns the method whose action serves a request: `HEAD` is a `GET` without the body.
pub(super) fn method_of(method: &Method) -> &str {
    if method == Method::HEAD { "GET" } else { method.as_str() }
}

/// Percent-decodes a value; `+` is a space here too.
fn percent_decoded(value: &str) -> Result<String, ActionError> {
    if !value.bytes().any(|byte| matches!(byte, b'+' | b'%')) {
        return Ok(value.to_owned());
    }
    let with_spaces = value.replace('+', " ");
    let text = percent_decode_str(&with_spaces).decode_utf8().map(std::borrow::Cow::into_owned);
    let malformed = |_| ActionError::of(ErrorKind::Malformed, "the path is not percent-encoded UTF-8");
    text.map_err(malformed)
}

/// Builds the table of the paths of `App::cross_site`.
///
/// # Errors
///
/// A path is not one of a route, is given twice, or is one of an action.
pub(super) fn cross_site_paths(paths: &[String], actions: &ActionRoutes) -> Result<matchit::Router<()>, BoxError> {
    let mut table = matchit::Router::new();
    for path in paths {
        if !path.starts_with('/') {
            return Err(format!("App::cross_site({path:?}): a path starts with `/`").into());
        }
        let literal = request_path::declared(path);
        if actions.find(&literal).is_some() {
            return Err(
                format!("App::cross_site({path:?}): an action has this path: write #[action(cross_site)]").into()
            );
        }
        table.insert(literal, ()).map_err(|error| format!("App::cross_site({path:?}): {error}"))?;
    }
    Ok(table)
}

fn by_path(engine: &Engine) -> BTreeMap<String, Vec<(action::Method, Arc<RegisteredAction>)>> {
    let mut paths: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for action in engine.registry().actions() {
        for route in action.def.routes {
            paths.entry(path_of(action.def, route)).or_default().push((route.method, action.clone()));
        }
    }
    paths
}

/// The router behind the actions: the WebSocket endpoint, the browser client, an application's own routes, files.
pub(super) fn router(engine: &Engine, app_routes: Router, reports: Arc<CrossSiteReports>) -> Router {
    let upgrade_state = Arc::new(UpgradeState::new(engine.clone(), reports));
    // The application's routes are the fallback, so that none of them can hide these.
    Router::new()
        .route(&engine.config().websocket.path, any(upgrade).with_state(upgrade_state))
        .route(CLIENT_PATHS[0], any(client_assets::module))
        .route(CLIENT_PATHS[1], any(client_assets::types))
        .fallback_service(fallback::router(engine, app_routes))
}
