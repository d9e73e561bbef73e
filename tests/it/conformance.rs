//! Forms, files, conditions, numbers and paths as other programs send them over HTTP and the standards allow them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phalanx::RunningApp;
use phalanx::config::Config;
use phalanx::http::header::{self, HeaderValue};
use phalanx::prelude::*;
use serde_json::{Value, json};

use crate::app::{settings, start};
use crate::client::{Response, get, post_json, raw, request};

#[input]
#[derive(Clone)]
pub(crate) struct Counted {
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<Vec<u8>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nested: Option<Inner>,
    #[serde(flatten)]
    flat: Flat,
    #[serde(skip_serializing_if = "Option::is_none")]
    singles: Option<Vec<f32>>,
}

#[input]
#[derive(Clone)]
pub(crate) struct Inner {
    n: u16,
}

#[input]
#[derive(Clone)]
pub(crate) struct Flat {
    #[serde(skip_serializing_if = "Option::is_none")]
    inner: Option<i64>,
}

/// Returns its numbers.
#[action(get, post)]
pub(crate) async fn numbers(_ctx: Context, input: Counted) -> Result<Counted, ActionError> {
    Ok(input)
}

#[input]
pub(crate) struct Room {
    room: String,
}

/// Returns the room of its path.
#[action(get = "/rooms/{room}")]
pub(crate) async fn room(_ctx: Context, input: Room) -> Result<String, ActionError> {
    Ok(input.room)
}

/// A literal beside a parameter.
#[action(get = "/rooms/list")]
pub(crate) async fn room_list(_ctx: Context) -> Result<String, ActionError> {
    Ok("the list".into())
}

/// A literal that a request percent-encodes.
#[action(get = "/käse")]
pub(crate) async fn cheese(_ctx: Context) -> Result<String, ActionError> {
    Ok("cheese".into())
}

/// Answers with a strong tag.
#[action(get)]
pub(crate) async fn tagged(_ctx: Context) -> Result<Reply<Body>, ActionError> {
    let body = Body::bytes("text/plain", "x".repeat(4096));
    Ok(Reply::new(body).header(header::ETAG, HeaderValue::from_static("\"v1\"")))
}

/// Says how long it may be cached.
#[action(get)]
pub(crate) async fn public(_ctx: Context) -> Result<Reply<u8>, ActionError> {
    Ok(Reply::new(1).header(header::CACHE_CONTROL, HeaderValue::from_static("max-age=60")))
}

