//! Files as responses, with conditional requests and ranges by RFC 9110.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::{Method, StatusCode};
use phalanx_core::files::PublicFile;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};
use tokio_util::io::ReaderStream;

use super::compression::{Compressible, is_compressible};
use super::headers::list_elements;

/// The latest date that `Last-Modified` may have, since 1970: an HTTP date has four digits for the year.
const LATEST_DATE: Duration = Duration::from_secs(253_370_764_800);

/// The number of bytes of a file that are read at a time.
const CHUNK: usize = 64 * 1024;

/// Responds with the file, a part of it, 304 if the client has it already, or 412 if it must have another version.
pub(super) async fn respond(file: PublicFile, method: &Method, headers: &HeaderMap, cache: &str) -> Response {
    let modified = file.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let tag = format!("W/\"{:x}-{:x}\"", file.len, modified.as_millis());
    let validators = Validators { tag, modified: Some(file.modified) };
    let mut response = Response::new(Body::empty());
    validators.write_to(response.headers_mut());
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    if is_read && validators.is_refused(headers) {
        // Without the file's `Cache-Control`: a cache would send the 412 to others. The same below for 416.
        *response.status_mut() = StatusCode::PRECONDITION_FAILED;
        return response;
    }
    set(&mut response, CACHE_CONTROL, cache);
    if is_read && validators.is_fresh(headers) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        if is_compressible(file.mime, file.len) {
            response.extensions_mut().insert(Compressible);
        }
        return response;
    }
    set(&mut response, CONTENT_TYPE, &with_charset(file.mime));
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let range = if method == Method::GET { validators.range(headers, file.len) } else { RequestedRange::Full };
    let (start, end) = match range {
        RequestedRange::Full => (0, file.len),
        RequestedRange::Part(start, end) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            set(&mut response, CONTENT_RANGE, &format!("bytes {start}-{}/{}", end - 1, file.len));
            (start, end)
        }
        RequestedRange::Unsatisfiable => {
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            response.headers_mut().remove(CACHE_CONTROL);
            set(&mut response, CONTENT_RANGE, &format!("bytes */{}", file.len));
            return response;
        }
    };
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(end - start));
    if method != Method::HEAD {
        *response.body_mut() = match body_of_range(file, start, end - start).await {
            Ok(body) => body,
            Err(error) => return super::reply::error(&phalanx_core::ActionError::internal(error)),
        };
    }
    response
}

/// Returns exactly `len` bytes from `start`. If the file shrinks meanwhile, hyper aborts the response, because its
/// `Content-Length` was sent already.
async fn body_of_range(file: PublicFile, start: u64, len: u64) -> std::io::Result<Body> {
    let mut file = file.file;
    if start > 0 {
        file.seek(SeekFrom::Start(start)).await?;
    }
    Ok(Body::from_stream(ReaderStream::with_capacity(file.take(len), CHUNK)))
}

/// A file that is compiled into the program.
#[derive(Debug)]
pub(super) struct Asset {
    media: &'static str,
    bytes: &'static [u8],
    tag: OnceLock<String>,
}

impl Asset {
    pub(super) const fn new(media: &'static str, bytes: &'static [u8]) -> Self {
        Self { media, bytes, tag: OnceLock::new() }
    }
}

/// Responds with an asset, 304 if the client has it already, or 412 if it must have another version.
pub(super) fn asset_response(asset: &'static Asset, method: &Method, headers: &HeaderMap) -> Response {
    use std::hash::{DefaultHasher, Hasher};
    let tag = asset.tag.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        hasher.write(asset.bytes);
        format!("W/\"{:x}-{:x}\"", asset.bytes.len(), hasher.finish())
    });
    let validators = Validators { tag: tag.clone(), modified: None };
    let mut response = Response::new(Body::empty());
    validators.write_to(response.headers_mut());
    if validators.is_refused(headers) {
        *response.status_mut() = StatusCode::PRECONDITION_FAILED;
        return response;
    }
    set(&mut response, CACHE_CONTROL, "max-age=60, must-revalidate, public");
    if validators.is_fresh(headers) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        if is_compressible(asset.media, asset.bytes.len() as u64) {
            response.extensions_mut().insert(Compressible);
        }
        return response;
    }
    set(&mut response, CONTENT_TYPE, asset.media);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(asset.bytes.len()));
    if method != Method::HEAD {
        *response.body_mut() = Body::from(Bytes::from_static(asset.bytes));
    }
    response
}

