//! Hosts, origins and forwarded headers: which requests are for this node, and which ones a page of another site sent.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use phalanx::config::{Config, CrossSite, TrustedHeader};
use phalanx::prelude::*;
use phalanx::{RunningApp, axum};
use phalanx_testkit::Process;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::app::settings;
use crate::browser::Browser;
use crate::client::{Response, Socket, get, raw, request};

/// Changes something.
#[action(post, delete, get)]
async fn change(_ctx: Context) -> Result<u8, ActionError> {
    Ok(1)
}

/// Is open to the forms of other sites.
#[action(name = "payment", post, cross_site)]
async fn payment_return(_ctx: Context) -> Result<u8, ActionError> {
    Ok(1)
}

/// Is not, in its second version.
#[action(name = "payment", version = 2, put = "/payment")]
async fn payment_2(_ctx: Context) -> Result<u8, ActionError> {
    Ok(2)
}

/// Is open in its third version, which a request finds by its path; the fourth is not.
#[action(name = "refund", version = 3, post = "/refund/three", cross_site)]
async fn refund_3(_ctx: Context) -> Result<u8, ActionError> {
    Ok(3)
}

/// The version that `apiVersion` names.
#[action(name = "refund", version = 4, post = "/refund/four")]
async fn refund_4(_ctx: Context) -> Result<u8, ActionError> {
    Ok(4)
}

fn app() -> App {
    let routes = axum::Router::new()
        .route("/own", axum::routing::any(async || "own"))
        .route("/pay/{id}/return", axum::routing::post(async || "returned"))
        .route("/pay/zur%C3%BCck", axum::routing::post(async || "zur\u{fc}ck"));
    let actions = actions![change, payment_return, payment_2, refund_3, refund_4];
    App::new("origins").actions(actions).router(routes).cross_site("/pay/{id}/return").cross_site("/pay/zur\u{fc}ck")
}

async fn node(configure: impl FnOnce(&mut Config)) -> RunningApp {
    let mut config = settings();
    configure(&mut config);
    app().start(config).await.unwrap()
}

fn loopback() -> Vec<phalanx::config::Network> {
    vec!["127.0.0.1".parse().unwrap()]
}

/// Sends a request whose `Host` is among the headers.
async fn send(addr: SocketAddr, line: &str, headers: &[&str]) -> Response {
    let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    raw(addr, format!("{line} HTTP/1.1\r\n{lines}connection: close\r\n\r\n").as_bytes()).await
}

/// Checks that a request is answered with 200, or refused with 403 `cross_site`.
async fn check(addr: SocketAddr, line: &str, headers: &[&str], is_permitted: bool) {
    let answer = send(addr, line, headers).await;
    if is_permitted {
        assert_eq!(answer.status, 200, "{line} {headers:?}: {answer:?}");
    } else {
        assert_eq!((answer.status, answer.error_code().as_str()), (403, "cross_site"), "{line} {headers:?}");
    }
}

#[tokio::test]
async fn pages_of_other_sites_cannot_change_anything() {
    let node = node(|_| {}).await;
    let addr = node.addr();
    let form = "content-type: application/x-www-form-urlencoded";
    for from in [
        &["host: a", "origin: https://evil.example", "cookie: sessionID=a"][..],
        &["host: a", "origin: https://evil.example", "cookie: sessionID=a", form],
        &["host: a", "origin: null"],
        &["host: a", "sec-fetch-site: cross-site"],
        &["host: a", "sec-fetch-site: same-site", "origin: https://b.a"],
    ] {
        for line in ["POST /api/change", "DELETE /api/change", "POST /own", "PURGE /own", "POST /nowhere"] {
            check(addr, line, from, false).await;
        }
        for line in ["GET /api/change", "GET /own", "HEAD /own", "OPTIONS /api/change", "POST /api/payment"] {
            check(addr, line, from, true).await;
        }
        check(addr, "POST /pay/7/return", from, true).await;
        check(addr, "POST /pay/zur%C3%BCck", from, true).await;
        check(addr, "POST /pay/7/return/", from, false).await;
        // An application may serve sockets of its own.
        let upgrade = [from, &["upgrade: websocket"]].concat();
        check(addr, "GET /own", &upgrade, false).await;
    }
    for from in [
        &["host: a"][..],
        &["host: a", "origin: http://a"],
        &["host: a", "origin: https://a"],
        &["host: example.com:443", "origin: https://example.com"],
        &["host: example.com:80", "origin: http://example.com"],
        &["host: inside", "origin: https://a", "x-forwarded-host: a"],
        &["host: a", "origin: https://evil.example", "sec-fetch-site: same-origin"],
        &["host: a", "sec-fetch-site: none"],
    ] {
        for line in ["POST /api/change", "DELETE /api/change", "POST /own"] {
            check(addr, line, from, true).await;
        }
    }
    check(addr, "POST http://a/own", &["host: b", "origin: http://a"], true).await;
    check(addr, "POST http://b/own", &["host: a", "origin: http://a"], false).await;
}

