//! A file as a response: conditional requests and ranges by RFC 9110.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{Method, StatusCode};
use phalanx_core::files::PublicFile;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};
use tokio_util::io::ReaderStream;

/// Seconds from 1970 to the year 9999: dates of HTTP begin there and have four digits for the year.
const LATEST_DATE: Duration = Duration::from_secs(253_370_764_800);

/// How much of a file is read at once.
const CHUNK: usize = 64 * 1024;

/// Answers a file, a part of it, or that the client has it already.
pub(super) async fn respond(file: PublicFile, method: &Method, headers: &HeaderMap, cache: &str) -> Response {
    let modified = file.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let tag = format!("W/\"{:x}-{:x}\"", file.len, modified.as_millis());
    let known = Known { tag, modified: Some(file.modified) };
    let mut response = Response::new(Body::empty());
    known.describe(response.headers_mut());
    set(&mut response, CACHE_CONTROL, cache);
    if matches!(*method, Method::GET | Method::HEAD) && known.is_fresh(headers) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    set(&mut response, CONTENT_TYPE, &with_charset(file.mime));
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let asked = if method == Method::GET { known.range(headers, file.len) } else { Asked::All };
    let (start, end) = match asked {
        Asked::All => (0, file.len),
        Asked::Part(start, end) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            set(&mut response, CONTENT_RANGE, &format!("bytes {start}-{}/{}", end - 1, file.len));
            (start, end)
        }
        Asked::Nothing => {
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            set(&mut response, CONTENT_RANGE, &format!("bytes */{}", file.len));
            return response;
        }
    };
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(end - start));
    if method != Method::HEAD {
        *response.body_mut() = match stream(file, start, end - start).await {
            Ok(body) => body,
            Err(error) => return super::reply::error(&phalanx_core::ActionError::internal(error)),
        };
    }
    response
}

/// Exactly `len` bytes from `start`. If the file shrinks meanwhile, hyper breaks off: the length was announced.
async fn stream(file: PublicFile, start: u64, len: u64) -> std::io::Result<Body> {
    let mut file = file.file;
    if start > 0 {
        file.seek(SeekFrom::Start(start)).await?;
    }
    Ok(Body::from_stream(ReaderStream::with_capacity(file.take(len), CHUNK)))
}

/// Bytes that are part of the program, served like a file.
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

/// Answers an asset, or that the client has it already.
pub(super) fn asset(asset: &'static Asset, method: &Method, headers: &HeaderMap) -> Response {
    use std::hash::{DefaultHasher, Hasher};
    let tag = asset.tag.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        hasher.write(asset.bytes);
        format!("W/\"{:x}-{:x}\"", asset.bytes.len(), hasher.finish())
    });
    let known = Known { tag: tag.clone(), modified: None };
    let mut response = Response::new(Body::empty());
    known.describe(response.headers_mut());
    set(&mut response, CACHE_CONTROL, "max-age=60, must-revalidate, public");
    if known.is_fresh(headers) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    set(&mut response, CONTENT_TYPE, asset.media);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(asset.bytes.len()));
    if method != Method::HEAD {
        *response.body_mut() = Body::from(Bytes::from_static(asset.bytes));
    }
    response
}

/// What is known of the content, to compare with what a client has.
struct Known {
    tag: String,
    modified: Option<SystemTime>,
}

/// What of it is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    All,
    /// From the first to before the second.
    Part(u64, u64),
    Nothing,
}

impl Known {
    fn describe(&self, headers: &mut HeaderMap) {
        if let Ok(tag) = HeaderValue::from_str(&self.tag) {
            headers.insert(ETAG, tag);
        }
        let modified =
            self.modified.map(|modified| httpdate::fmt_http_date(modified.clamp(UNIX_EPOCH, UNIX_EPOCH + LATEST_DATE)));
        if let Some(Ok(date)) = modified.map(|date| HeaderValue::from_str(&date)) {
            headers.insert(LAST_MODIFIED, date);
        }
    }