/// The validators of a file: conditional requests compare them with those of the client's copy.
struct Validators {
    tag: String,
    modified: Option<SystemTime>,
}

/// The part of a file that a request wants.
#[derive(Debug, PartialEq, Eq)]
enum RequestedRange {
    Full,
    /// From the first offset to before the second.
    Part(u64, u64),
    Unsatisfiable,
}

impl Validators {
    fn write_to(&self, headers: &mut HeaderMap) {
        if let Ok(tag) = HeaderValue::from_str(&self.tag) {
            headers.insert(ETAG, tag);
        }
        let modified =
            self.modified.map(|modified| httpdate::fmt_http_date(modified.clamp(UNIX_EPOCH, UNIX_EPOCH + LATEST_DATE)));
        if let Some(Ok(date)) = modified.map(|date| HeaderValue::from_str(&date)) {
            headers.insert(LAST_MODIFIED, date);
        }
    }

    /// Whether the client wants nothing but a version that the file no longer has. `If-Match` overrides
    /// `If-Unmodified-Since`, and compares tags strongly: no weak one matches.
    fn is_refused(&self, headers: &HeaderMap) -> bool {
        if headers.contains_key(IF_MATCH) {
            let is_strong = !self.tag.starts_with("W/");
            return !list_elements(headers, &IF_MATCH).any(|tag| tag == "*" || is_strong && tag == self.tag);
        }
        let since = date(headers, &IF_UNMODIFIED_SINCE).zip(self.modified);
        since.is_some_and(|(since, modified)| whole_seconds(modified) > whole_seconds(since))
    }

    /// Whether the client's copy is current. `If-None-Match` overrides `If-Modified-Since`, and tags are compared
    /// weakly. A client that sends `no-cache` gets the file again.
    fn is_fresh(&self, headers: &HeaderMap) -> bool {
        let cache = headers.get_all(CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
        if cache.flat_map(|line| line.split(',')).any(|word| word.trim().eq_ignore_ascii_case("no-cache")) {
            return false;
        }
        if headers.contains_key(IF_NONE_MATCH) {
            let opaque = self.tag.trim_start_matches("W/");
            return list_elements(headers, &IF_NONE_MATCH)
                .any(|tag| tag == "*" || tag.trim_start_matches("W/") == opaque);
        }
        match (date(headers, &IF_MODIFIED_SINCE), self.modified) {
            (Some(since), Some(modified)) => whole_seconds(modified) <= whole_seconds(since),
            _ => false,
        }
    }

    /// Returns the requested range. Several ranges, or a range of another version of the file, get the full file.
    fn range(&self, headers: &HeaderMap, len: u64) -> RequestedRange {
        let Some(range) = headers.get(RANGE).and_then(|range| range.to_str().ok()) else { return RequestedRange::Full };
        if headers.contains_key(IF_RANGE) {
            // A weak tag never matches here: only a date can.
            let same = date(headers, &IF_RANGE).zip(self.modified);
            if same.is_none_or(|(sent, modified)| whole_seconds(sent) != whole_seconds(modified)) {
                return RequestedRange::Full;
            }
        }
        parse_range(range, len)
    }
}

fn parse_range(range: &str, len: u64) -> RequestedRange {
    let Some(spec) = range.trim().strip_prefix("bytes=") else { return RequestedRange::Full };
    let Some((first, last)) = spec.trim().split_once('-').filter(|_| !spec.contains(',')) else {
        return RequestedRange::Full;
    };
    match (first.trim().parse::<u64>().ok(), last.trim().parse::<u64>().ok()) {
        (None, Some(suffix)) if first.trim().is_empty() => match suffix.min(len) {
            0 => RequestedRange::Unsatisfiable,
            suffix => RequestedRange::Part(len - suffix, len),
        },
        (Some(first), None) if last.trim().is_empty() => {
            if first < len {
                RequestedRange::Part(first, len)
            } else {
                RequestedRange::Unsatisfiable
            }
        }
        (Some(first), Some(last)) if first <= last => {
            if first < len {
                RequestedRange::Part(first, last.saturating_add(1).min(len))
            } else {
                RequestedRange::Unsatisfiable
            }
        }
        _ => RequestedRange::Full,
    }
}

fn date(headers: &HeaderMap, name: &http::HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

fn whole_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn with_charset(mime: &str) -> String {
    let is_text = mime.starts_with("text/")
        || matches!(mime, "application/javascript" | "application/json" | "image/svg+xml" | "application/xml");
    if is_text { format!("{mime}; charset=utf-8") } else { mime.to_owned() }
}

fn set(response: &mut Response, name: http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_parsed_by_rfc_9110() {
        for (range, expected) in [
            ("bytes=0-0", RequestedRange::Part(0, 1)),
            ("bytes=0-9", RequestedRange::Part(0, 10)),
            ("bytes=0-99", RequestedRange::Part(0, 10)),
            ("bytes=4-", RequestedRange::Part(4, 10)),
            ("bytes=-3", RequestedRange::Part(7, 10)),
            ("bytes=-99", RequestedRange::Part(0, 10)),
            ("bytes=10-", RequestedRange::Unsatisfiable),
            ("bytes=-0", RequestedRange::Unsatisfiable),
            ("bytes=5-4", RequestedRange::Full),
            ("bytes=a-b", RequestedRange::Full),
            ("bytes=0-1,3-4", RequestedRange::Full),
            ("lines=0-1", RequestedRange::Full),
            ("bytes=", RequestedRange::Full),
            ("bytes=18446744073709551615-", RequestedRange::Unsatisfiable),
            ("bytes=0-18446744073709551615", RequestedRange::Part(0, 10)),
        ] {
            assert_eq!(parse_range(range, 10), expected, "{range}");
        }
        assert_eq!(parse_range("bytes=0-0", 0), RequestedRange::Unsatisfiable);
    }

    #[test]
    fn conditional_requests_recognise_a_current_copy() {
        let modified = UNIX_EPOCH + Duration::from_millis(1_000_500);
        let validators = Validators { tag: "W/\"b-1f\"".into(), modified: Some(modified) };
        let check = |pairs: &[(http::HeaderName, &str)], fresh: bool| {
            let headers = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            assert_eq!(validators.is_fresh(&headers), fresh, "{pairs:?}");
        };
        let (at, before) = ("Thu, 01 Jan 1970 00:16:40 GMT", "Thu, 01 Jan 1970 00:16:39 GMT");
        check(&[], false);
        check(&[(IF_NONE_MATCH, "W/\"b-1f\"")], true);
        check(&[(IF_NONE_MATCH, "\"b-1f\"")], true);
        check(&[(IF_NONE_MATCH, "\"x\", W/\"b-1f\"")], true);
        check(&[(IF_NONE_MATCH, "*")], true);
        check(&[(IF_NONE_MATCH, "\"x\"")], false);
        check(&[(IF_MODIFIED_SINCE, at)], true);
        check(&[(IF_MODIFIED_SINCE, before)], false);
        check(&[(IF_MODIFIED_SINCE, "yesterday")], false);
        check(&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, at)], false);
        check(&[(IF_NONE_MATCH, "*"), (CACHE_CONTROL, "max-age=0, No-Cache")], false);
        check(&[(IF_NONE_MATCH, "*"), (CACHE_CONTROL, "max-age=0")], true);
    }

