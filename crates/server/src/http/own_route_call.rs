//! Guards, and everything else that a call has, for the handlers of an application's own routes.

use std::sync::{Arc, OnceLock};

use axum::extract::{FromRequestParts, RawPathParams};
use axum::response::{IntoResponse, Response};
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
            Err(refused) if call.0.shows_causes => Err(refused.showing_cause().into()),
            Err(refused) => Err(refused.into()),
        }
    }
}

/// The call that a request to an own route is, in its extensions. Its context is made when a handler asks for a guard.
#[derive(Clone)]
pub(super) struct OwnRouteCall(Arc<RouteCall>);

struct RouteCall {
    engine: Engine,
    identity: Identity,
    shows_causes: bool,
    context: OnceLock<Context>,
}

impl OwnRouteCall {
    pub(super) fn new(engine: Engine, identity: Identity, shows_causes: bool) -> Self {
        Self(Arc::new(RouteCall { engine, identity, shows_causes, context: OnceLock::new() }))
    }

    async fn context(&self, parts: &mut Parts) -> Result<Context, ActionError> {
        if let Some(context) = self.0.context.get() {
            return Ok(context.clone());
        }
        let RouteCall { engine, identity, .. } = &*self.0;
        let mut params = Params::default();
        if let Some(query) = parts.uri.query() {
            params.push_query(query)?;
        }
        // A fallback has no path with parameters.
        if let Ok(path) = RawPathParams::from_request_parts(parts, &()).await {
            path.iter().try_for_each(|(name, value)| params.push_path(name, value.to_owned()))?;
        }
        let caller = Caller::http(identity.fingerprint.clone(), identity.remote(), parts.headers.clone());
        let (caller, uri) = (caller.local(identity.is_local), parts.uri.clone());
        let request = RouteRequest { uri, params, caller, id: identity.request.clone() };
        Ok(self.0.context.get_or_init(|| dispatch::route_context(engine, request)).clone())
    }

    /// Adds what the handler's call has for the head of its response. From here on nothing can be added.
    pub(super) fn finish(&self, response: &mut Response) {
        if let Some(head) = self.0.context.get().and_then(dispatch::take_head) {
            head.add_to(response.headers_mut());
            exchange::keep_cookies_from_shared_caches(response.headers_mut());
        }
    }
}
