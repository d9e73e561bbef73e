use http::HeaderValue;
use http::header::HOST;
use phalanx_core::config::TrustedHeader;

use super::*;

/// One request of a table: its headers, the settings, and the expected judgement.
struct Case {
    headers: &'static [(&'static str, &'static str)],
    named: &'static [&'static str],
    own: &'static [&'static str],
    tls_in_front: bool,
}

const PLAIN: Case = Case { headers: &[], named: &[], own: &[], tls_in_front: false };

impl Case {
    fn permitted(&self, as_socket: bool) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let web = Web {
            allowed_hosts: texts(self.own),
            cors_origins: texts(self.named),
            tls_in_front: self.tls_in_front,
            trusted_proxies: vec!["10.0.0.1".parse().unwrap()],
            trusted_headers: vec![TrustedHeader::XForwardedProto],
            ..Web::default()
        };
        let rule = if as_socket {
            CrossSiteRule::of_sockets(&web.cors_origins, &web)
        } else {
            CrossSiteRule::of_requests(&web)
        };
        let forwarded = ForwardedRequest::read("10.0.0.1:9".parse().unwrap(), &headers, &web);
        rule.permits(&RequestSite::of(&Uri::from_static("/"), &headers, &forwarded))
    }

    fn check(&self, expected: bool) {
        for as_socket in [false, true] {
            let Self { headers, named, own, tls_in_front } = self;
            let settings = format!("named {named:?}, own {own:?}, TLS {tls_in_front}, socket {as_socket}");
            assert_eq!(self.permitted(as_socket), expected, "{headers:?} {settings}");
        }
    }
}

#[test]
fn without_a_judgement_of_the_browser_the_origin_is_compared_with_the_host() {
    for (host, origin, expected) in [
        ("a", "http://a", true),
        ("a:80", "http://a", true),
        ("a", "http://a:80", true),
        ("A.example", "http://a.EXAMPLE", true),
        ("a:8080", "http://a:8080", true),
        ("[::1]:8080", "http://[::1]:8080", true),
        // A proxy in front may terminate TLS: the scheme is not known.
        ("a", "https://a", true),
        ("a:443", "https://a", true),
        ("a:8443", "https://a:8443", true),
        ("a", "https://a:8443", false),
        ("a:8080", "http://a", false),
        ("a:443", "http://a", false),
        ("a", "http://b", false),
        ("a", "https://evil.example", false),
        ("a", "http://a.evil.example", false),
        ("a", "http://b.a", false),
        ("a:80", "http://a:80.evil.example", false),
        ("a", "null", false),
        ("a", "", false),
        ("a", "a", false),
        ("a", "http://a/", false),
        ("a", "http://u@a", false),
        ("a", "http://a, http://b", false),
        ("localhost", "capacitor://localhost", false),
        ("a", "\u{e9}", false),
    ] {
        let headers = vec![("host", host), ("origin", origin)].leak();
        Case { headers, ..PLAIN }.check(expected);
    }
    Case { headers: &[("host", "a")], ..PLAIN }.check(true);
    PLAIN.check(true);
    Case { headers: &[("origin", "http://a")], ..PLAIN }.check(false);
}

#[test]
fn the_judgement_of_the_browser_wins_over_the_comparison() {
    for (site, origin, expected) in [
        ("same-origin", "http://a", true),
        ("same-origin", "http://b", true),
        ("none", "http://a", true),
        ("same-site", "http://a", false),
        ("cross-site", "http://a", false),
        ("cross-site", "http://b", false),
        ("rubbish", "http://a", false),
        ("", "http://a", false),
        ("Same-Origin", "http://a", false),
    ] {
        let headers = vec![("host", "a"), ("origin", origin), ("sec-fetch-site", site)].leak();
        Case { headers, ..PLAIN }.check(expected);
        let headers = vec![("host", "a"), ("sec-fetch-site", site)].leak();
        Case { headers, ..PLAIN }.check(expected);
    }
    let twice = &[("host", "a"), ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")];
    Case { headers: twice, ..PLAIN }.check(false);
}

#[test]
fn the_scheme_is_compared_where_it_is_known() {
    let own_http = &[("host", "a"), ("origin", "http://a")];
    let own_https = &[("host", "a"), ("origin", "https://a")];
    Case { headers: own_http, tls_in_front: true, ..PLAIN }.check(false);
    Case { headers: own_https, tls_in_front: true, ..PLAIN }.check(true);
    Case { headers: own_http, own: &["http://a", "https://a"], tls_in_front: true, ..PLAIN }.check(false);
    Case { headers: own_http, named: &["http://a"], tls_in_front: true, ..PLAIN }.check(true);
    let proto = |origin: &'static str, proto: &'static str| -> &'static [(&str, &str)] {
        vec![("host", "a"), ("origin", origin), ("x-forwarded-proto", proto)].leak()
    };
    Case { headers: proto("http://a", "https"), ..PLAIN }.check(false);
    Case { headers: proto("https://a", "https"), ..PLAIN }.check(true);
    Case { headers: proto("http://a", "http"), tls_in_front: true, ..PLAIN }.check(true);
    // A proxy behind another one reports the scheme of the hop between them.
    Case { headers: proto("https://a", "http"), ..PLAIN }.check(true);
}

