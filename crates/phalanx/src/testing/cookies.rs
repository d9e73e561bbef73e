//! The cookies of a client, as a browser keeps them for one host.

use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use phalanx_core::http;

/// Most cookies of a client; beyond, the oldest goes.
const MOST: usize = 200;

/// The cookies of one client. Ports share them, and `Secure` is no obstacle on the own machine.
#[derive(Debug, Default)]
pub(super) struct CookieJar(Vec<KeptCookie>);

#[derive(Debug)]
struct KeptCookie {
    name: String,
    value: String,
    path: String,
    /// By the clock of the application.
    expires_ms: Option<u64>,
}

impl CookieJar {
    /// Keeps the cookies of an answer.
    pub(super) fn keep(&mut self, answer: &HeaderMap, request_path: &str, now_ms: u64) {
        let lines = answer.get_all(SET_COOKIE).iter().filter_map(|line| line.to_str().ok());
        for cookie in lines.filter_map(|line| KeptCookie::read(line, request_path, now_ms)) {
            self.0.retain(|kept| (&kept.name, &kept.path) != (&cookie.name, &cookie.path));
            self.0.push(cookie);
        }
        self.forget_old(now_ms);
        let surplus = self.0.len().saturating_sub(MOST);
        self.0.drain(..surplus);
    }

    /// Sets a cookie for all paths.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|kept| kept.name != name);
        let [name, value, path] = [name, value, "/"].map(str::to_owned);
        self.0.push(KeptCookie { name, value, path, expires_ms: None });
    }

    /// The value of a cookie that a request to `/` would carry.
    pub(super) fn get(&mut self, name: &str, now_ms: u64) -> Option<String> {
        self.forget_old(now_ms);
        self.0.iter().find(|kept| kept.name == name && kept.is_for("/")).map(|kept| kept.value.clone())
    }

    /// Adds the cookies to a request, unless it has some of its own.
    pub(super) fn add_to(&mut self, request: &mut HeaderMap, path: &str, now_ms: u64) {
        self.forget_old(now_ms);
        let fitting = self.0.iter().filter(|kept| kept.is_for(path));
        let text = fitting.map(|kept| format!("{}={}", kept.name, kept.value)).collect::<Vec<_>>().join("; ");
        if let Ok(value) = HeaderValue::from_str(&text)
            && !text.is_empty()
        {
            request.entry(COOKIE).or_insert(value);
        }
    }

    fn forget_old(&mut self, now_ms: u64) {
        self.0.retain(|kept| kept.expires_ms.is_none_or(|expires_ms| expires_ms > now_ms));
    }
}

impl KeptCookie {
    /// Reads a `Set-Cookie`. `Max-Age` wins over `Expires`.
    fn read(line: &str, request_path: &str, now_ms: u64) -> Option<Self> {
        let mut parts = line.split(';').map(str::trim);
        let (name, value) = parts.next()?.split_once('=')?;
        let folder = request_path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let (mut path, mut max_age, mut expires) = (if folder.is_empty() { "/" } else { folder }, None, None);
        for (key, value) in parts.map(|part| part.split_once('=').unwrap_or((part, ""))) {
            match key.to_ascii_lowercase().as_str() {
                "path" if value.starts_with('/') => path = value,
                "max-age" => max_age = value.parse::<i64>().ok(),
                "expires" => expires = httpdate::parse_http_date(value).ok(),
                _ => {}
            }
        }
        let of_age = max_age.map(|age| now_ms.saturating_add_signed(age.saturating_mul(1000)));
        let of_date = expires.map(|at| {
            let since = at.duration_since(std::time::UNIX_EPOCH);
            since.map_or(0, |since| since.as_millis() as u64)
        });
        let [name, value, path] = [name.trim(), value.trim(), path].map(str::to_owned);
        Some(Self { name, value, path, expires_ms: of_age.or(of_date) })
    }

    fn is_for(&self, path: &str) -> bool {
        match path.strip_prefix(&self.path) {
            Some(rest) => rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/'),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (SET_COOKIE, HeaderValue::from_str(line).unwrap())).collect()
    }

    fn sent(jar: &mut CookieJar, path: &str, now_ms: u64) -> String {
        let mut headers = HeaderMap::new();
        jar.add_to(&mut headers, path, now_ms);
        headers.get(COOKIE).map_or(String::new(), |value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn cookies_go_to_their_paths_until_they_expire() {
        let mut jar = CookieJar::default();
        let lines = ["a=1; Path=/; Max-Age=10", "b=2; path=/api; Secure", "c=3", "no cookie", "d=4; Path=/; Max-Age=0"];
        jar.keep(&answer(&lines), "/shop/cart", 0);
        assert_eq!(sent(&mut jar, "/api/x", 9_999), "a=1; b=2");
        assert_eq!(sent(&mut jar, "/apis", 9_999), "a=1");
        assert_eq!(sent(&mut jar, "/shop/till", 9_999), "a=1; c=3");
        assert_eq!(sent(&mut jar, "/api/x", 10_000), "b=2");
        jar.keep(&answer(&["b=5; Path=/api; Expires=Thu, 01 Jan 1970 00:00:00 GMT"]), "/", 10_000);
        assert_eq!(sent(&mut jar, "/api/x", 10_000), "", "a date of the past deletes");
    }

    #[test]
    fn a_later_value_replaces_the_first_and_cookies_of_the_request_itself_win() {
        let mut jar = CookieJar::default();
        jar.keep(&answer(&["a=1; Path=/"]), "/", 0);
        jar.keep(&answer(&["a=2; Path=/"]), "/", 0);
        assert_eq!(jar.get("a", 0), Some("2".to_owned()));
        let mut headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static("a=mine"))]);
        jar.add_to(&mut headers, "/", 0);
        assert_eq!(headers[COOKIE], "a=mine");
    }
}
