//! Guards, and everything else that a call has, for the handlers of an application's own routes.

use std::sync::{Arc, OnceLock};

use axum::extract::{FromRequestParts, RawPathParams};
use axum::response::{IntoResponse, Response};
use http::Uri;
use http::request::Parts;
use phalanx_core::dispatch::{self, RouteRequest};
use phalanx_core::{ActionError, Caller, Context, Engine, FromContext, Params};

use super::identity::Identity;
use super::{exchange, reply};

/// A guard as a parameter of a handler of axum: [`FromContext`] is what an action has, this is the same for a route of
/// `App::router`.
///
/// `Guard<Context>` has all of the call: cookies, state, and what its guards share. A cookie that is set by it goes with
/// whatever the handler answers.
///
/// The guards of a request share one call, with the path that the client sent, in nested routers too. Its headers and the
/// parameters of its path are those that axum has when the first guard runs: a guard in a layer around `nest_service` has none
/// of the parameters within.
#[derive(Clone, Copy, Debug)]
pub struct Guard<G>(pub G);

/// An error of a handler of axum, answered as that of an action is: `?` makes it of an [`ActionError`].
#[derive(Debug)]
pub struct Refused(ActionError);

impl From<ActionError> for Refused {
    fn from(error: ActionError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        reply::error(&self.0)
    }
}

impl<G: FromContext, S: Send + Sync> FromRequestParts<S> for Guard<G> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let call = parts.extensions.get::<OwnRouteCall>().cloned();
        let call = call.ok_or_else(|| ActionError::internal("the route is not served by a node"))?;
        let context = call.context(parts).await?;
        match G::from_context(&context).await {
            Ok(guard) => Ok(Self(guard)),
            Err(refused) if Identity::of(&parts.extensions).shows_causes => Err(refused.showing_cause().into()),
            Err(refused) => Err(refused.into()),
        }
    }
}

/// The call that a request to an own route is, in its extensions. Its context is made when a handler asks for a guard.
#[derive(Clone)]
pub(super) struct OwnRouteCall(Arc<RouteCall>);

struct RouteCall {
    engine: Engine,
    /// As the client sent it: nested routers cut their prefix off that of the request.
    uri: Uri,
    /// Whether the session of its cookie counts.
    counts_session: bool,
    /// `None` if the response came before any guard.
    context: OnceLock<Option<Context>>,
}

impl OwnRouteCall {
    pub(super) fn new(engine: Engine, uri: Uri, counts_session: bool) -> Self {
        Self(Arc::new(RouteCall { engine, uri, counts_session, context: OnceLock::new() }))
    }

    async fn context(&self, parts: &mut Parts) -> Result<Context, ActionError> {
        let RouteCall { engine, uri, counts_session, context } = &*self.0;
        if let Some(Some(context)) = context.get() {
            return Ok(context.clone());
        }
        let mut params = Params::default();
        if let Some(query) = uri.query() {
            params.push_query(query)?;
        }
        // A fallback has no path with parameters.
        if let Ok(path) = RawPathParams::from_request_parts(parts, &()).await {
            path.iter().try_for_each(|(name, value)| params.push_path(name, value.to_owned()))?;
        }
        let identity = Identity::of(&parts.extensions);
        let mut caller = Caller::http(identity.fingerprint.clone(), identity.remote(), parts.headers.clone());
        if !counts_session {
            caller = dispatch::without_session_cookie(caller);
        }
        let caller = dispatch::showing_causes(caller, identity.shows_causes);
        let request = RouteRequest { uri: uri.clone(), params, caller, id: identity.request };
        let made = dispatch::route_context(engine, request);
        let context = context.get_or_init(|| Some(made.clone())).clone();
        Ok(context.unwrap_or_else(|| {
            dispatch::take_head(&made); // the response is on its way: a cookie would not be
            made
        }))
    }

    /// Adds what the handler's call has for the head of its response. From here on nothing can be added.
    pub(super) fn finish(&self, response: &mut Response) {
        if let Some(head) = self.0.context.get_or_init(|| None).as_ref().and_then(dispatch::take_head) {
            head.add_to(response.headers_mut());
        }
        exchange::keep_cookies_from_shared_caches(response.headers_mut());
    }
}