/// Has no route: only other actions and sockets call it.
#[action]
pub(crate) async fn blocked(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

#[input]
pub(crate) struct Break {
    how: String,
}

/// Streams one piece, then ends, fails or panics.
#[action(get = "/breaks/{how}")]
pub(crate) async fn breaks(_ctx: Context, input: Break) -> Result<Body, ActionError> {
    let mut step = 0;
    let pieces = futures_util::stream::poll_fn(move |_| {
        step += 1;
        std::task::Poll::Ready(match (step, input.how.as_str()) {
            (1, _) => Some(Ok("piece".into())),
            (_, "error") => Some(Err(ActionError::internal("the disk is gone"))),
            (_, "panic") => panic!("on purpose"),
            _ => None,
        })
    });
    Ok(Body::stream("text/plain", pieces))
}

async fn start_with(change: impl FnOnce(&mut Config)) -> RunningApp {
    let mut config = settings();
    change(&mut config);
    App::new("test")
        .actions(actions![numbers, room, room_list, cheese, tagged, public, blocked, breaks])
        .start(config)
        .await
        .unwrap()
}

/// Sends a form of one part to an action that takes a file.
async fn send_part(addr: SocketAddr, disposition: &[u8], boundary: &str, content_type: &str) -> Response {
    let mut body = format!("--{boundary}\r\ncontent-disposition: ").into_bytes();
    body.extend_from_slice(disposition);
    body.extend_from_slice(format!("\r\n\r\ncontent\r\n--{boundary}--\r\n").as_bytes());
    request(addr, "POST /api/upload", &[&format!("content-type: {content_type}")], &body).await
}

#[tokio::test]
async fn files_of_a_form_are_read_as_clients_name_them() {
    let node = start(settings()).await;
    let plain = "multipart/form-data; boundary=b";
    for (disposition, name) in [
        (&b"form-data; name=\"file\"; filename=\"a.txt\""[..], "a.txt"),
        (b"form-data; name=\"file\"; filename*=utf-8''%C3%A9.txt", "\u{e9}.txt"),
        (b"form-data; name=\"file\"; filename=\"caf\xe9.txt\"", "caf\u{e9}.txt"),
        (b"form-data; NAME=\"file\"; FILENAME=\"a.txt\"", "a.txt"),
        (b"form-data; name=\"file\"; filename=\"a; b=\\\"c\\\".txt\"", "a; b=\"c\".txt"),
        (b"form-data; name=\"file\"; filename=\"C:\\dir\\a.txt\"", "C:\\dir\\a.txt"),
    ] {
        let answer = send_part(node.addr(), disposition, "b", plain).await;
        assert_eq!((answer.status, answer.json()["name"].as_str()), (200, Some(name)), "{answer:?}");
    }
    let smuggled = send_part(node.addr(), b"form-data; name=\"file; filename=evil.txt\"", "b", plain).await;
    assert_eq!(smuggled.status, 422, "{smuggled:?}");
    for boundary in ["----=_Part_1_2.3", "a?b", "==="] {
        let content_type = format!("multipart/form-data; boundary={boundary}");
        let disposition = b"form-data; name=\"file\"; filename=\"a.txt\"";
        let answer = send_part(node.addr(), disposition, boundary, &content_type).await;
        assert_eq!(answer.status, 200, "{boundary}: {answer:?}");
    }
    node.stop().await;
}

/// A folder with a large text, a small one, and files whose media types are often guessed wrong.
fn files(folder: &Path) {
    std::fs::write(folder.join("large.txt"), "x".repeat(4096)).unwrap();
    std::fs::write(folder.join("small.txt"), "x").unwrap();
    for name in ["app.js.map", "app.ts", "app.mts"] {
        std::fs::write(folder.join(name), "{}").unwrap();
    }
}

#[tokio::test]
async fn conditions_that_fail_are_answered_412_with_ranges_too() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path());
    let node = start_with(|config| config.paths.public = vec![folder.path().into()]).await;
    let (past, future) = ("Thu, 01 Jan 1970 00:00:01 GMT", "Fri, 01 Jan 2100 00:00:00 GMT");
    for (header, status) in [
        ("if-match: \"other\"".to_owned(), 412),
        ("if-match: *".to_owned(), 206),
        (format!("if-unmodified-since: {past}"), 412),
        (format!("if-unmodified-since: {future}"), 206),
    ] {
        let ranged = request(node.addr(), "GET /large.txt", &[&header, "range: bytes=0-9"], b"").await;
        assert_eq!(ranged.status, status, "{header}");
        let status = if status == 206 { 200 } else { status };
        for method in ["GET", "HEAD"] {
            let known = [header.as_str(), "cookie: sessionID=known"];
            let answer = request(node.addr(), &format!("{method} /large.txt"), &known, b"").await;
            assert_eq!(answer.status, status, "{method} {header}");
            assert!(status == 200 || answer.header("cache-control").is_none(), "{answer:?}");
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn vary_is_the_same_whatever_a_client_asks_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path());
    let node = start_with(|config| config.paths.public = vec![folder.path().into()]).await;
    let tag = get(node.addr(), "/large.txt").await.header("etag").unwrap().to_owned();
    let fresh = format!("if-none-match: {tag}");
    for (method, headers, status) in [
        ("GET", &[][..], 200),
        ("GET", &["accept-encoding: gzip"], 200),
        ("GET", &["accept-encoding: identity"], 200),
        ("HEAD", &[], 200),
        ("HEAD", &["accept-encoding: gzip"], 200),
        ("GET", &["range: bytes=0-9"], 206),
        ("GET", &[&fresh], 304),
        ("HEAD", &[&fresh, "accept-encoding: br"], 304),
    ] {
        let answer = request(node.addr(), &format!("{method} /large.txt"), headers, b"").await;
        let vary = answer.header("vary").map(str::to_ascii_lowercase);
        assert_eq!((answer.status, vary.as_deref()), (status, Some("accept-encoding")), "{method} {headers:?}");
    }
    assert_eq!(get(node.addr(), "/small.txt").await.header("vary"), None);
    for (name, media) in [("app.js.map", "application/json"), ("app.ts", "text/plain"), ("app.mts", "text/plain")] {
        let answer = get(node.addr(), &format!("/{name}")).await;
        assert_eq!(answer.header("content-type"), Some(format!("{media}; charset=utf-8").as_str()), "{name}");
    }
    node.stop().await;
    let node = start_with(|config| {
        config.paths.public = vec![folder.path().into()];
        config.web.compress = false;
    })
    .await;
    assert_eq!(get(node.addr(), "/large.txt").await.header("vary"), None);
    node.stop().await;
}

