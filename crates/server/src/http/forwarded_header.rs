//! The header `Forwarded` of RFC 7239.

use std::borrow::Cow;
use std::net::IpAddr;

use http::HeaderMap;
use http::header::FORWARDED;

/// The facts that one proxy added: `for="[2001:db8::1]:80";proto=https;host=a.example`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ForwardedElement<'a> {
    pub(super) node: Option<Cow<'a, str>>,
    pub(super) proto: Option<Cow<'a, str>>,
    pub(super) host: Option<Cow<'a, str>>,
}

impl<'a> ForwardedElement<'a> {
    /// Parses an element; `None` if it breaks the syntax, or has a parameter twice.
    fn parse(text: &'a str) -> Option<Self> {
        let mut element = Self::default();
        for pair in UnquotedSplit::new(text, b';').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=')?;
            let value = unquoted(value)?;
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            let field = if is("for") {
                &mut element.node
            } else if is("proto") {
                &mut element.proto
            } else if is("host") {
                &mut element.host
            } else {
                continue;
            };
            if field.replace(value).is_some() {
                return None;
            }
        }
        Some(element)
    }

    /// Returns the address of the client of this proxy; `None` if the proxy hides it (`unknown`, `_name`).
    pub(super) fn address(&self) -> Option<IpAddr> {
        let node = self.node.as_deref()?;
        match node.strip_prefix('[') {
            Some(v6) => v6.split_once(']')?.0.parse().ok(),
            // The port may be a name: `1.2.3.4:_port`.
            None => node.parse().ok().or_else(|| node.split_once(':')?.0.parse().ok()),
        }
    }
}

/// Returns the elements over all lines, last one first; `None` stands for one that cannot be read.
///
/// They are split from the end: the last ones come from trusted proxies, and a quote that a client left open before them
/// must not swallow them.
pub(super) fn from_the_right(headers: &HeaderMap) -> impl Iterator<Item = Option<ForwardedElement<'_>>> {
    let lines = headers.get_all(FORWARDED).into_iter().rev();
    // A line that is not text is an element that breaks the syntax.
    let elements = lines.flat_map(|line| UnquotedSplit::new(line.to_str().unwrap_or("\""), b','));
    elements.map(str::trim).filter(|element| !element.is_empty()).map(ForwardedElement::parse)
}

/// Splits a text at a separator outside of quotes, from the end.
struct UnquotedSplit<'a> {
    rest: Option<&'a str>,
    separator: u8,
}

impl<'a> UnquotedSplit<'a> {
    fn new(text: &'a str, separator: u8) -> Self {
        Self { rest: Some(text), separator }
    }
}

impl<'a> Iterator for UnquotedSplit<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.take()?;
        let bytes = rest.as_bytes();
        let is_escaped = |at: usize| bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
        let mut is_quoted = false;
        for (at, byte) in bytes.iter().enumerate().rev() {
            if *byte == b'"' && !is_escaped(at) {
                is_quoted = !is_quoted;
            } else if *byte == self.separator && !is_quoted {
                self.rest = Some(&rest[..at]);
                return Some(&rest[at + 1..]);
            }
        }
        Some(rest)
    }
}

/// Returns a value without its quotes and escapes; `None` if it is empty, or a quote has no end.
fn unquoted(value: &str) -> Option<Cow<'_, str>> {
    let Some(quoted) = value.strip_prefix('"') else {
        return (!value.is_empty() && !value.contains('"')).then_some(Cow::Borrowed(value));
    };
    let inner = quoted.strip_suffix('"')?;
    if !inner.contains(['\\', '"']) {
        return Some(Cow::Borrowed(inner));
    }
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(next) = chars.next() {
        match next {
            '\\' => text.push(chars.next()?),
            '"' => return None,
            other => text.push(other),
        }
    }
    Some(Cow::Owned(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The elements of these lines as `for|proto|host`, last one first; `!` for one that cannot be read.
    fn read(lines: &[&str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED, http::HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let text = |field: Option<Cow<'_, str>>| field.unwrap_or(Cow::Borrowed("-")).into_owned();
        let element = |element: Option<ForwardedElement<'_>>| match element {
            None => "!".to_owned(),
            Some(read) => format!("{}|{}|{}", text(read.node), text(read.proto), text(read.host)),
        };
        from_the_right(&headers).map(element).collect()
    }

    #[test]
    fn elements_are_read_from_the_end_with_their_quotes() {
        for (lines, expected) in [
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], &["192.0.2.60|http|-"][..]),
            (&["For=\"[2001:db8:cafe::17]:4711\""], &["[2001:db8:cafe::17]:4711|-|-"]),
            (&["for=a, for=b", "for=c"], &["c|-|-", "b|-|-", "a|-|-"]),
            (&["for=\"a,b;c\";HOST=\"x:1\" ; Proto=HTTPS"], &["a,b;c|HTTPS|x:1"]),
            (&["for=\"a\\\"b,\\\\\", for=c"], &["c|-|-", "a\"b,\\|-|-"]),
            (&["for=unknown, for=_hidden;proto=https"], &["_hidden|https|-", "unknown|-|-"]),
            (&["host=a.example"], &["-|-|a.example"]),
            (&["", " , ;, "], &["-|-|-"]),
            // A client leaves a quote open; the proxy appends its element.
            (&["for=\"x, for=9.9.9.9;proto=https"], &["9.9.9.9|https|-", "!"]),
            (&["for=x\\\", for=\"9.9.9.9\""], &["9.9.9.9|-|-", "!"]),
            (&["for=x;for=y, for=z"], &["z|-|-", "!"]),
            (&["rubbish"], &["!"]),
            (&["for="], &["!"]),
            (&["for=\"a\\\""], &["!"]),
            (&["\u{e9}"], &["!"]),
        ] {
            assert_eq!(read(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn an_address_is_read_with_any_port_and_hidden_ones_are_none() {
        for (node, expected) in [
            ("192.0.2.60", Some("192.0.2.60")),
            ("192.0.2.60:80", Some("192.0.2.60")),
            ("192.0.2.60:_port", Some("192.0.2.60")),
            ("[::1]:80", Some("::1")),
            ("[::1]", Some("::1")),
            ("::1", Some("::1")),
            ("unknown", None),
            ("_hidden", None),
            ("_hidden:80", None),
            ("[::1", None),
            ("a.example", None),
        ] {
            let element = ForwardedElement { node: Some(node.into()), ..ForwardedElement::default() };
            assert_eq!(element.address(), expected.map(|ip| ip.parse().unwrap()), "{node}");
        }
    }
}