    #[test]
    fn preconditions_refuse_a_file_that_has_changed() {
        let modified = UNIX_EPOCH + Duration::from_millis(1_000_500);
        let check = |tag: &str, pairs: &[(http::HeaderName, &str)], refused: bool| {
            let validators = Validators { tag: tag.into(), modified: Some(modified) };
            let headers = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            assert_eq!(validators.is_refused(&headers), refused, "{tag} {pairs:?}");
        };
        let (at, before) = ("Thu, 01 Jan 1970 00:16:40 GMT", "Thu, 01 Jan 1970 00:16:39 GMT");
        let (weak, strong) = ("W/\"b\"", "\"b\"");
        check(weak, &[], false);
        check(weak, &[(IF_MATCH, "*")], false);
        check(weak, &[(IF_MATCH, weak)], true);
        check(weak, &[(IF_MATCH, strong)], true);
        check(strong, &[(IF_MATCH, "\"x\", \"b\"")], false);
        check(strong, &[(IF_MATCH, "\"x\"")], true);
        check(strong, &[(IF_MATCH, weak)], true);
        check(weak, &[(IF_UNMODIFIED_SINCE, at)], false);
        check(weak, &[(IF_UNMODIFIED_SINCE, before)], true);
        check(weak, &[(IF_UNMODIFIED_SINCE, "yesterday")], false);
        check(weak, &[(IF_MATCH, "*"), (IF_UNMODIFIED_SINCE, before)], false);
        check(strong, &[(IF_MATCH, "\"x\""), (IF_UNMODIFIED_SINCE, at)], true);
    }
}
