//! An application's own routes, allowed hosts and the admin listener during a start.

use std::net::SocketAddr;
use std::time::Duration;

use phalanx::BoxError;
use phalanx::prelude::*;
use phalanx::{RunningApp, axum};
use phalanx_testkit::{check_time, free_port};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing_subscriber::util::SubscriberInitExt;

use crate::app::{echo, settings};
use crate::client::{get, raw, request};
use crate::cluster::until;

/// A node with custom routes, with or without a fallback.
async fn node(fallback: bool, change: impl FnOnce(&mut phalanx::config::Config)) -> RunningApp {
    let mut config = settings();
    change(&mut config);
    let raw = async |body: axum::body::Body| match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => bytes.len().to_string(),
        Err(error) => format!("broken: {error}"),
    };
    let mut routes = axum::Router::new()
        .route("/text", axum::routing::post(async |text: String| text.len().to_string()))
        .route("/raw", axum::routing::post(raw))
        .route("/span", axum::routing::get(async || tracing::Span::current().metadata().map_or("", |span| span.name())))
        .route("/shared", axum::routing::get(async || ([("cache-control", "public, max-age=60")], "for all")))
        .route("/mine", axum::routing::get(async || ([("cache-control", "max-age=60, private")], "for one")))
        .route("/silent", axum::routing::get(async || ([("set-cookie", "a=1")], "for one")));
    if fallback {
        routes = routes.fallback(async || (StatusCode::IM_A_TEAPOT, "fallback"));
    }
    App::new("routes").actions(actions![echo]).layer(Links).router(routes).start(config).await.unwrap()
}

/// Adds a header with two values.
struct Links;

#[async_trait]
impl Layer for Links {
    async fn call(&self, call: Call, next: Next<'_>) -> Outcome {
        let mut outcome = next.run(call).await;
        if let Ok(answer) = &mut outcome {
            for link in ["</a>; rel=prev", "</b>; rel=next"] {
                answer.headers.append("link", link.parse().unwrap());
            }
        }
        outcome
    }
}

#[tokio::test]
async fn a_header_with_several_values_keeps_them_all() {
    let node = node(false, |_| {}).await;
    let answer = get(node.addr(), "/api/echo").await;
    assert!(answer.head.contains("</a>; rel=prev") && answer.head.contains("</b>; rel=next"), "{}", answer.head);
}

#[tokio::test]
async fn bodies_are_bounded_for_every_extractor() {
    let node = node(false, |config| {
        config.web.max_body = "1KiB".parse().unwrap();
        config.web.body_timeout = Duration::from_millis(200);
    })
    .await;
    let addr = node.addr();
    for path in ["/text", "/raw"] {
        assert_eq!(request(addr, &format!("POST {path}"), &[], &[b'x'; 1000]).await.body, b"1000");
        assert_eq!(request(addr, &format!("POST {path}"), &[], &[b'x'; 2000]).await.status, 413);
        let multipart = request(addr, &format!("POST {path}"), &["content-type: multipart/x"], &[b'x'; 2000]).await;
        assert_eq!(multipart.status, 413, "only a form is an upload");
    }
    let chunked = |path: &str, size: usize| {
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n");
        format!("{head}{size:x}\r\n{}\r\n", "x".repeat(size))
    };
    let ended = |path: &str, size: usize| chunked(path, size) + "0\r\n\r\n";
    assert_eq!(raw(addr, ended("/text", 2000).as_bytes()).await.status, 413);
    let broken = raw(addr, ended("/raw", 2000).as_bytes()).await;
    assert!(broken.body.starts_with(b"broken"), "{broken:?}");
    let started = Instant::now();
    let late = raw(addr, chunked("/text", 10).as_bytes()).await;
    check_time("a body timeout of 200 ms: answered", started.elapsed(), Duration::from_millis(200));
    assert_eq!((late.status, late.error_code().as_str()), (408, "request_timeout"));
}

#[tokio::test]
async fn unmatched_requests_get_a_file_or_the_fallback() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), "a file").unwrap();
    let public = vec![folder.path().to_owned()];
    let with = node(true, |config| config.paths.public = public.clone()).await;
    let without = node(false, |config| config.paths.public = public).await;
    for (line, with_fallback, without_fallback) in [
        ("GET /a.txt", 200, 200),
        ("GET /missing", 418, 404),
        ("POST /missing", 418, 405),
        ("OPTIONS /missing", 418, 200),
        ("GET /api/missing", 418, 404),
        ("GET /text", 405, 405),
    ] {
        assert_eq!(request(with.addr(), line, &[], b"").await.status, with_fallback, "{line}");
        assert_eq!(request(without.addr(), line, &[], b"").await.status, without_fallback, "{line}");
    }
    assert_eq!(get(without.addr(), "/missing").await.error_code(), "not_found");
}

