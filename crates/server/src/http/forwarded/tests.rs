use http::HeaderValue;

use super::*;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

/// Settings that trust `10.0.0.0/30`, for these headers.
fn trusting(names: &[TrustedHeader]) -> Web {
    let trusted_proxies = vec!["10.0.0.0/30".parse().unwrap()];
    Web { trusted_proxies, trusted_headers: names.to_vec(), ..Web::default() }
}

fn read(settings: &Web, peer: &str, lines: &[(&'static str, &str)]) -> ForwardedRequest {
    ForwardedRequest::read(peer.parse().unwrap(), &headers(lines), settings)
}

#[test]
fn the_forwarded_address_is_the_last_one_that_is_not_a_trusted_proxy() {
    let settings = Web { trusted_proxies: vec!["10.0.0.0/30".parse().unwrap()], ..Web::default() };
    let check = |lines: &[(&'static str, &str)], expected: &str| {
        assert_eq!(read(&settings, "10.0.0.1:99", lines).remote, expected.parse().unwrap(), "{lines:?}");
    };
    check(&[], "10.0.0.1:99");
    check(&[("x-real-ip", "1.2.3.4")], "1.2.3.4:0");
    check(&[("x-real-ip", "rubbish")], "10.0.0.1:99");
    check(&[("x-forwarded-for", "1.2.3.4")], "1.2.3.4:0");
    check(&[("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.0.0.2")], "1.2.3.4:0");
    check(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.2.3.4")], "1.2.3.4:0");
    check(&[("x-forwarded-for", "10.0.0.2, 10.0.0.1")], "10.0.0.2:0");
    check(&[("x-forwarded-for", "[2001:db8::1]:443")], "[2001:db8::1]:0");
    check(&[("x-forwarded-for", "1.2.3.4:55")], "1.2.3.4:0");
    check(&[("x-forwarded-for", "::ffff:1.2.3.4")], "1.2.3.4:0");
    check(&[("x-forwarded-for", "6.6.6.6, 1.2.3.4,"), ("x-forwarded-for", " , ")], "1.2.3.4:0");
    check(&[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-for", "\u{e9}")], "10.0.0.1:99");
    check(&[("x-forwarded-for", "[zz]:1")], "10.0.0.1:99");
    check(&[("x-forwarded-for", "1.2.3.4, [zz]:1")], "10.0.0.1:99");
    check(&[("forwarded", "for=1.2.3.4"), ("x-forwarded-for", "5.6.7.8")], "5.6.7.8:0");
    let long = vec!["10.0.0.2"; 1000].join(",");
    check(&[("x-forwarded-for", &format!("1.2.3.4,{long}"))], "10.0.0.2:0");
}

#[test]
fn other_lists_are_read_at_the_distance_of_the_client() {
    use TrustedHeader::{XForwardedFor, XForwardedHost, XForwardedPort, XForwardedProto};
    let settings = trusting(&[XForwardedFor, XForwardedProto, XForwardedHost, XForwardedPort]);
    for (lines, scheme, host, port) in [
        (&[][..], None, None, None),
        (&[("x-forwarded-proto", "HTTPS")][..], Some(UrlScheme::Https), None, None),
        (&[("x-forwarded-proto", "wss")], Some(UrlScheme::Https), None, None),
        (&[("x-forwarded-proto", "gopher")], None, None, None),
        (&[("x-forwarded-proto", "https, http")], Some(UrlScheme::Http), None, None),
        (&[("x-forwarded-proto", "https"), ("x-forwarded-proto", "http")], Some(UrlScheme::Http), None, None),
        (
            &[("x-forwarded-for", "1.2.3.4, 10.0.0.2"), ("x-forwarded-proto", "https, http")],
            Some(UrlScheme::Https),
            None,
            None,
        ),
        (&[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https, http")], Some(UrlScheme::Http), None, None),
        (
            &[("x-forwarded-for", "1.2.3.4, 10.0.0.2, 10.0.0.3"), ("x-forwarded-proto", "https")],
            Some(UrlScheme::Https),
            None,
            None,
        ),
        (&[("x-forwarded-host", "evil.example, a.example:8443")], None, Some("a.example:8443"), None),
        (&[("x-forwarded-host", "u@a.example")], None, None, None),
        (&[("x-forwarded-port", "8443")], None, None, Some(8443)),
        (&[("x-forwarded-port", "+1")], None, None, None),
        (&[("x-forwarded-port", "0")], None, None, None),
    ] {
        let request = read(&settings, "10.0.0.1:99", lines);
        assert_eq!((request.scheme, request.host.as_deref(), request.port), (scheme, host, port), "{lines:?}");
    }
}

#[test]
fn forwarded_wins_over_the_others_and_hidden_addresses_end_the_walk() {
    use TrustedHeader::{Forwarded, XForwardedFor, XForwardedHost, XForwardedProto};
    let settings = trusting(&[Forwarded, XForwardedFor, XForwardedProto, XForwardedHost]);
    let others = [("x-forwarded-for", "5.6.7.8"), ("x-forwarded-proto", "http"), ("x-forwarded-host", "b.example")];
    for (line, remote, scheme, host) in [
        ("for=1.2.3.4;proto=https;host=a.example", "1.2.3.4:0", UrlScheme::Https, "a.example"),
        ("for=1.2.3.4", "1.2.3.4:0", UrlScheme::Http, "b.example"),
        ("for=1.2.3.4;proto=https, for=10.0.0.2;proto=http;host=c", "1.2.3.4:0", UrlScheme::Https, "b.example"),
        ("for=1.2.3.4, for=unknown;proto=https", "10.0.0.1:99", UrlScheme::Https, "b.example"),
        ("for=1.2.3.4, for=_x;host=\"[::1]:80\"", "10.0.0.1:99", UrlScheme::Http, "[::1]:80"),
        ("for=\"1.2.3.4, for=10.0.0.2", "10.0.0.2:0", UrlScheme::Http, "b.example"),
        ("for=\"[::1]:80\"", "[::1]:0", UrlScheme::Http, "b.example"),
        ("for=\"::ffff:1.2.3.4\"", "1.2.3.4:0", UrlScheme::Http, "b.example"),
    ] {
        let lines: Vec<_> = others.iter().copied().chain([("forwarded", line)]).collect();
        let request = read(&settings, "10.0.0.1:99", &lines);
        assert_eq!(request.remote, remote.parse().unwrap(), "{line}");
        assert_eq!((request.scheme, request.host.as_deref()), (Some(scheme), Some(host)), "{line}");
    }
}

#[test]
fn headers_that_are_not_named_and_peers_that_are_not_trusted_count_for_nothing() {
    let lines = [
        ("x-forwarded-for", "1.2.3.4"),
        ("x-real-ip", "1.2.3.4"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-port", "1"),
        ("forwarded", "for=1.2.3.4;proto=http;host=evil.example"),
    ];
    let direct = |peer: &str, scheme, is_trusted| {
        let remote = peer.parse().unwrap();
        ForwardedRequest { is_trusted, remote, scheme, host: None, port: None }
    };
    let none = Web { tls_in_front: true, ..trusting(&[]) };
    assert_eq!(read(&none, "10.0.0.1:99", &lines), direct("10.0.0.1:99", Some(UrlScheme::Https), true));
    let all = Web { tls_in_front: true, ..trusting(&TrustedHeader::ALL) };
    assert_eq!(read(&all, "9.9.9.9:99", &lines), direct("9.9.9.9:99", Some(UrlScheme::Https), false));
    let defaults = Web { trusted_proxies: all.trusted_proxies, ..Web::default() };
    assert_eq!(read(&defaults, "10.0.0.1:99", &lines).host, None);
    assert_eq!(read(&defaults, "[::ffff:10.0.0.1]:99", &lines).remote, "1.2.3.4:0".parse().unwrap());
}
