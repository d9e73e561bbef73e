//! Cookies: those that a request carries, and those that an answer sets.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::header::{COOKIE, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::error::ActionError;

/// The cookies of a request. Actions have them by [`Context::cookies`](crate::Context::cookies), connect hooks by
/// [`Connecting::cookies`](crate::hooks::Connecting::cookies), handlers of axum by [`Cookies::of`] the headers.
///
/// ```
/// use phalanx_core::Cookies;
/// use phalanx_core::http::HeaderMap;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("cookie", "theme=dark; id=1; id=2".parse().unwrap());
/// let cookies = Cookies::of(&headers);
/// assert_eq!(cookies.get("theme"), Some("dark"));
/// assert_eq!(cookies.all("id").collect::<Vec<_>>(), ["1", "2"]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Cookies<'a>(&'a HeaderMap);

impl<'a> Cookies<'a> {
    /// The cookies in the headers of a request.
    pub const fn of(headers: &'a HeaderMap) -> Self {
        Self(headers)
    }

    /// The first cookie of that name. Anybody can have sent it, with any value: what a browser returns was set by this
    /// site, or by another one below the same domain.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// All cookies of that name: a browser sends several if they were set for different paths or domains, the one with
    /// the longest path first. Those that are not UTF-8 are left out.
    pub fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        let pairs = self.0.get_all(COOKIE).into_iter().flat_map(|line| pairs(line.as_bytes()));
        pairs.filter_map(move |pair| {
            let value = pair.trim_ascii_start().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            std::str::from_utf8(value.trim_ascii_end()).ok()
        })
    }
}

/// The cookies of a line. Each request is searched for some.
fn pairs(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let end = memchr::memchr(b';', line);
        rest = end.map(|end| &line[end + 1..]);
        Some(&line[..end.unwrap_or(line.len())])
    })
}

/// Which requests of other sites a browser sends a cookie with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// None.
    Strict,
    /// Those that follow a link, with a safe method.
    #[default]
    Lax,
    /// All. Browsers take such a cookie only with `Secure`.
    None,
}

impl SameSite {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

/// A cookie for a browser: `HttpOnly`, `SameSite=Lax`, for the whole site and until the browser closes, unless it says
/// otherwise. It is `Secure` as the boot decides ([`Node::has_secure_cookies`](crate::Node::has_secure_cookies)).
///
/// An action sets it by [`Context::set_cookie`](crate::Context::set_cookie), or with its answer by
/// [`Reply::cookie`](crate::Reply::cookie).
///
/// ```
/// use std::time::Duration;
///
/// use phalanx_core::{Cookie, SameSite};
///
/// let cookie = Cookie::new("theme", "dark").path("/shop").same_site(SameSite::Strict).max_age(Duration::from_secs(3600));
/// let secure = "theme=dark; Path=/shop; HttpOnly; SameSite=Strict; Max-Age=3600; Secure";
/// assert_eq!(cookie.header(true).unwrap(), secure);
/// ```
#[derive(Clone)]
pub struct Cookie {
    name: Cow<'static, str>,
    value: String,
    path: Cow<'static, str>,
    domain: Option<Cow<'static, str>>,
    same_site: SameSite,
    is_http_only: bool,
    max_age: Option<Duration>,
    /// `None` follows the node.
    is_secure: Option<bool>,
}

/// Without its value, which may be a credential.
impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cookie").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Cookie {
    /// Most bytes of name and value together; browsers drop what is longer.
    pub const MAX_BYTES: usize = 4096;
    /// Most bytes of a path or a domain; browsers ignore a longer one.
    pub const MAX_ATTRIBUTE_BYTES: usize = 1024;

