//! Compression of response bodies.

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

/// Bodies below this size are sent uncompressed.
const COMPRESS_ABOVE: u64 = 1024;

/// Whether the body is large enough, successful and not encoded yet.
pub(super) fn is_worth_compressing(response: &Response) -> bool {
    let large = response.body().size_hint().exact().is_none_or(|bytes| bytes >= COMPRESS_ABOVE);
    large && response.status().is_success() && !response.headers().contains_key(CONTENT_ENCODING)
}

/// Compresses a response with the encoding that the client prefers; tower-http negotiates it.
pub(super) async fn compressed(response: Response, encodings: HeaderValue) -> Response {
    let status = response.status();
    let layer = CompressionLayer::new().compress_when(SizeAbove::new(COMPRESS_ABOVE).and(compressible()));
    let mut request = http::Request::new(());
    *request.headers_mut() = HeaderMap::from_iter([(ACCEPT_ENCODING, encodings)]);
    let Ok(response) = layer.layer(cors::ready_service(response)).oneshot(request).await;
    let mut response = response.map(Body::new);
    // A client that accepts no encoding gets the result, not a 406 after the action ran.
    *response.status_mut() = status;
    response
}

/// Skips images, event streams and zip files: they are compressed already, or would be delayed.
fn compressible() -> impl tower_http::compression::Predicate {
    use tower_http::compression::predicate::{NotForContentType, Predicate};
    NotForContentType::IMAGES.and(NotForContentType::SSE).and(NotForContentType::const_new("application/zip"))
}