#[tokio::test]
async fn a_refusal_names_the_origin_and_both_ways_out_and_does_not_wait_for_the_body() {
    let node = node(|_| {}).await;
    let head = "POST /api/change HTTP/1.1\r\nhost: a\r\norigin: https://evil.example\r\nconnection: close\r\n\
                content-type: application/json\r\ncontent-length: 1000000\r\n\r\n";
    let mut stream = TcpStream::connect(node.addr()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // The body never comes: an answer that waits for it comes after `web.body_timeout`, a minute.
    let mut bytes = vec![0; 4096];
    let length = timeout(Duration::from_secs(10), stream.read(&mut bytes)).await.expect("an answer").unwrap();
    let answer = String::from_utf8_lossy(&bytes[..length]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    for part in ["https://evil.example", "web.cors_origins", "cross_site"] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
    let long = format!("origin: https://{}", "x".repeat(9000));
    let answer = send(node.addr(), "POST /api/change", &["host: a", &long]).await;
    assert!(answer.status == 403 && answer.body.len() < 1000, "{answer:?}");
}

#[tokio::test]
async fn a_version_that_is_not_open_to_other_sites_is_not_reached_through_one_that_is() {
    let node = node(|_| {}).await;
    let addr = node.addr();
    let foreign = ["host: a", "origin: https://evil.example"];
    check(addr, "POST /api/payment", &foreign, true).await;
    check(addr, "PUT /api/payment", &foreign, false).await;
    check(addr, "POST /api/refund/three", &foreign, true).await;
    check(addr, "POST /api/refund/three?apiVersion=4", &foreign, false).await;
    check(addr, "POST /api/refund/four", &foreign, false).await;
    check(addr, "POST /api/refund/three?apiVersion=4", &["host: a"], true).await;
    let (json, form) = ("content-type: application/json", "content-type: application/x-www-form-urlencoded");
    for (body_type, body) in [(json, r#"{"apiVersion":4}"#), (form, "apiVersion=4")] {
        let refused = request(addr, "POST /api/refund/three", &[foreign[1], body_type], body.as_bytes()).await;
        assert_eq!((refused.status, refused.error_code().as_str()), (403, "cross_site"), "{body}");
        let answer = request(addr, "POST /api/refund/three", &[body_type], body.as_bytes()).await;
        assert_eq!((answer.status, &answer.json()["result"]), (200, &json!(4)), "{body}");
    }
    let open = request(addr, "POST /api/refund/three", &[foreign[1], json], br#"{"apiVersion":3}"#).await;
    assert_eq!((open.status, &open.json()["result"]), (200, &json!(3)));
}

#[tokio::test]
async fn any_origin_may_send_requests_without_credentials() {
    let node = node(|config| config.web.cors_origins = vec!["*".into()]).await;
    for (credentials, is_permitted) in [
        ("x: y", true),
        ("authorization: Bearer a", true),
        ("cookie: sessionID=a", false),
        ("authorization: Basic YTpi", false),
        ("authorization: negotiate a", false),
    ] {
        for origin in ["origin: https://evil.example", "origin: null"] {
            check(node.addr(), "POST /api/change", &["host: a", origin, credentials], is_permitted).await;
        }
        check(node.addr(), "POST /api/change", &["host: a", "origin: http://a", credentials], true).await;
    }
}

#[tokio::test]
async fn named_origins_may_have_any_scheme_and_a_default_port() {
    let named = vec!["https://app.example:443".to_owned(), "capacitor://localhost".to_owned()];
    let node = node(|config| {
        config.web.cors_origins = named.clone();
        config.websocket.allowed_origins = named;
    })
    .await;
    let addr = node.addr();
    for (origin, is_permitted) in [
        ("https://app.example", true),
        ("capacitor://localhost", true),
        ("http://app.example", false),
        ("tauri://localhost", false),
        ("null", false),
    ] {
        let header = format!("origin: {origin}");
        let from = ["host: a", &header, "sec-fetch-site: cross-site", "cookie: sessionID=a"];
        check(addr, "POST /api/change", &from, is_permitted).await;
        let answer = send(addr, "GET /api/change", &from).await;
        assert_eq!(answer.header("access-control-allow-origin"), is_permitted.then_some(origin));
        let socket = Socket::connect_with(addr, "/ws", &[("origin", origin)]).await;
        let refused = socket.err().map(|answer| (answer.status, answer.error_code()));
        assert_eq!(refused, (!is_permitted).then(|| (403, "cross_site".to_owned())), "{origin}");
    }
    let own = format!("https://{addr}");
    assert!(Socket::connect_with(addr, "/ws", &[("origin", &own)]).await.is_ok(), "a proxy may terminate TLS");
    let judged = [("origin", own.as_str()), ("sec-fetch-site", "cross-site")];
    assert_eq!(Socket::connect_with(addr, "/ws", &judged).await.err().unwrap().status, 403);
}

#[tokio::test]
async fn own_origins_count_where_a_proxy_drops_the_port_of_the_host() {
    let node = node(|config| {
        config.web.allowed_hosts = vec!["https://a".into(), "https://a:8443".into()];
        config.web.trusted_proxies = loopback();
    })
    .await;
    let from = |origin: &'static str| ["host: a", "x-forwarded-proto: https", origin];
    check(node.addr(), "POST /api/change", &from("origin: https://a:8443"), true).await;
    check(node.addr(), "POST /api/change", &from("origin: https://a"), true).await;
    check(node.addr(), "POST /api/change", &from("origin: http://a"), false).await;
    check(node.addr(), "POST /api/change", &from("origin: https://a:9443"), false).await;
}

#[tokio::test]
async fn reported_requests_are_served_counted_and_logged_once_a_minute() {
    let settings = [("PHALANX__WEB__CROSS_SITE", "report")];
    let mut node = Process::start("tour", &settings).await;
    for (origin, times) in [("https://evil.example", 3), ("https://other.example", 1)] {
        let header = format!("origin: {origin}");
        for _ in 0..times {
            let answer = send(node.addr, "POST /api/echo/x", &["host: a", &header]).await;
            assert_ne!(answer.status, 403, "{answer:?}");
        }
    }
    // A socket of another site can read as well: it is refused in every mode.
    let refused = Socket::connect_with(node.addr, "/ws", &[("origin", "https://evil.example")]).await.err().unwrap();
    assert_eq!((refused.status, refused.error_code().as_str()), (403, "cross_site"));
    let metrics = String::from_utf8(get(node.admin, "/metrics").await.body).unwrap();
    for line in [
        "phalanx_cross_site_requests_total{result=\"served\"} 4",
        "phalanx_cross_site_requests_total{result=\"refused\"} 1",
    ] {
        assert!(metrics.lines().any(|metric| metric == line), "{line} in {metrics}");
    }
    node.signal(phalanx_testkit::Signal::TERM);
    node.ended().await;
    let log = node.stderr();
    for origin in ["https://evil.example", "https://other.example"] {
        assert_eq!(log.matches(origin).count(), 1, "{log}");
    }
    let mut config = settings_of_report();
    config.web.cors_origins = vec!["*".into()];
    let node = app().start(config).await.unwrap();
    let with_cookie = ["host: a", "origin: https://evil.example", "cookie: a=b"];
    check(node.addr(), "POST /api/change", &with_cookie, true).await;
}

fn settings_of_report() -> Config {
    let mut config = settings();
    config.web.cross_site = CrossSite::Report;
    config
}

#[tokio::test]
async fn a_path_that_no_own_route_can_have_is_refused_at_boot() {
    for (path, reason) in [
        ("pay", "starts with `/`"),
        ("/api/change", "#[action(cross_site)]"),
        ("/pay/{id}/return", "conflict"),
        ("/pay/{", "/pay/{"),
    ] {
        let refused = app().cross_site(path).start(settings()).await.unwrap_err().to_string();
        assert!(refused.contains(reason) && refused.contains(path), "{refused}");
    }
}

#[tokio::test]
async fn a_request_whose_host_can_be_read_in_two_ways_is_refused_and_closed() {
    let node = node(|_| {}).await;
    let addr = node.addr();
    for (line, hosts, status) in [
        ("GET /api/change HTTP/1.1", &[][..], 400),
        ("GET /api/change HTTP/1.1", &["a", "b"], 400),
        ("GET /api/change HTTP/1.1", &["a", "a"], 400),
        ("GET /api/change HTTP/1.1", &["a, b"], 400),
        ("GET /api/change HTTP/1.1", &["u@a"], 400),
        ("GET /api/change HTTP/1.1", &[""], 400),
        ("GET /api/change HTTP/1.1", &["a:65536"], 400),
        ("GET /api/change HTTP/1.1", &["a/b"], 400),
        ("GET /api/change HTTP/1.1", &["\u{e9}"], 400),
        ("GET http://a/api/change HTTP/1.1", &[], 400),
        ("GET http://u@a/api/change HTTP/1.1", &["a"], 400),
        ("GET /api/change HTTP/1.0", &["a", "b"], 400),
        ("GET /api/change HTTP/1.0", &["a, b"], 400),
        ("GET /api/change HTTP/1.0", &[], 200),
        ("GET http://a/api/change HTTP/1.1", &["b"], 200),
        ("GET /api/change HTTP/1.1", &["[::1]:8080"], 200),
        ("GET /api/change HTTP/1.1", &["a_b.example:1"], 200),
    ] {
        let hosts: String = hosts.iter().map(|host| format!("host: {host}\r\n")).collect();
        let second = "GET /api/change HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let answer = raw(addr, format!("{line}\r\n{hosts}\r\n{second}").as_bytes()).await;
        assert_eq!(answer.status, status, "{line} {hosts}");
        if status == 400 {
            assert_eq!(answer.error_code(), "malformed", "{line} {hosts}");
            assert_eq!(answer.header("connection"), Some("close"), "{line} {hosts}: the next request is not read");
        }
    }
}

#[tokio::test]
async fn hosts_are_compared_with_default_ports() {
    let node = node(|config| {
        config.web.allowed_hosts = vec!["http://ok.example".into(), "https://ok.example:443".into()];
        config.web.trusted_proxies = loopback();
    })
    .await;
    for (host, proto, status) in [
        ("ok.example", "http", 200),
        ("ok.example:80", "http", 200),
        ("OK.example", "HTTPS", 200),
        ("ok.example:443", "https", 200),
        ("ok.example", "wss", 200),
        ("ok.example", "rubbish", 200),
        ("ok.example:443", "http", 302),
        ("ok.example:80", "https", 302),
        ("ok.example:8080", "http", 302),
    ] {
        let headers = [format!("host: {host}"), format!("x-forwarded-proto: {proto}")];
        let answer = send(node.addr(), "GET /api/change", &headers.each_ref().map(String::as_str)).await;
        assert_eq!(answer.status, status, "{headers:?}");
    }
    // The check of a balancer names no host.
    assert_eq!(raw(node.addr(), b"GET /api/change HTTP/1.0\r\n\r\n").await.status, 200);
    assert_eq!(raw(node.addr(), b"GET /api/change HTTP/1.0\r\nhost: other.example\r\n\r\n").await.status, 302);
}

#[tokio::test]
async fn headers_of_a_trusted_proxy_count_only_if_they_are_named() {
    let allowed = |config: &mut Config| {
        config.web.allowed_hosts = vec!["http://ok.example".into(), "https://secure.example".into()];
        config.web.trusted_proxies = loopback();
    };
    let defaults = node(allowed).await;
    let named = node(|config| {
        allowed(config);
        config.web.trusted_headers =
            vec![TrustedHeader::XForwardedHost, TrustedHeader::XForwardedProto, TrustedHeader::XForwardedFor];
    })
    .await;
    let forwarded = node(|config| {
        allowed(config);
        config.web.trusted_headers = vec![TrustedHeader::Forwarded];
    })
    .await;
    for (headers, by_default, if_named, by_forwarded) in [
        (&["host: ok.example"][..], 200, 200, 200),
        (&["host: inside", "x-forwarded-host: ok.example"], 302, 200, 302),
        (&["host: ok.example", "x-forwarded-host: evil.example"], 200, 302, 200),
        (&["host: inside", "x-forwarded-host: evil.example, ok.example"], 302, 200, 302),
        (&["host: secure.example", "x-forwarded-proto: https"], 200, 200, 302),
        (&["host: secure.example", "x-forwarded-proto: https, http"], 302, 302, 302),
        (&["host: secure.example", "x-forwarded-proto: http, https"], 200, 200, 302),
        (
            &["host: secure.example", "x-forwarded-proto: https, http", "x-forwarded-for: 9.9.9.9, 127.0.0.1"],
            200,
            200,
            302,
        ),
        (&["host: inside", "forwarded: for=9.9.9.9;proto=https;host=secure.example"], 302, 302, 200),
        (&["host: inside", "forwarded: host=evil.example, for=\"[::1]:80\";host=\"ok.example:80\""], 302, 302, 200),
        (&["host: inside", "forwarded: for=_hidden;host=ok.example"], 302, 302, 200),
        (&["host: inside", "forwarded: for=\"x, for=unknown;host=ok.example"], 302, 302, 200),
        (&["host: ok.example", "forwarded: rubbish"], 200, 200, 200),
    ] {
        for (node, status) in [(&defaults, by_default), (&named, if_named), (&forwarded, by_forwarded)] {
            let trusted = &node.node().config().web.trusted_headers;
            assert_eq!(send(node.addr(), "GET /api/change", headers).await.status, status, "{headers:?} {trusted:?}");
        }
    }
}

#[tokio::test]
async fn a_proxy_in_a_network_of_mapped_addresses_is_trusted() {
    let node = node(|config| {
        config.web.trusted_proxies = vec!["::ffff:127.0.0.0/104".parse().unwrap()];
        config.web.metadata = Some(true);
    })
    .await;
    let answer = send(node.addr(), "GET /api/change", &["host: a", "x-forwarded-for: 9.9.9.9"]).await.json();
    assert_eq!(answer["requesterInformation"]["remoteIP"], "9.9.9.9");
}

#[derive(Default)]
struct Count(AtomicU64);

/// Counts its calls.
#[action(post)]
async fn count(_ctx: Context, count: State<Count>, _: NoInput) -> Result<u64, ActionError> {
    Ok(count.0.fetch_add(1, Relaxed) + 1)
}

/// Sends a request from the open page, waits for its end, and tries to open a socket.
const FROM_A_PAGE: &str = r#"
    const [addr, done] = arguments;
    const options = { method: "POST", mode: "no-cors", credentials: "include", body: new URLSearchParams({ a: "b" }) };
    const sent = fetch(`http://${addr}/api/count`, options).then(() => "answered");
    const socket = new WebSocket(`ws://${addr}/ws`);
    const opened = new Promise((resolve) => {
        socket.onopen = () => resolve("open");
        socket.onerror = () => resolve("refused");
    });
    Promise.all([sent, opened]).then(done, (error) => done(String(error)));
"#;

/// Submits a form from the open page, which the answer replaces.
const BY_A_FORM: &str = r#"
    const form = document.createElement("form");
    form.action = `http://${arguments[0]}/api/count`;
    form.method = "post";
    document.documentElement.append(form);
    form.submit();
"#;

#[tokio::test]
async fn a_real_browser_reaches_the_node_from_its_own_pages_and_not_from_others() {
    let other = node(|_| {}).await;
    let node = App::new("count").state(Count::default()).actions(actions![count]).start(settings()).await.unwrap();
    let (addr, browser) = (node.addr().to_string(), Browser::start().await);
    let client = &browser.client;
    let foreign = format!("http://localhost:{}/phalanx-client.js", other.addr().port());
    for (page, socket) in [(format!("http://{addr}/phalanx-client.js"), "open"), (foreign.clone(), "refused")] {
        client.goto(&page).await.unwrap();
        let result = client.execute_async(FROM_A_PAGE, vec![addr.clone().into()]).await.unwrap();
        assert_eq!(result, json!(["answered", socket]), "{page}");
    }
    let answer = send(node.addr(), "POST /api/count", &["host: a"]).await;
    assert_eq!(answer.json()["result"], 2, "of the requests of both pages one has run");
    client.goto(&foreign).await.unwrap();
    client.execute(BY_A_FORM, vec![addr.into()]).await.unwrap();
    browser.wait_for(r#"//body[contains(., "cross_site")]"#).await;
}
