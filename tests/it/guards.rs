//! Guards run before a byte of the body is read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use phalanx::RunningApp;
use phalanx::prelude::*;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::app::settings;
use crate::client::{Response, Socket, post_json, raw, request};

/// A limit for every wait.
const SOON: Duration = Duration::from_secs(20);

const JSON: &str = "content-type: application/json";

/// The caller's name, from a header or from the query.
struct Named(String);

impl FromContext for Named {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        let head = ctx.head();
        let header = head.headers.get("x-user").and_then(|name| name.to_str().ok()).map(str::to_owned);
        let name = header.or_else(|| head.params.get_str("user"));
        name.map(Self).ok_or_else(|| ActionError::unauthenticated("sign in first"))
    }
}

/// A thing that must not be held while a body comes; counts how often it was taken.
struct Taken(u64);

#[derive(Default)]
struct Pool(AtomicU64);

impl FromContext for Taken {
    const AFTER_BODY: bool = true;

    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        let pool = State::<Pool>::from_context(ctx).await?;
        Ok(Self(pool.0.fetch_add(1, SeqCst) + 1))
    }
}

#[input]
struct Note {
    user: Option<String>,
    #[validate(length(min = 1, max = 1000))]
    text: String,
}

#[output]
struct Noted {
    by: String,
    text: String,
    taken: u64,
}

/// Notes a text.
#[action(post = "/notes/{user}", post, max_body = "64B")]
async fn note(_ctx: Context, by: Named, taken: Taken, input: Note) -> Result<Noted, ActionError> {
    Ok(Noted { by: by.0, text: input.text, taken: taken.0 })
}

/// Version 2: for the signed-in only, and of a few bytes.
#[action(name = "open", version = 2, post = "/closed", max_body = "32B")]
async fn open_2(_ctx: Context, by: Named, input: Note) -> Result<Noted, ActionError> {
    Ok(Noted { by: by.0, text: input.text, taken: 2 })
}

/// Version 1: for everybody.
#[action(name = "open", post)]
async fn open_1(_ctx: Context, input: Note) -> Result<Noted, ActionError> {
    Ok(Noted { by: "anybody".into(), text: input.text, taken: 1 })
}

/// Version 3: takes bytes.
#[action(name = "open", version = 3, post = "/bytes", raw_body)]
async fn open_3(_ctx: Context, body: RawBody, _: NoInput) -> Result<usize, ActionError> {
    Ok(body.len())
}

/// Returns the time that is left once the body is there.
#[action(post, deadline = "400ms")]
async fn brief(ctx: Context, _: Note) -> Result<bool, ActionError> {
    let deadline = ctx.deadline().ok_or_else(|| ActionError::not_found("no deadline"))?;
    Ok(deadline.checked_duration_since(tokio::time::Instant::now()).is_some())
}

/// Version 1: of no time.
#[action(post, deadline = "50ms")]
async fn hurried(_ctx: Context, _: Note) -> Result<u8, ActionError> {
    Ok(1)
}

/// Version 2: takes its time.
#[action(name = "hurried", version = 2, post = "/patient", deadline = "20s")]
async fn patient(_ctx: Context, _: Note) -> Result<u8, ActionError> {
    tokio::time::sleep(Duration::from_millis(200)).await;
    Ok(2)
}

/// Version 3: never ends.
#[action(name = "hurried", version = 3, post = "/endless", deadline = "100ms")]
async fn endless(_ctx: Context, _: Note) -> Result<u8, ActionError> {
    std::future::pending().await
}

/// Version 4: may take for ever.
#[action(name = "hurried", version = 4, post = "/unlimited", deadline = "0")]
async fn unlimited(_ctx: Context, _: Note) -> Result<u8, ActionError> {
    tokio::time::sleep(Duration::from_millis(200)).await;
    Ok(4)
}

/// Keeps what it saw of each call before and after its body.
struct Watcher(Arc<std::sync::Mutex<Vec<String>>>);

#[async_trait]
impl Layer for Watcher {
    async fn call(&self, mut call: Call, next: Next<'_>) -> Outcome {
        let head = call.head();
        let seen = format!("{:?} {:?} {:?}", head.path, head.query, head.params.get_str("text"));
        self.0.lock().unwrap().push(seen);
        if call.head().headers.contains_key("x-read") {
            let text = call.body().await.map(|params| params.get_str("text"));
            self.0.lock().unwrap().push(format!("{:?}", text.map_err(|error| error.code().to_owned())));
        }
        next.run(call).await
    }
}

async fn start() -> (RunningApp, Arc<std::sync::Mutex<Vec<String>>>) {
    let seen = Arc::default();
    let app = App::new("guards").state(Pool::default()).layer(Watcher(Arc::clone(&seen)));
    let app = app.actions(actions![note, open_1, open_2, open_3, brief, hurried, patient, endless, unlimited]);
    (app.start(settings()).await.unwrap(), seen)
}

/// Sends the head of a request whose body never comes, and reads what answers it.
async fn head_only(addr: SocketAddr, line: &str, headers: &[&str]) -> Response {
    let head = format!("{line} HTTP/1.1\r\nhost: x\r\n{}\r\n\r\n", headers.join("\r\n"));
    timeout(SOON, raw(addr, head.as_bytes())).await.expect("it is answered without its body")
}

