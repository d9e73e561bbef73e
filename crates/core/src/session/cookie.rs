//! The place of a session's id in a request: its cookie, or a bearer token.

use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, SEC_WEBSOCKET_PROTOCOL};

use super::id::SessionId;
use crate::backend::SessionKey;
use crate::cookie::{Cookie, Cookies, SameSite};

/// The start of the subprotocol by which an upgrade carries the id: browsers let pages set no other header of it.
const BEARER_SUBPROTOCOL: &str = "phalanx.bearer.";

/// No lifetime has more digits in seconds: 316 years.
const LONGEST_LIFETIME: Duration = Duration::from_secs(9_999_999_999);

/// The cookie of sessions. Its name is decided at boot, and never by a request: it would be the client's choice whether the
/// cookie is `Secure`.
#[derive(Debug)]
pub(super) struct SessionCookie {
    name: String,
    is_secure: bool,
    same_site: SameSite,
    has_bearer: bool,
}

impl SessionCookie {
    /// The cookie of a cluster, whose name is in it because all ports of a host share cookies.
    pub(super) fn new(cluster: &str, is_secure: bool, same_site: SameSite, has_bearer: bool) -> Self {
        let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
        let cluster: String = cluster.chars().filter(|character| allowed(*character)).collect();
        let prefix = if is_secure { "__Host-" } else { "" };
        Self { name: format!("{prefix}{cluster}-session"), is_secure, same_site, has_bearer }
    }

    /// The cookie with an id, for so long; without a time until the browser closes.
    pub(super) fn with(&self, id: &SessionId, lifetime: Option<Duration>) -> Cookie {
        let cookie = self.of_value(id.reveal());
        match lifetime {
            Some(lifetime) => cookie.max_age(lifetime),
            None => cookie,
        }
    }

    /// The longest cookie with an id.
    pub(super) fn longest(&self, id: &SessionId) -> Cookie {
        self.with(id, Some(LONGEST_LIFETIME))
    }

    /// The cookie that deletes it.
    pub(super) fn removal(&self) -> Cookie {
        self.of_value("").max_age(Duration::ZERO)
    }

    fn of_value(&self, value: &str) -> Cookie {
        Cookie::new(self.name.clone(), value).same_site(self.same_site).secure(self.is_secure)
    }

    /// Whether the cookie, with whatever value, is the credential of a request: not beside a token, and not for a page of
    /// another site, which could sign its visitors out.
    pub(super) fn is_credential(&self, headers: &HeaderMap, counts_cookie: bool) -> bool {
        let has_token = self.has_bearer && bearer_token(headers).is_some();
        counts_cookie && !has_token && Cookies::of(headers).all(&self.name).next().is_some()
    }

    /// The session that a request names. A token wins over a cookie, also a bad one: the client meant it. Two cookies of the
    /// name are none: one of them may be planted by another site below the same domain.
    pub(super) fn sent(&self, headers: &HeaderMap, counts_cookie: bool) -> Option<SessionKey> {
        if let Some(token) = self.has_bearer.then(|| bearer_token(headers)).flatten() {
            return SessionId::key_of_sent(token);
        }
        if !counts_cookie {
            return None;
        }
        let mut values = Cookies::of(headers).all(&self.name);
        let value = values.next()?;
        values.next().is_none().then(|| SessionId::key_of_sent(value)).flatten()
    }
}

/// The token of a request, good or bad.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let authorization = headers.get(AUTHORIZATION).and_then(|line| {
        let (scheme, token) = line.to_str().ok()?.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    authorization.or_else(|| {
        let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).find_map(|protocol| protocol.trim().strip_prefix(BEARER_SUBPROTOCOL))
    })
}

#[cfg(test)]
mod tests {
    use http::header::{COOKIE, HeaderName};

    use super::*;

    fn headers(lines: &[(HeaderName, String)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, line) in lines {
            headers.append(name, line.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_cookie_is_as_the_boot_decided() {
        let id = SessionId::random();
        let check = |cookie: SessionCookie, lifetime: Option<u64>, expected: &str| {
            let header = cookie.with(&id, lifetime.map(Duration::from_secs)).header(!cookie.is_secure).unwrap();
            assert_eq!(header.to_str().unwrap(), expected.replace("ID", id.reveal()));
        };
        let secure = SessionCookie::new("{shop}", true, SameSite::Lax, false);
        check(secure, Some(60), "__Host-shop-session=ID; Path=/; HttpOnly; SameSite=Lax; Max-Age=60; Secure");
        let plain = SessionCookie::new("my shop", false, SameSite::Strict, false);
        check(plain, None, "myshop-session=ID; Path=/; HttpOnly; SameSite=Strict");
    }

    #[test]
    fn an_id_is_read_from_one_cookie_or_from_a_token() {
        let (id, other) = (SessionId::random(), SessionId::random());
        let (cookie, bearer) = (
            SessionCookie::new("shop", true, SameSite::Lax, false),
            SessionCookie::new("shop", true, SameSite::Lax, true),
        );
        let of_cookie = |value: &str| (COOKIE, format!("a=1; __Host-shop-session={value}"));
        let check = |lines: &[(HeaderName, String)], without: Option<&SessionId>, with: Option<&SessionId>| {
            let headers = headers(lines);
            assert_eq!(cookie.sent(&headers, true), without.map(SessionId::key), "{lines:?}");
            assert_eq!(bearer.sent(&headers, true), with.map(SessionId::key), "{lines:?}");
        };
        check(&[of_cookie(id.reveal())], Some(&id), Some(&id));
        check(&[of_cookie(id.reveal()), of_cookie(other.reveal())], None, None);
        check(&[of_cookie("short")], None, None);
        check(&[(COOKIE, format!("shop-session={}", id.reveal()))], None, None);
        let token = |scheme: &str, token: &str| (AUTHORIZATION, format!("{scheme} {token}"));
        check(&[of_cookie(id.reveal()), token("bEarer", other.reveal())], Some(&id), Some(&other));
        check(&[of_cookie(id.reveal()), token("Bearer", "bad")], Some(&id), None);
        check(&[of_cookie(id.reveal()), token("Basic", "YTpi")], Some(&id), Some(&id));
        let protocol = format!("phalanx.1, phalanx.bearer.{}", id.reveal());
        check(&[(SEC_WEBSOCKET_PROTOCOL, protocol)], None, Some(&id));
        let headers = headers(&[of_cookie(id.reveal())]);
        assert_eq!(cookie.sent(&headers, false), None, "it does not count for a page of another site");
        assert_eq!([true, false].map(|counts_cookie| cookie.is_credential(&headers, counts_cookie)), [true, false]);
        let mut with_token = headers;
        with_token.append(AUTHORIZATION, "Bearer bad".parse().unwrap());
        assert!(cookie.is_credential(&with_token, true) && !bearer.is_credential(&with_token, true));
    }
}