    /// Makes a cookie. What cannot be in one is found when it is set: encode text that may have any characters.
    pub fn new(name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
            path: Cow::Borrowed("/"),
            domain: None,
            same_site: SameSite::Lax,
            is_http_only: true,
            max_age: None,
            is_secure: None,
        }
    }

    /// Makes a cookie that deletes one. Its path and its domain must be those of the cookie that it deletes.
    pub fn removal(name: impl Into<Cow<'static, str>>) -> Self {
        Self::new(name, "").max_age(Duration::ZERO)
    }

    /// Sets the path below which the browser sends the cookie.
    #[must_use]
    pub fn path(mut self, path: impl Into<Cow<'static, str>>) -> Self {
        self.path = path.into();
        self
    }

    /// Sets the domain whose hosts get the cookie, all those below it too. Without one, the host that sets it alone.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<Cow<'static, str>>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Sets which requests of other sites carry the cookie.
    #[must_use]
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = same_site;
        self
    }

    /// Sets whether the scripts of pages are kept from reading the cookie.
    #[must_use]
    pub fn http_only(mut self, is_http_only: bool) -> Self {
        self.is_http_only = is_http_only;
        self
    }

    /// Sets how long the browser keeps the cookie, in whole seconds, rounded up; zero deletes it.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Sets whether the cookie is sent over TLS alone, whatever the boot decided.
    #[must_use]
    pub fn secure(mut self, is_secure: bool) -> Self {
        self.is_secure = Some(is_secure);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cookie as the value of `Set-Cookie`, `Secure` by default if `is_secure`.
    ///
    /// # Errors
    ///
    /// A browser would drop or misread the cookie.
    pub fn header(&self, is_secure: bool) -> Result<HeaderValue, CookieError> {
        let is_secure = self.is_secure.unwrap_or(is_secure);
        self.check(is_secure)?;
        let mut text = format!("{}={}; Path={}", self.name, self.value, self.path);
        if let Some(domain) = &self.domain {
            text.push_str("; Domain=");
            text.push_str(domain);
        }
        if self.is_http_only {
            text.push_str("; HttpOnly");
        }
        text.push_str("; SameSite=");
        text.push_str(self.same_site.as_str());
        if let Some(age) = self.max_age {
            text.push_str(&format!("; Max-Age={}", age.as_nanos().div_ceil(1_000_000_000)));
        }
        if is_secure {
            text.push_str("; Secure");
        }
        HeaderValue::try_from(text).map_err(|_| CookieError::Value)
    }

    fn check(&self, is_secure: bool) -> Result<(), CookieError> {
        if self.name.is_empty() || !self.name.bytes().all(is_name_byte) {
            return Err(CookieError::Name);
        }
        if !self.value.bytes().all(is_value_byte) {
            return Err(CookieError::Value);
        }
        if self.name.len() + self.value.len() > Self::MAX_BYTES {
            return Err(CookieError::TooLong);
        }
        let is_path =
            self.path.starts_with('/') && self.path.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b';');
        if !is_path || self.path.len() > Self::MAX_ATTRIBUTE_BYTES {
            return Err(CookieError::Path);
        }
        if self.domain.as_deref().is_some_and(|domain| !is_domain(domain)) {
            return Err(CookieError::Domain);
        }
        if self.same_site == SameSite::None && !is_secure {
            return Err(CookieError::InsecureSameSite);
        }
        if self.keeps_prefix(is_secure) { Ok(()) } else { Err(CookieError::Prefix) }
    }

    /// Whether the cookie is as its name promises. Browsers compare the prefixes without case.
    fn keeps_prefix(&self, is_secure: bool) -> bool {
        let begins = |prefix: &str| {
            let start = self.name.get(..prefix.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        if begins("__Host-") {
            return is_secure && self.path == "/" && self.domain.is_none();
        }
        is_secure || !begins("__Secure-")
    }

    /// Whether a browser that takes this cookie replaces that one.
    pub(crate) fn replaces(&self, other: &Self) -> bool {
        (&self.name, &self.path, &self.domain) == (&other.name, &other.path, &other.domain)
    }
}

/// RFC 9110, 5.6.2: the characters of a token.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 6265, 4.1.1: printable ASCII without space, quote, comma, semicolon and backslash.
fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    domain.len() <= Cookie::MAX_ATTRIBUTE_BYTES && domain.split('.').all(is_label)
}

/// Why a cookie cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CookieError {
    /// The name is empty, or has other characters than letters, digits and ``!#$%&'*+-.^_`|~``.
    #[error("the name of a cookie has letters, digits and !#$%&'*+-.^_`|~ alone")]
    Name,
    /// The value has other characters than printable ASCII, or space, quote, comma, semicolon or backslash.
    #[error("the value of a cookie is printable ASCII without space, quote, comma, semicolon and backslash: encode it")]
    Value,
    /// Name and value have more than [`Cookie::MAX_BYTES`].
    #[error("the name and the value of a cookie have more than {} bytes", Cookie::MAX_BYTES)]
    TooLong,
    /// The path does not begin with `/`, or has other characters than printable ASCII, or a semicolon, or is too long.
    #[error("the path of a cookie begins with / and is printable ASCII without semicolon")]
    Path,
    /// The domain is no name of a host, without a dot before it.
    #[error("the domain of a cookie is a host's name, such as example.com")]
    Domain,
    /// `SameSite=None` without `Secure`.
    #[error("browsers take a cookie with SameSite=None only if it is Secure: set web.tls_in_front, or Cookie::secure")]
    InsecureSameSite,
    /// A `__Secure-` name without `Secure`, or a `__Host-` name without it, with a domain, or with another path than `/`.
    #[error("a __Secure- cookie is Secure, and a __Host- cookie also has the path / and no domain")]
    Prefix,
    /// One call sets more than [`MAX_STAGED`](crate::call::head::MAX_STAGED) cookies, or too many bytes.
    #[error("an answer sets too many cookies")]
    TooMany,
}