    /// `If-None-Match` wins over `If-Modified-Since`; tags are compared weakly. A client that wants no cache is told anew.
    fn is_fresh(&self, headers: &HeaderMap) -> bool {
        let cache = headers.get_all(CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
        if cache.flat_map(|line| line.split(',')).any(|word| word.trim().eq_ignore_ascii_case("no-cache")) {
            return false;
        }
        if headers.contains_key(IF_NONE_MATCH) {
            let opaque = self.tag.trim_start_matches("W/");
            let lines = headers.get_all(IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
            let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
            return tags.any(|tag| tag == "*" || tag.trim_start_matches("W/") == opaque);
        }
        match (date(headers, &IF_MODIFIED_SINCE), self.modified) {
            (Some(since), Some(modified)) => whole_seconds(modified) <= whole_seconds(since),
            _ => false,
        }
    }

    /// One range is answered in part; several are answered as a whole, as is a range of another version.
    fn range(&self, headers: &HeaderMap, len: u64) -> Asked {
        let Some(range) = headers.get(RANGE).and_then(|range| range.to_str().ok()) else { return Asked::All };
        if headers.contains_key(IF_RANGE) {
            // A weak tag never matches here: only a date can.
            let same = date(headers, &IF_RANGE).zip(self.modified);
            if same.is_none_or(|(asked, modified)| whole_seconds(asked) != whole_seconds(modified)) {
                return Asked::All;
            }
        }
        parse_range(range, len)
    }
}

fn parse_range(range: &str, len: u64) -> Asked {
    let Some(spec) = range.trim().strip_prefix("bytes=") else { return Asked::All };
    let Some((first, last)) = spec.trim().split_once('-').filter(|_| !spec.contains(',')) else { return Asked::All };
    match (first.trim().parse::<u64>().ok(), last.trim().parse::<u64>().ok()) {
        (None, Some(suffix)) if first.trim().is_empty() => match suffix.min(len) {
            0 => Asked::Nothing,
            suffix => Asked::Part(len - suffix, len),
        },
        (Some(first), None) if last.trim().is_empty() => match first < len {
            true => Asked::Part(first, len),
            false => Asked::Nothing,
        },
        (Some(first), Some(last)) if first <= last => match first < len {
            true => Asked::Part(first, last.saturating_add(1).min(len)),
            false => Asked::Nothing,
        },
        _ => Asked::All,
    }
}

fn date(headers: &HeaderMap, name: &http::HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

fn whole_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn with_charset(mime: &str) -> String {
    let text = mime.starts_with("text/")
        || matches!(mime, "application/javascript" | "application/json" | "image/svg+xml" | "application/xml");
    if text { format!("{mime}; charset=utf-8") } else { mime.to_owned() }
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
    fn a_range_is_read_as_the_standard_says() {
        for (range, expected) in [
            ("bytes=0-0", Asked::Part(0, 1)),
            ("bytes=0-9", Asked::Part(0, 10)),
            ("bytes=0-99", Asked::Part(0, 10)),
            ("bytes=4-", Asked::Part(4, 10)),
            ("bytes=-3", Asked::Part(7, 10)),
            ("bytes=-99", Asked::Part(0, 10)),
            ("bytes=10-", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=5-4", Asked::All),
            ("bytes=a-b", Asked::All),
            ("bytes=0-1,3-4", Asked::All),
            ("lines=0-1", Asked::All),
            ("bytes=", Asked::All),
            ("bytes=18446744073709551615-", Asked::Nothing),
            ("bytes=0-18446744073709551615", Asked::Part(0, 10)),
        ] {
            assert_eq!(parse_range(range, 10), expected, "{range}");
        }
        assert_eq!(parse_range("bytes=0-0", 0), Asked::Nothing);
    }

    #[test]
    fn a_client_that_has_it_is_told_so() {
        let modified = UNIX_EPOCH + Duration::from_millis(1_000_500);
        let known = Known { tag: "W/\"b-1f\"".into(), modified: Some(modified) };
        let check = |pairs: &[(http::HeaderName, &str)], fresh: bool| {
            let headers = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            assert_eq!(known.is_fresh(&headers), fresh, "{pairs:?}");
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
}
