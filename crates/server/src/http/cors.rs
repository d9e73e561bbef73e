//! Who else may call from a browser page.

use std::convert::Infallible;
use std::future::ready;

use axum::response::Response;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN};
use http::{Method, Request};
use phalanx_core::initializer::BoxError;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

/// What pages of other sites may do; tower-http knows the rules.
#[derive(Debug)]
pub(super) struct Cors(CorsLayer);

impl Cors {
    /// Reads `web.cors_origins`: `*` means everybody, without cookies.
    ///
    /// # Errors
    ///
    /// An origin that is none.
    pub(super) fn new(origins: &[String]) -> Result<Option<Self>, BoxError> {
        if origins.is_empty() {
            return Ok(None);
        }
        let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let layer = CorsLayer::new().allow_methods(methods).allow_headers([CONTENT_TYPE, AUTHORIZATION]);
        if origins.iter().any(|origin| origin == "*") {
            return Ok(Some(Self(layer.allow_origin(Any))));
        }
        let origins = origins.iter().map(|origin| HeaderValue::from_str(origin)).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(Self(layer.allow_origin(AllowOrigin::list(origins)).allow_credentials(true))))
    }

    /// Puts on an answer what the page of `origin` may do with it.
    pub(super) async fn finish(&self, origin: Option<HeaderValue>, response: Response) -> Response {
        let headers = origin.map(|origin| (ORIGIN, origin)).into_iter().collect();
        self.pass(Method::GET, headers, response).await
    }

    /// Answers a browser that asks before it sends.
    pub(super) async fn preflight(&self, headers: HeaderMap) -> Response {
        self.pass(Method::OPTIONS, headers, Response::default()).await
    }

    async fn pass(&self, method: Method, headers: HeaderMap, response: Response) -> Response {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        let Ok(response) = self.0.layer(answered(response)).oneshot(request).await;
        response
    }
}

/// Whether a browser asks what it may send. Any other `OPTIONS` is for the path itself to answer.
pub(super) fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// A service that has its answer: for layers around what was answered already.
pub(super) fn answered(
    response: Response,
) -> impl Service<Request<()>, Response = Response, Error = Infallible, Future: Send> + Send {
    let mut response = Some(response);
    service_fn(move |_| ready(Ok(response.take().expect("it is called once"))))
}