#[test]
fn own_origins_and_hosts_that_any_proxy_reports_count_as_the_host() {
    let own = &["https://a", "https://a:8443"];
    Case { headers: &[("host", "a"), ("origin", "https://a:8443")], own, ..PLAIN }.check(true);
    Case { headers: &[("host", "inside"), ("origin", "https://a")], own, ..PLAIN }.check(true);
    Case { headers: &[("host", "inside"), ("origin", "http://a:8443")], own, ..PLAIN }.check(false);
    Case { headers: &[("host", "inside"), ("origin", "https://b")], own, ..PLAIN }.check(false);
    let reported = |value: &'static str| -> &'static [(&str, &str)] {
        vec![("host", "inside"), ("origin", "https://a:8443"), ("x-forwarded-host", value)].leak()
    };
    Case { headers: reported("a:8443"), ..PLAIN }.check(true);
    Case { headers: reported("a:8443, inside"), ..PLAIN }.check(true);
    Case { headers: reported("a"), ..PLAIN }.check(false);
    Case { headers: reported("u@a:8443"), ..PLAIN }.check(false);
}

#[test]
fn named_origins_pass_and_any_origin_passes_without_credentials() {
    let named = &["https://app.example", "capacitor://localhost"];
    let from = |origin: &'static str, site: &'static str| -> &'static [(&str, &str)] {
        vec![("host", "a"), ("origin", origin), ("sec-fetch-site", site), ("cookie", "a=b")].leak()
    };
    for (origin, expected) in [
        ("https://app.example", true),
        ("https://app.example:443", true),
        ("capacitor://localhost", true),
        ("http://app.example", false),
        ("tauri://localhost", false),
        ("null", false),
    ] {
        Case { headers: from(origin, "cross-site"), named, ..PLAIN }.check(expected);
    }
    for (credentials, of_requests) in [
        (None, true),
        (Some(("cookie", "sessionID=a")), false),
        (Some(("authorization", "Basic YTpi")), false),
        (Some(("authorization", "DIGEST a")), false),
        (Some(("authorization", "negotiate a")), false),
        (Some(("authorization", "NTLM a")), false),
        (Some(("authorization", "Bearer a")), true),
    ] {
        for from in [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
            let headers = [("host", "a"), from].into_iter().chain(credentials).collect::<Vec<_>>().leak();
            let case = Case { headers, named: &["*"], ..PLAIN };
            assert_eq!((case.permitted(false), case.permitted(true)), (of_requests, true), "{:?}", case.headers);
        }
    }
    let own = &[("host", "a"), ("origin", "http://a"), ("cookie", "sessionID=a")];
    Case { headers: own, named: &["*"], ..PLAIN }.check(true);
}

#[test]
fn the_host_of_the_request_target_wins_over_the_header() {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_static("b"));
    headers.insert(ORIGIN, HeaderValue::from_static("http://a"));
    let web = Web::default();
    let rule = CrossSiteRule::of_requests(&web);
    let forwarded = ForwardedRequest::read("9.9.9.9:9".parse().unwrap(), &headers, &web);
    for (target, expected) in [("http://a/", true), ("http://b/", false), ("/", false)] {
        let uri = Uri::from_static(target);
        assert_eq!(rule.permits(&RequestSite::of(&uri, &headers, &forwarded)), expected, "{target}");
    }
}

#[test]
fn methods_that_only_read_are_safe() {
    for (method, expected) in [
        (Method::GET, false),
        (Method::HEAD, false),
        (Method::OPTIONS, false),
        (Method::TRACE, false),
        (Method::POST, true),
        (Method::PUT, true),
        (Method::PATCH, true),
        (Method::DELETE, true),
        (Method::CONNECT, true),
        (Method::from_bytes(b"PURGE").unwrap(), true),
    ] {
        assert_eq!(is_unsafe(&method), expected, "{method}");
    }
}
