//! Compression of response bodies.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, VARY,
};
use http::{Extensions, StatusCode, Version};
use http_body::Body as _;
use tower::{Layer, ServiceExt};
use tower_http::compression::CompressionLayer;

use super::cors;

/// Bodies below this size are sent uncompressed.
const COMPRESS_ABOVE: u64 = 1024;

/// Marks a response without a body, such as a 304, whose full response is sent compressed to clients that accept it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compressible;

/// Whether a body of this type and size is sent compressed to clients that accept it.
pub(super) fn is_compressible(media: &str, size: u64) -> bool {
    // Images are compressed already, but for SVG; so are zip files. Events would be delayed.
    let media = media.trim_start();
    let starts_with = |start: &str| media.get(..start.len()).is_some_and(|first| first.eq_ignore_ascii_case(start));
    let is_image = starts_with("image/") && !starts_with("image/svg+xml");
    size >= COMPRESS_ABOVE && !is_image && !starts_with("text/event-stream") && !starts_with("application/zip")
}

/// Says in `Vary` whether the response depends on `Accept-Encoding`, also where it is sent as it is: to `HEAD`, as a
/// range, as a 304, and to a client that accepts no encoding. Returns whether the body may be compressed.
pub(super) fn negotiate(response: &mut Response) -> bool {
    let varies = match response.extensions_mut().remove::<Compressible>() {
        Some(Compressible) => true,
        None => response.status().is_success() && varies(response),
    };
    if varies {
        let headers = response.headers_mut();
        let lines = headers.get_all(VARY).iter().filter_map(|line| line.to_str().ok());
        let mut names = lines.flat_map(|line| line.split(',')).map(str::trim);
        if !names.any(|name| name == "*" || name.eq_ignore_ascii_case("accept-encoding")) {
            headers.append(VARY, HeaderValue::from_static("accept-encoding"));
        }
    }
    varies && response.status().is_success() && !response.headers().contains_key(CONTENT_RANGE)
}

fn varies(response: &Response) -> bool {
    let (headers, body) = (response.headers(), response.body().size_hint().exact());
    // Most responses are small; a part of a larger one, and one to HEAD, say what the whole would be.
    let is_small = body.is_some_and(|size| (1..COMPRESS_ABOVE).contains(&size));
    if is_small && response.status() != StatusCode::PARTIAL_CONTENT || headers.contains_key(CONTENT_ENCODING) {
        return false;
    }
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let full = text(CONTENT_RANGE).map(|range| range.rsplit('/').next().unwrap_or_default());
    let size = match full.or_else(|| text(CONTENT_LENGTH)) {
        Some(size) => size.parse().unwrap_or(u64::MAX),
        None => body.unwrap_or(u64::MAX),
    };
    is_compressible(text(CONTENT_TYPE).unwrap_or_default(), size)
}

/// Compresses a response with the encoding that the client prefers; tower-http negotiates it.
pub(super) async fn compressed(response: Response, encodings: HeaderValue) -> Response {
    let status = response.status();
    // `negotiate` has decided that already.
    let layer = CompressionLayer::new().compress_when(|_: StatusCode, _: Version, _: &HeaderMap, _: &Extensions| true);
    let mut request = http::Request::new(());
    *request.headers_mut() = HeaderMap::from_iter([(ACCEPT_ENCODING, encodings)]);
    let Ok(response) = layer.layer(cors::ready_service(response)).oneshot(request).await;
    let mut response = response.map(Body::new);
    // A client that accepts no encoding gets the result, not a 406 after the action ran.
    *response.status_mut() = status;
    if response.headers().contains_key(CONTENT_ENCODING) {
        weaken_tag(response.headers_mut());
    }
    response
}

/// Makes a strong `ETag` weak: it stands for other bytes than those that are sent.
fn weaken_tag(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")) else { return };
    if let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
        headers.insert(ETAG, weak);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_that_are_compressed_already_are_left_alone() {
        for (media, size, expected) in [
            ("application/json; charset=utf-8", 1024, true),
            ("application/json", 1023, false),
            ("text/html", u64::MAX, true),
            ("", 2000, true),
            ("image/png", 2000, false),
            ("IMAGE/JPEG", 2000, false),
            ("image/svg+xml", 2000, true),
            ("text/event-stream", u64::MAX, false),
            ("application/zip", 2000, false),
        ] {
            assert_eq!(is_compressible(media, size), expected, "{media} {size}");
        }
    }

    #[test]
    fn vary_is_set_once_wherever_the_full_response_may_be_compressed() {
        let check = |status: u16, headers: &[(http::HeaderName, &str)], vary: &[&str], may_compress: bool| {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            for (name, value) in headers {
                response.headers_mut().append(name, value.parse().unwrap());
            }
            assert_eq!(negotiate(&mut response), may_compress, "{status} {headers:?}");
            let lines: Vec<_> = response.headers().get_all(VARY).iter().collect();
            assert_eq!(lines, vary, "{status} {headers:?}");
        };
        let large = (CONTENT_LENGTH, "2000");
        check(200, std::slice::from_ref(&large), &["accept-encoding"], true);
        check(200, &[large.clone(), (VARY, "Origin")], &["Origin", "accept-encoding"], true);
        check(200, &[large.clone(), (VARY, "origin, Accept-Encoding")], &["origin, Accept-Encoding"], true);
        check(200, &[large.clone(), (VARY, "*")], &["*"], true);
        check(200, &[large.clone(), (CONTENT_ENCODING, "br")], &[], false);
        check(200, &[(CONTENT_LENGTH, "20")], &[], false);
        check(206, &[(CONTENT_LENGTH, "20"), (CONTENT_RANGE, "bytes 0-19/2000")], &["accept-encoding"], false);
        check(206, &[(CONTENT_LENGTH, "20"), (CONTENT_RANGE, "bytes 0-19/200")], &[], false);
        check(404, &[large], &[], false);
    }

    #[test]
    fn a_strong_tag_becomes_weak() {
        for (tag, weak) in [("\"a\"", "W/\"a\""), ("W/\"a\"", "W/\"a\"")] {
            let mut headers = HeaderMap::from_iter([(ETAG, HeaderValue::from_static(tag))]);
            weaken_tag(&mut headers);
            assert_eq!(headers[ETAG], weak);
        }
    }
}
