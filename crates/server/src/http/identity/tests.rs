use super::*;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

#[test]
fn the_fingerprint_is_read_from_the_cookie_then_a_header_then_the_query() {
    let settings = Web::default();
    let check = |lines: &[(&'static str, &str)], query: Option<&str>, expected: Option<&str>| {
        assert_eq!(fingerprint(&headers(lines), &settings, query).as_deref(), expected, "{lines:?} {query:?}");
    };
    check(&[], None, None);
    check(&[("cookie", "a=1; sessionID=c; b=2")], Some("sessionID=q"), Some("c"));
    check(&[("cookie", "a=1"), ("cookie", "sessionID=c")], None, Some("c"));
    check(&[("sessionid", "h")], Some("sessionID=q"), Some("h"));
    check(&[("x-sessionid", "h")], None, Some("h"));
    check(&[], Some("a=1&sessionID=q"), Some("q"));
    check(&[("cookie", "sessionID=")], None, None);
    check(&[("cookie", "theme=\u{e9}; sessionID=c")], None, Some("c"));
    check(&[("cookie", "sessionID=\u{e9}"), ("cookie", "sessionID=c")], None, Some("c"));
    check(&[("cookie", "sessionID=a b"), ("x-sessionid", "h")], None, Some("h"));
    check(&[("cookie", "xsessionID=c; sessionIDs=c; sessionID =c")], None, None);
    check(&[("cookie", "sessionID=a b")], None, None);
    check(&[("cookie", "sessionID=<script>")], None, None);
    check(&[], Some("sessionID=%0d%0aset-cookie"), None);
    check(&[("x-sessionid", &"x".repeat(129))], None, None);
}
