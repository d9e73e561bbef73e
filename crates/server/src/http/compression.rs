//! Compression of responses.

use axum::body::Body;
use axum::response::Response;
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue};
use http_body::Body as _;
use tower::{Layer, ServiceExt};
use tower_http::compression::CompressionLayer;
use tower_http::compression::Predicate;
use tower_http::compression::predicate::SizeAbove;

use super::cors;

/// Bodies below this size are not worth compressing.
const COMPRESS_ABOVE: u64 = 1024;

pub(super) fn is_worth_compressing(response: &Response) -> bool {
    let large = response.body().size_hint().exact().is_none_or(|bytes| bytes >= COMPRESS_ABOVE);
    large && response.status().is_success() && !response.headers().contains_key(CONTENT_ENCODING)
}

/// Compresses a response in whatever the client accepts best; tower-http knows the rules.
pub(super) async fn compressed(response: Response, encodings: HeaderValue) -> Response {
    let status = response.status();
    let layer = CompressionLayer::new().compress_when(SizeAbove::new(COMPRESS_ABOVE).and(compressible()));
    let mut request = http::Request::new(());
    *request.headers_mut() = HeaderMap::from_iter([(ACCEPT_ENCODING, encodings)]);
    let Ok(response) = layer.layer(cors::answered(response)).oneshot(request).await;
    let mut response = response.map(Body::new);
    *response.status_mut() = status; // a client that accepts nothing gets what was done, not a 406 after it
    response
}

/// Images and event streams are left alone; everything else shrinks.
fn compressible() -> impl tower_http::compression::Predicate {
    use tower_http::compression::predicate::{NotForContentType, Predicate};
    NotForContentType::IMAGES.and(NotForContentType::SSE).and(NotForContentType::const_new("application/zip"))
}
