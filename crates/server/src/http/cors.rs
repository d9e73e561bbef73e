//! Cross-origin requests: which pages of other sites may call, and which headers allow it.

use std::convert::Infallible;
use std::future::ready;

use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER,
};
use http::{Method, Request};
use phalanx_core::config::WebOrigin;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use super::allowed_hosts;

/// The CORS headers of a node; tower-http implements the rules.
#[derive(Debug)]
pub(super) struct Cors(CorsLayer);

impl Cors {
    /// Reads `web.cors_origins`, which were validated: `*` allows every origin, without cookies.
    pub(super) fn new(origins: &[String]) -> Option<Self> {
        if origins.is_empty() {
            return None;
        }
        let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let layer = CorsLayer::new().allow_methods(methods).allow_headers([CONTENT_TYPE, AUTHORIZATION]);
        let of_limits = ["ratelimit-policy", "ratelimit"].map(HeaderName::from_static);
        let layer = layer.expose_headers(of_limits.into_iter().chain([RETRY_AFTER]).collect::<Vec<_>>());
        if origins.iter().any(|origin| origin == "*") {
            return Some(Self(layer.allow_origin(Any)));
        }
        let allowed = allowed_hosts::parsed(origins);
        let is_allowed = move |origin: &HeaderValue, _: &http::request::Parts| {
            let origin = origin.to_str().ok().and_then(WebOrigin::parse);
            origin.is_some_and(|origin| allowed.iter().any(|allowed| allowed.is_same(&origin)))
        };
        Some(Self(layer.allow_origin(AllowOrigin::predicate(is_allowed)).allow_credentials(true)))
    }

    /// Adds the CORS headers for `origin` to a response.
    pub(super) async fn finish(&self, origin: Option<HeaderValue>, response: Response) -> Response {
        let headers = origin.map(|origin| (ORIGIN, origin)).into_iter().collect();
        self.apply(Method::GET, headers, response).await
    }

    /// Responds to a preflight request.
    pub(super) async fn preflight(&self, headers: HeaderMap) -> Response {
        self.apply(Method::OPTIONS, headers, Response::default()).await
    }

    async fn apply(&self, method: Method, headers: HeaderMap, response: Response) -> Response {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        let Ok(response) = self.0.layer(ready_service(response)).oneshot(request).await;
        response
    }
}

/// Whether a request is a preflight of a browser. Any other `OPTIONS` is routed like every method.
pub(super) fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// A service that returns `response`: it lets a tower layer modify a response that exists already.
pub(super) fn ready_service(
    response: Response,
) -> impl Service<Request<()>, Response = Response, Error = Infallible, Future: Send> + Send {
    let mut response = Some(response);
    service_fn(move |_| ready(Ok(response.take().expect("oneshot calls it once"))))
}