#[tokio::test]
async fn a_guard_refuses_a_request_before_its_body_is_sent() {
    let (node, _) = start().await;
    let length = "content-length: 40";
    let refused = head_only(node.addr(), "POST /api/note", &[JSON, length]).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (401, "unauthenticated"));
    assert_eq!(head_only(node.addr(), "POST /api/note", &[JSON, "content-length: 65"]).await.status, 413);
    let text = "content-type: text/plain";
    assert_eq!(head_only(node.addr(), "POST /api/note?user=eve", &[text, length]).await.status, 415);
    node.stop().await;
}

#[tokio::test]
async fn guards_see_path_and_query_and_those_after_the_body_the_rest() {
    let (node, seen) = start().await;
    let body = br#"{"text":"hi","user":"body"}"#;
    let answer = request(node.addr(), "POST /api/notes/eve?text=query", &[JSON], body).await.json();
    assert_eq!((&answer["by"], &answer["text"], &answer["taken"]), (&json!("eve"), &json!("hi"), &json!(1)));
    let refused = request(node.addr(), "POST /api/note?user=eve", &[JSON], br#"{"text":""}"#).await;
    assert_eq!(refused.error_code(), "invalid_input");
    let answer = request(node.addr(), "POST /api/note?user=eve", &[JSON, "x-read: 1"], body).await.json();
    assert_eq!(answer["taken"], 2, "not taken by the call whose input is not valid");
    let refused = request(node.addr(), "POST /api/note?user=eve", &[JSON, "x-read: 1"], b"{").await;
    assert_eq!(refused.error_code(), "malformed");
    let seen = seen.lock().unwrap().clone();
    let expected = [
        r#"Some("/api/notes/eve") Some("text=query") Some("query")"#,
        r#"Some("/api/note") Some("user=eve") None"#,
        r#"Some("/api/note") Some("user=eve") None"#,
        r#"Ok(Some("hi"))"#,
        r#"Some("/api/note") Some("user=eve") None"#,
        r#"Err("malformed")"#,
    ];
    assert_eq!(seen, expected);
    node.stop().await;
}

#[tokio::test]
async fn a_version_that_the_body_names_runs_its_own_guards() {
    let (node, _) = start().await;
    let addr = node.addr();
    assert_eq!(post_json(addr, "/api/open", r#"{"text":"a"}"#).await.json()["taken"], 1);
    let two = r#"{"text":"a","apiVersion":2}"#;
    assert_eq!(post_json(addr, "/api/open", two).await.error_code(), "unauthenticated");
    let answer = request(addr, "POST /api/open?user=eve", &[JSON], two.as_bytes()).await.json();
    assert_eq!((&answer["by"], &answer["taken"]), (&json!("eve"), &json!(2)));
    let long = r#"{"text":"longer than","apiVersion":2}"#;
    assert_eq!(request(addr, "POST /api/open?user=eve", &[JSON], long.as_bytes()).await.status, 413);
    assert_eq!(post_json(addr, "/api/open", r#"{"text":"a","apiVersion":3}"#).await.status, 404);
    assert_eq!(post_json(addr, "/api/open", r#"{"text":"a","apiVersion":9}"#).await.status, 404);
    node.stop().await;
}

#[tokio::test]
async fn a_version_that_the_body_names_runs_in_its_own_time() {
    let (node, _) = start().await;
    let named = async |path: &str, version: u8| {
        let body = format!(r#"{{"text":"a","apiVersion":{version}}}"#);
        timeout(SOON, post_json(node.addr(), path, &body)).await.expect("it ends in its time")
    };
    assert_eq!(named("/api/hurried", 2).await.json()["result"], 2);
    assert_eq!(named("/api/hurried", 4).await.json()["result"], 4);
    for path in ["/api/hurried", "/api/patient", "/api/unlimited"] {
        assert_eq!(named(path, 3).await.error_code(), "timeout", "{path}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_raw_body_is_kept_as_it_came() {
    let (node, _) = start().await;
    let addr = node.addr();
    for headers in [&["content-type: text/plain"][..], &[JSON], &[]] {
        assert_eq!(request(addr, "POST /api/bytes", headers, b"\xff{not json").await.json()["result"], 10);
        assert_eq!(request(addr, "POST /api/bytes", headers, b"").await.json()["result"], 0);
    }
    let mut socket = Socket::connect(addr).await;
    let refused = socket.request(r#"{"event":"action","params":{"action":"open"}}"#).await;
    assert_eq!(refused["error"]["code"], "forbidden");
    node.stop().await;
}

#[tokio::test]
async fn the_deadline_stands_still_while_the_body_comes() {
    let (node, _) = start().await;
    let mut client = TcpStream::connect(node.addr()).await.unwrap();
    let body = r#"{"text":"slow"}"#;
    let head =
        format!("POST /api/brief HTTP/1.1\r\nhost: x\r\n{JSON}\r\nconnection: close\r\ncontent-length: 15\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    for byte in body.as_bytes().chunks(3) {
        tokio::time::sleep(Duration::from_millis(200)).await; // a slow client: 1 s for 15 bytes
        client.write_all(byte).await.unwrap();
    }
    let mut answer = String::new();
    timeout(SOON, client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"{"result":true}"#), "{answer}");
    node.stop().await;
}