#[tokio::test]
async fn a_strong_tag_is_weak_on_compressed_bytes() {
    let node = start_with(|_| {}).await;
    let plain = get(node.addr(), "/api/tagged").await;
    assert_eq!((plain.header("etag"), plain.header("vary")), (Some("\"v1\""), Some("accept-encoding")));
    let packed = request(node.addr(), "GET /api/tagged", &["accept-encoding: gzip"], b"").await;
    assert_eq!((packed.header("content-encoding"), packed.header("etag")), (Some("gzip"), Some("W/\"v1\"")));
    node.stop().await;
}

#[tokio::test]
async fn what_actions_answer_is_private_unless_they_say_otherwise() {
    let node = start_with(|_| {}).await;
    for (line, status) in [
        ("GET /api/numbers", 200),
        ("HEAD /api/numbers", 200),
        ("OPTIONS /api/numbers", 200),
        ("GET /api/rooms/me.css", 200),
        ("GET /api/tagged", 200),
        ("GET /api/numbers?n=x", 422),
        ("GET /api/numbers?apiVersion=9", 404),
        ("GET /api/nope.css", 404),
        ("GET /api/blocked", 404),
        ("GET /api/%2e%2e/x", 404),
        ("PUT /api/numbers", 405),
    ] {
        let answer = request(node.addr(), line, &[], b"").await;
        assert_eq!((answer.status, answer.header("cache-control")), (status, Some("private, no-cache")), "{line}");
    }
    // With the cookie that a first answer sets: one that sets a cookie is private in any case.
    let first = get(node.addr(), "/api/public").await;
    let cookie = first.header("set-cookie").and_then(|cookie| cookie.split(';').next()).unwrap();
    let again = request(node.addr(), "GET /api/public", &[&format!("cookie: {cookie}")], b"").await;
    assert_eq!(again.header("cache-control"), Some("max-age=60"));
    node.stop().await;
}

#[tokio::test]
async fn errors_without_a_call_carry_the_debug_facts_too() {
    for metadata in [true, false] {
        let node = start_with(|config| {
            config.web.metadata = Some(metadata);
            config.web.max_body = "64B".parse().unwrap();
            config.web.body_timeout = Duration::from_millis(200);
        })
        .await;
        let head = "POST /api/numbers HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length:";
        for (length, status) in [(9, 408), (65, 413)] {
            let answer = raw(node.addr(), format!("{head} {length}\r\n\r\n{{").as_bytes()).await;
            let facts = answer.json();
            let has_facts = facts["serverInformation"].is_object() && facts["requesterInformation"].is_object();
            assert_eq!((answer.status, has_facts), (status, metadata), "{length} bytes: {facts}");
            assert!(answer.head.to_ascii_lowercase().contains("cache-control: private"), "{}", answer.head);
        }
        for (line, status) in [
            ("GET /api/nope", 404),
            ("GET /api/blocked", 404),
            ("PUT /api/numbers", 405),
            ("GET /api/numbers?n=x", 422),
        ] {
            let answer = request(node.addr(), line, &[], b"").await;
            let facts = answer.json();
            let has_facts = facts["serverInformation"].is_object() && facts["requesterInformation"].is_object();
            assert_eq!((answer.status, has_facts), (status, metadata), "{line}: {facts}");
        }
        node.stop().await;
    }
}

