//! The one form of a path that routes are looked up by.

use std::borrow::Cow;

use http::Uri;
use http::uri::PathAndQuery;

/// An escape turns a segment into `.` or `..`: a path that a proxy in front has read otherwise.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DotSegment;

/// Brings the path of a request to the form of RFC 3986, 6.2.2: escapes of unreserved characters are decoded, all
/// others have capital letters, and bytes beyond ASCII are escaped. What is still escaped is decoded once, in the
/// parameter that it belongs to. A path without escapes, as most have, is not touched.
///
/// # Errors
///
/// [`DotSegment`] for `%2e%2e` and the like.
pub(super) fn normalize(uri: &mut Uri) -> Result<(), DotSegment> {
    let path = uri.path();
    // Without an early end, which compiles to SIMD.
    if !path.bytes().fold(false, |found, byte| found | !byte.is_ascii() | (byte == b'%')) {
        return Ok(());
    }
    let normal = normal_form(path);
    let has_dots = |(raw, normal): (&str, &str)| raw != normal && matches!(normal, "." | "..");
    if path.split('/').zip(normal.split('/')).any(has_dots) {
        return Err(DotSegment);
    }
    if normal == path {
        return Ok(());
    }
    let target = match uri.query() {
        Some(query) => format!("{normal}?{query}"),
        None => normal.into_owned(),
    };
    if let Ok(target) = PathAndQuery::try_from(target) {
        let mut parts = std::mem::take(uri).into_parts();
        parts.path_and_query = Some(target);
        *uri = Uri::from_parts(parts).unwrap_or_default();
    }
    Ok(())
}

/// Brings the literals of a declared path to the same form; names in braces are left alone.
pub(super) fn declared(path: &str) -> String {
    let segments = path.split('/').map(|segment| match segment.contains('{') {
        true => segment.into(),
        false => normal_form(segment),
    });
    segments.collect::<Vec<Cow<'_, str>>>().join("/")
}

fn normal_form(path: &str) -> Cow<'_, str> {
    let bytes = path.as_bytes();
    let mut normal = String::with_capacity(bytes.len() + 16);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match escaped(&bytes[at..]) {
            Some(byte) if is_unreserved(byte) => normal.push(char::from(byte)),
            Some(byte) => push_escape(&mut normal, byte),
            None if byte.is_ascii() => normal.push(char::from(byte)),
            None => push_escape(&mut normal, byte),
        }
        at += if escaped(&bytes[at..]).is_some() { 3 } else { 1 };
    }
    if normal == path { path.into() } else { normal.into() }
}

/// The byte that an escape at the start stands for.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn push_escape(text: &mut String, byte: u8) {
    let digit = |value: u8| char::from(b"0123456789ABCDEF"[usize::from(value)]);
    text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_form() {
        for (sent, expected) in [
            ("/api/status", Ok("/api/status")),
            ("/api/st%61tus", Ok("/api/status")),
            ("/%61pi/st%61tus?a=%61", Ok("/api/status?a=%61")),
            ("/api/rooms/%6Cist", Ok("/api/rooms/list")),
            ("/api/a%2Fb", Ok("/api/a%2Fb")),
            ("/api/a%2fb", Ok("/api/a%2Fb")),
            ("/api/a%252Fb", Ok("/api/a%252Fb")),
            ("/api/a%2561", Ok("/api/a%2561")),
            ("/api/a%00b", Ok("/api/a%00b")),
            ("/api/a%20b+c%2Bd", Ok("/api/a%20b+c%2Bd")),
            ("/k%c3%a4se", Ok("/k%C3%A4se")),
            ("/k\u{e4}se", Ok("/k%C3%A4se")),
            ("/a%7Eb%2Ec", Ok("/a~b.c")),
            ("/a%", Ok("/a%")),
            ("/a%4", Ok("/a%4")),
            ("/a%zz%61", Ok("/a%zza")),
            ("/%2e%2e/etc", Err(DotSegment)),
            ("/api/%2E", Err(DotSegment)),
            ("/api/.%2e/x", Err(DotSegment)),
            ("/api/%2e%2ejs", Ok("/api/..js")),
            ("/api/..%2fx", Ok("/api/..%2Fx")),
        ] {
            let mut uri: Uri = sent.parse().unwrap();
            let normal = normalize(&mut uri).map(|()| uri.to_string());
            assert_eq!(normal, expected.map(str::to_owned), "{sent}");
        }
        let mut uri: Uri = "http://host:80/%61?b".parse().unwrap();
        normalize(&mut uri).unwrap();
        assert_eq!(uri, "http://host:80/a?b");
    }

    #[test]
    fn declared_literals_have_the_same_form() {
        for (path, expected) in [
            ("/api/status", "/api/status"),
            ("/api/k\u{e4}se/{gr\u{f6}\u{df}e}", "/api/k%C3%A4se/{gr\u{f6}\u{df}e}"),
            ("/k%c3%a4se/%61/{*rest}", "/k%C3%A4se/a/{*rest}"),
        ] {
            assert_eq!(declared(path), expected);
        }
    }
}