/// The application's fault, so the call is answered with `internal`.
impl From<CookieError> for ActionError {
    fn from(error: CookieError) -> Self {
        Self::internal(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_written_as_it_says() {
        let check = |cookie: Cookie, is_secure: bool, expected: &str| {
            assert_eq!(cookie.header(is_secure).unwrap(), expected);
        };
        let cookie = || Cookie::new("a", "1");
        check(cookie(), false, "a=1; Path=/; HttpOnly; SameSite=Lax");
        check(cookie(), true, "a=1; Path=/; HttpOnly; SameSite=Lax; Secure");
        check(cookie().secure(false), true, "a=1; Path=/; HttpOnly; SameSite=Lax");
        check(cookie().http_only(false).domain("a.example"), false, "a=1; Path=/; Domain=a.example; SameSite=Lax");
        check(cookie().same_site(SameSite::None).secure(true), false, "a=1; Path=/; HttpOnly; SameSite=None; Secure");
        check(cookie().max_age(Duration::from_millis(1)), false, "a=1; Path=/; HttpOnly; SameSite=Lax; Max-Age=1");
        check(cookie().max_age(Duration::from_nanos(1)), false, "a=1; Path=/; HttpOnly; SameSite=Lax; Max-Age=1");
        check(Cookie::removal("a").path("/b"), false, "a=; Path=/b; HttpOnly; SameSite=Lax; Max-Age=0");
        check(Cookie::new("__Host-a", "1"), true, "__Host-a=1; Path=/; HttpOnly; SameSite=Lax; Secure");
    }

    #[test]
    fn what_cannot_be_in_a_cookie_is_refused() {
        let check = |cookie: Cookie, expected: CookieError| {
            let name = format!("{cookie:?}");
            assert_eq!(cookie.header(false).unwrap_err(), expected, "{name}");
        };
        for name in ["", "a b", "a=b", "a;b", "\u{e9}", "a\r\n", "a,b", "a\0"] {
            check(Cookie::new(name, "1"), CookieError::Name);
        }
        for value in ["a b", "a;b", "a\"b", "a,b", "a\\b", "a\r\nset-cookie: b=1", "\u{e9}", "a\0", "a\u{7f}"] {
            check(Cookie::new("a", value), CookieError::Value);
        }
        check(Cookie::new("a", "x".repeat(4096)), CookieError::TooLong);
        assert!(Cookie::new("a", "x".repeat(4095)).header(false).is_ok());
        for path in ["", "b", "/a;b", "/a\r\n", "/\u{e9}"] {
            check(Cookie::new("a", "1").path(path), CookieError::Path);
        }
        for domain in ["", ".a.example", "a..b", "a b", "a;b", "\u{e9}.example", "a.example."] {
            check(Cookie::new("a", "1").domain(domain), CookieError::Domain);
        }
        check(Cookie::new("a", "1").same_site(SameSite::None), CookieError::InsecureSameSite);
        for name in ["__Host-a", "__Secure-a", "__host-a", "__SECURE-a"] {
            check(Cookie::new(name, "1"), CookieError::Prefix);
        }
        check(Cookie::new("__Host-a", "1").secure(true).path("/b"), CookieError::Prefix);
        check(Cookie::new("__Host-a", "1").secure(true).domain("a.example"), CookieError::Prefix);
    }

    #[test]
    fn a_cookie_is_read_wherever_it_stands() {
        let read = |lines: &[&[u8]], name: &str| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(COOKIE, HeaderValue::from_bytes(line).unwrap());
            }
            Cookies::of(&headers).all(name).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(read(&[b"a=1; b=2;c=3 ; a=4", b"a=5"], "a"), ["1", "4", "5"]);
        assert_eq!(read(&[b"a=1; b=2;c=3 ; a=4"], "c"), ["3"]);
        assert_eq!(read(&[b"a=b=c; d"], "a"), ["b=c"]);
        assert_eq!(read(&[b"a="], "a"), [""]);
        assert_eq!(read(&[b"a=\xff; a=2", b"xa=3; ab=4; a =5; A=6"], "a"), ["2"]);
        assert!(read(&[], "a").is_empty());
    }
}