#[tokio::test]
async fn a_path_is_the_same_however_it_is_escaped() {
    let node = start_with(|_| {}).await;
    for (path, expected) in [
        ("/api/rooms/list", "the list"),
        ("/api/rooms/%6Cist", "the list"),
        ("/%61pi/r%6foms/a", "a"),
        ("/api/rooms/a%2Fb", "a/b"),
        ("/api/rooms/a%252Fb", "a%2Fb"),
        ("/api/rooms/%256Cist", "%6Cist"),
        ("/api/rooms/k%c3%a4se", "k\u{e4}se"),
        ("/api/k%C3%A4se", "cheese"),
        ("/api/k%c3%a4se", "cheese"),
        ("/api/k\u{e4}se", "cheese"),
    ] {
        assert_eq!(get(node.addr(), path).await.json(), json!({ "result": expected }), "{path}");
    }
    for path in ["/api/rooms/%2e%2e", "/api/rooms/%2E", "/api/.%2e/x", "/%2e%2e/etc/passwd"] {
        assert_eq!(get(node.addr(), path).await.status, 404, "{path}");
    }
    node.stop().await;
}

#[tokio::test]
async fn whole_numbers_may_have_a_fraction_or_an_exponent() {
    let node = start_with(|_| {}).await;
    for (body, expected) in [
        (r#"{"n":1.0}"#, json!({"n": 1})),
        (r#"{"n":1e0,"apiVersion":1.0}"#, json!({"n": 1})),
        (r#"{"list":[1.0]}"#, json!({"list": [1]})),
        (r#"{"nested":{"n":1e0}}"#, json!({"nested": {"n": 1}})),
        (r#"{"inner":2.0}"#, json!({"inner": 2})),
        ("\u{feff}{\"n\":1}", json!({"n": 1})),
    ] {
        let answer = post_json(node.addr(), "/api/numbers", body).await;
        assert_eq!((answer.status, without_facts(&answer)), (200, expected), "{body}");
    }
    for body in [r#"{"n":1.5}"#, r#"{"n":9007199254740993.0}"#, r#"{"singles":[1e39]}"#, r#"{"list":[256.0]}"#] {
        let answer = post_json(node.addr(), "/api/numbers", body).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (422, "invalid_input"), "{body}");
    }
    assert_eq!(get(node.addr(), "/api/numbers?n=1.0&apiVersion=1.0").await.json()["n"], 1);
    assert_eq!(get(node.addr(), "/api/numbers?singles=1e39").await.status, 422);
    node.stop().await;
}

fn without_facts(answer: &Response) -> Value {
    let Value::Object(mut fields) = answer.json() else { panic!("an object: {answer:?}") };
    fields.retain(|name, _| !name.ends_with("Information"));
    fields.into()
}

/// The lines that this thread logs.
#[derive(Clone, Default)]
struct LogLines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_stream_that_fails_is_logged_and_counted_as_internal() {
    let lines = LogLines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let node = start_with(|_| {}).await;
    assert!(get(node.addr(), "/api/breaks/never").await.body.ends_with(b"0\r\n\r\n"));
    for (how, cause) in [("error", "the disk is gone"), ("panic", "panicked: on purpose")] {
        let answer = get(node.addr(), &format!("/api/breaks/{how}")).await;
        assert!(!answer.body.ends_with(b"0\r\n\r\n"), "{answer:?}");
        let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let line = log.lines().find(|line| line.contains("ERROR") && line.contains(cause));
        assert!(line.is_some_and(|line| line.contains("request=") && line.contains("breaks")), "{how}: {log}");
    }
    let metrics = String::from_utf8(get(node.admin_addr().unwrap(), "/metrics").await.body).unwrap();
    for (outcome, count) in [("ok", 1), ("internal", 2)] {
        let line = metrics
            .lines()
            .find(|line| line.contains("_actions_total{action=\"breaks\"") && line.contains(&format!("\"{outcome}\"")));
        assert!(line.is_some_and(|line| line.ends_with(&format!(" {count}"))), "{outcome}: {metrics}");
    }
    node.stop().await;
}
