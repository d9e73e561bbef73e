//! Hosts and origins of the web, compared as browsers mean them: without case, with the default port filled in.

use std::net::Ipv6Addr;

/// A host with its port, if one is written: `example.com`, `example.com:8080`, `[::1]:8080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort<'a> {
    /// The host; an IPv6 address in its brackets.
    pub host: &'a str,
    /// The port, if there is one.
    pub port: Option<u16>,
}

impl<'a> HostPort<'a> {
    /// Parses the value of a `Host` header; `None` for what RFC 9110 does not allow there: nothing at all, a list, a
    /// user before the host, a port beyond 65535.
    pub fn parse(text: &'a str) -> Option<Self> {
        let end = match text.strip_prefix('[') {
            Some(rest) => rest.find(']')? + 2,
            None => text.bytes().position(|byte| !OF_NAME[usize::from(byte)]).unwrap_or(text.len()),
        };
        let (host, rest) = text.split_at_checked(end)?;
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) | None => return None,
        };
        let is_valid = if host.starts_with('[') { ipv6(host).is_some() } else { !host.is_empty() };
        is_valid.then_some(Self { host, port })
    }
}

/// The bytes of a name in a `Host` header: those of RFC 3986, section 3.2.2, without the comma, by which lists are made. A
/// table, because every request is checked.
static OF_NAME: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0_u8);
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'='
            );
        byte += 1;
    }
    table
};

/// An origin: `https://www.example.com`, `http://[::1]:8080`, `capacitor://localhost`.
///
/// `S` is `&str` for one that a client sends, which costs no allocation, and `Box<str>` for one of the settings.
#[derive(Clone, Copy, Debug)]
pub struct WebOrigin<S> {
    scheme: S,
    host: S,
    port: Option<u16>,
}

impl<'a> WebOrigin<&'a str> {
    /// Parses `scheme://host[:port]`; `None` for anything else, such as `null`, a path or a wildcard.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(of_scheme);
        let HostPort { host, port } = HostPort::parse(rest)?;
        let of_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let is_host = ipv6(host).is_some() || host.bytes().all(of_host);
        let is_whole = !rest.ends_with(':') && port != Some(0);
        (is_scheme && is_host && is_whole).then(|| Self { scheme, host, port: port.or_else(|| default_port(scheme)) })
    }

    /// Returns a copy that owns its text.
    pub fn to_boxed(&self) -> WebOrigin<Box<str>> {
        WebOrigin { scheme: self.scheme.into(), host: self.host.into(), port: self.port }
    }
}

impl<S: AsRef<str>> WebOrigin<S> {
    /// Whether the scheme is this one.
    pub fn has_scheme(&self, scheme: &str) -> bool {
        self.scheme.as_ref().eq_ignore_ascii_case(scheme)
    }

    /// Whether both are the same origin.
    pub fn is_same<T: AsRef<str>>(&self, other: &WebOrigin<T>) -> bool {
        self.has_scheme(other.scheme.as_ref()) && self.is_at(HostPort { host: other.host.as_ref(), port: other.port })
    }

    /// Whether this is the host and the port of the origin. A missing port is the default one of the origin's scheme.
    pub fn is_at(&self, host: HostPort<'_>) -> bool {
        let port = host.port.or_else(|| default_port(self.scheme.as_ref()));
        port == self.port && is_same_host(self.host.as_ref(), host.host)
    }
}

/// Whether an origin of the settings can be the one of a page. Pages of these schemes have the origin `null`, or one of
/// another scheme.
pub(super) fn is_page_origin(text: &str) -> bool {
    const WITHOUT_PAGES: [&str; 8] = ["ws", "wss", "file", "data", "blob", "about", "javascript", "filesystem"];
    WebOrigin::parse(text).is_some_and(|origin| !WITHOUT_PAGES.iter().any(|scheme| origin.has_scheme(scheme)))
}

fn default_port(scheme: &str) -> Option<u16> {
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    if is("http") {
        Some(80)
    } else if is("https") {
        Some(443)
    } else {
        None
    }
}

fn is_same_host(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || ipv6(one).is_some_and(|address| ipv6(other) == Some(address))
}

/// Parses an IPv6 address in brackets.
fn ipv6(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_header_is_one_host_with_an_optional_port() {
        for (text, host, port) in [
            ("a", "a", None),
            ("a:", "a", None),
            ("a:80", "a", Some(80)),
            ("A_b-c.example:65535", "A_b-c.example", Some(65535)),
            ("[::1]", "[::1]", None),
            ("[2001:db8::1]:8443", "[2001:db8::1]", Some(8443)),
        ] {
            assert_eq!(HostPort::parse(text), Some(HostPort { host, port }), "{text}");
        }
        for text in [
            "",
            ":80",
            "a, b",
            "a,b",
            "u@a",
            "a/b",
            "a b",
            "a:65536",
            "a:+80",
            "a:8x",
            "::1",
            "[::1",
            "[]",
            "[zz]:1",
            "[::1]x",
            "k\u{e4}se.example",
            "a\tb",
            "<a>",
            "a#b",
            "a?b",
            "a\\b",
        ] {
            assert_eq!(HostPort::parse(text), None, "{text}");
        }
    }

    #[test]
    fn origins_are_compared_without_case_and_with_default_ports() {
        let parse = |text| WebOrigin::parse(text).unwrap_or_else(|| panic!("{text}"));
        for (one, other, same) in [
            ("https://example.com", "https://EXAMPLE.com:443", true),
            ("http://example.com:80", "HTTP://example.com", true),
            ("http://example.com:443", "https://example.com:443", false),
            ("https://example.com", "http://example.com", false),
            ("https://example.com", "https://example.com.evil.example", false),
            ("https://example.com", "https://example.com.", false),
            ("https://example.com:8443", "https://example.com", false),
            ("http://[0:0:0:0:0:0:0:1]:80", "http://[::1]", true),
            ("capacitor://localhost", "capacitor://localhost", true),
            ("capacitor://localhost", "http://localhost", false),
            ("chrome-extension://abcdef", "chrome-extension://abcdef", true),
        ] {
            assert_eq!(parse(one).is_same(&parse(other).to_boxed()), same, "{one} {other}");
            assert_eq!(parse(other).is_same(&parse(one)), same, "{other} {one}");
        }
    }

    #[test]
    fn only_a_scheme_and_a_host_are_an_origin() {
        for text in [
            "",
            "null",
            "*",
            "example.com",
            "example.com:443",
            "https://",
            "https://:443",
            "https://a/",
            "https://a/b",
            "https://a:",
            "https://a:0",
            "https://a:65536",
            "https://u@a",
            "https://*.a",
            "https://k\u{e4}se.example",
            "https://a,https://b",
            "1a://a",
            "://a",
            "https://a?b",
            "https:/a",
            "data:text/html,a",
            "https://a b",
        ] {
            assert!(WebOrigin::parse(text).is_none(), "{text}");
        }
        for text in ["ws://a", "wss://a", "file://a", "null", "about://blank"] {
            assert!(!is_page_origin(text), "{text}");
        }
        for text in ["https://a", "http://a:8080", "capacitor://localhost", "tauri://localhost", "moz-extension://0-1"]
        {
            assert!(is_page_origin(text), "{text}");
        }
    }
}