#[tokio::test]
async fn a_route_runs_in_the_span_of_its_request() {
    let _guard = tracing_subscriber::registry().set_default();
    let node = node(false, |_| {}).await;
    assert_eq!(get(node.addr(), "/span").await.body, b"request");
}

#[tokio::test]
async fn responses_that_set_a_cookie_are_not_for_shared_caches() {
    let node = node(false, |_| {}).await;
    let addr = node.addr();
    let first = get(addr, "/shared").await;
    assert_eq!(
        (first.header("cache-control"), first.header("set-cookie").is_some()),
        (Some("private, no-cache"), true)
    );
    let known = request(addr, "GET /shared", &["cookie: sessionID=known"], b"").await;
    assert_eq!((known.header("cache-control"), known.header("set-cookie")), (Some("public, max-age=60"), None));
    assert_eq!(get(addr, "/mine").await.header("cache-control"), Some("max-age=60, private"));
    let silent = request(addr, "GET /silent", &["cookie: sessionID=known"], b"").await;
    assert_eq!((silent.header("cache-control"), silent.header("set-cookie")), (Some("private, no-cache"), Some("a=1")));
}

#[tokio::test]
async fn requests_for_an_unlisted_host_are_redirected_to_the_first_allowed_one() {
    let node = node(false, |config| {
        config.web.allowed_hosts = vec!["https://www.site.com".into(), "http://old.site.com:8080".into()];
        config.web.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    let check = async |host: &str, header: &str, status: u16| {
        let text = format!("GET /api/echo?text=a%20b HTTP/1.1\r\n{host}{header}connection: close\r\n\r\n");
        let answer = raw(node.addr(), text.as_bytes()).await;
        assert_eq!(answer.status, status, "{text}");
        answer
    };
    check("host: www.SITE.com\r\n", "x-forwarded-proto: https\r\n", 200).await;
    check("host: old.site.com:8080\r\n", "", 200).await;
    check("host: old.site.com\r\n", "", 302).await;
    check("host: www.site.com\r\n", "", 302).await;
    let redirected = check("host: 127.0.0.1\r\n", "x-forwarded-proto: https\r\n", 302).await;
    let target = "https://www.site.com/api/echo?text=a%20b";
    assert_eq!(redirected.header("location"), Some(target));
    assert_eq!(redirected.body, format!("You are being redirected to {target}\r\n").as_bytes());
    assert_eq!((redirected.header("x-content-type-options"), redirected.header("set-cookie")), (None, None));
}

#[tokio::test]
async fn a_configured_admin_address_must_be_free_and_the_default_one_need_not_be() {
    // If this fails, another process listens there: the port is taken either way.
    let _taken = std::net::TcpListener::bind("127.0.0.1:9100");
    let mut config = settings();
    config.admin.bind = "auto".into();
    assert!(App::new("routes").start(config.clone()).await.unwrap().admin_addr().is_some());
    config.admin.bind = "127.0.0.1:9100".into();
    let refused = App::new("routes").start(config).await.unwrap_err().to_string();
    assert!(refused.contains("admin.bind"), "{refused}");
}

/// Initializes once the test sends a result, and returns that result.
struct Slow(tokio::sync::Mutex<tokio::sync::mpsc::Receiver<Result<(), BoxError>>>);

#[async_trait]
impl Initializer for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    async fn initialize(&self, _: &mut Boot<'_>) -> Result<(), BoxError> {
        self.0.lock().await.recv().await.unwrap()
    }
}

#[tokio::test]
async fn a_node_is_alive_and_not_ready_while_its_initializers_run() {
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut config = settings();
    config.admin.bind = admin.to_string();
    for result in [Err("no disk".into()), Ok(())] {
        let fails = result.is_err();
        let (results, received) = tokio::sync::mpsc::channel(1);
        let starting = tokio::spawn(App::new("routes").initializer(Slow(received.into())).start(config.clone()));
        until("the admin listener is up", Duration::from_secs(20), async || TcpStream::connect(admin).await.is_ok())
            .await;
        assert_eq!(get(admin, "/livez").await.status, 200);
        let ready = get(admin, "/readyz").await;
        assert_eq!((ready.status, &ready.json()["problems"]), (503, &serde_json::json!(["starting"])));
        results.send(result).await.unwrap();
        match starting.await.unwrap() {
            Ok(node) => assert_eq!((fails, get(node.admin_addr().unwrap(), "/readyz").await.status), (false, 200)),
            Err(error) => assert!(fails && TcpStream::connect(admin).await.is_err(), "{error}"),
        }
    }
}

#[tokio::test]
async fn invalid_settings_fail_a_start_from_code_too() {
    let mut config = settings();
    config.web.max_requests = 0;
    let refused = App::new("routes").start(config).await.unwrap_err().to_string();
    assert!(refused.contains("web.max_requests"), "{refused}");
}
