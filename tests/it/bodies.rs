//! Requests whose bodies are awaited: they take no permit among those that run, and are bounded by themselves.

use std::net::SocketAddr;
use std::time::Duration;

use phalanx::RunningApp;
use phalanx::axum::Router;
use phalanx::axum::routing::post;
use phalanx::config::Config;
use phalanx::prelude::*;
use phalanx_testkit::{Process, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::app::{echo, nap, settings, text};
use crate::client::{Response, get, post_json};
use crate::cluster::until;

/// A limit for every wait.
const SOON: Duration = Duration::from_secs(20);

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

async fn start(change: impl FnOnce(&mut Config)) -> RunningApp {
    let mut config = settings();
    change(&mut config);
    let routes = Router::new().route("/own", post(async |body: String| body.len().to_string()));
    App::new("bodies").actions(actions![echo, nap, text]).router(routes).start(config).await.unwrap()
}

/// A request whose head was sent, and whose body is awaited by the node if it lets it in.
struct Upload {
    stream: TcpStream,
}

impl Upload {
    async fn start(addr: SocketAddr, path: &str, length: usize) -> Self {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             expect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Self { stream }
    }

    /// Starts one that is let in: the node asks for the body when it begins to await it.
    async fn awaited(addr: SocketAddr, path: &str, length: usize) -> Self {
        let mut upload = Self::start(addr, path, length).await;
        let mut answer = [0; CONTINUE.len()];
        timeout(SOON, upload.stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, CONTINUE, "{}", String::from_utf8_lossy(&answer));
        upload
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn answer(mut self) -> Response {
        let mut bytes = Vec::new();
        timeout(SOON, self.stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Response { status, head: head.to_owned(), body: body.as_bytes().to_vec() }
    }
}

#[tokio::test]
async fn a_request_whose_body_is_awaited_takes_no_run_permit() {
    let node = start(|config| config.web.max_requests = 2).await;
    let addr = node.addr();
    for path in ["/api/echo", "/own"] {
        let mut uploads = Vec::new();
        for _ in 0..5 {
            uploads.push(Upload::awaited(addr, path, 12).await);
        }
        assert_eq!(get(addr, "/api/text").await.status, 200, "{path}");
        for mut upload in uploads {
            upload.send(br#"{"text":"a"}"#).await;
            assert_eq!(upload.answer().await.status, 200, "{path}");
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn an_upload_gets_a_place_although_new_requests_have_all_that_they_may_take() {
    let node = start(|config| config.web.max_requests = 8).await;
    let addr = node.addr();
    let mut upload = Upload::awaited(addr, "/api/echo", 12).await;
    let naps: Vec<_> =
        (0..7).map(|_| tokio::spawn(async move { get(addr, "/api/nap?ms=1200").await.status })).collect();
    until("new requests are refused", SOON, async || get(addr, "/api/text").await.status == 503).await;
    upload.send(br#"{"text":"a"}"#).await;
    assert_eq!(upload.answer().await.status, 200);
    for nap in naps {
        assert!(matches!(nap.await.unwrap(), 200 | 503));
    }
    node.stop().await;
}

#[tokio::test]
async fn bodies_that_are_awaited_are_bounded_in_number() {
    let node = start(|config| config.web.max_waiting_bodies = 1).await;
    let addr = node.addr();
    let mut first = Upload::awaited(addr, "/api/echo", 12).await;
    assert_eq!(post_json(addr, "/api/echo", r#"{"text":"there"}"#).await.status, 200, "nothing is awaited");
    for path in ["/api/echo", "/own"] {
        let refused = Upload::start(addr, path, 12).await.answer().await;
        let after = refused.header("retry-after").is_some() || refused.head.contains("100 Continue");
        assert!(after, "{refused:?}");
        let text = format!("{}{}", refused.head, String::from_utf8_lossy(&refused.body));
        assert!(text.contains("503 Service Unavailable"), "{path}: {text}");
    }
    first.send(br#"{"text":"a"}"#).await;
    assert_eq!(first.answer().await.status, 200);
    Upload::awaited(addr, "/own", 12).await;
    node.stop().await;
}

#[tokio::test]
async fn bodies_in_memory_are_bounded_in_bytes() {
    let node = start(|config| {
        config.web.max_body = "64KiB".parse().unwrap();
        config.web.max_bodies_total = "64KiB".parse().unwrap();
    })
    .await;
    let addr = node.addr();
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(60_000));
    let (start, end) = large.as_bytes().split_at(40_000);
    let (mut one, mut other) =
        (Upload::awaited(addr, "/api/echo", large.len()).await, Upload::awaited(addr, "/api/echo", large.len()).await);
    one.send(start).await;
    other.send(start).await;
    let (mut byte, mut other_byte) = ([0; 1], [0; 1]);
    let first = async {
        tokio::select! {
            peeked = one.stream.peek(&mut byte) => peeked.map(|_| true),
            peeked = other.stream.peek(&mut other_byte) => peeked.map(|_| false),
        }
    };
    let one_is_first = timeout(SOON, first).await.expect("both do not fit into the memory").unwrap();
    let (refused, mut last) = if one_is_first { (one, other) } else { (other, one) };
    assert_eq!(refused.answer().await.status, 503);
    last.send(end).await;
    let status = last.answer().await.status;
    assert!(matches!(status, 200 | 503), "{status}: it may have met the bound as well");
    assert_eq!(post_json(addr, "/api/echo", &large).await.status, 200, "their memory is free again");
    node.stop().await;
}

#[tokio::test]
async fn a_stop_refuses_a_body_that_does_not_come_and_ends_well() {
    let mut node = Process::start("tour", &[("PHALANX__GENERAL__GRACE", "3s")]).await;
    let mut upload = Upload::awaited(node.addr, "/api/echo", 1000).await;
    upload.send(b"{").await;
    node.signal(Signal::TERM);
    let answer = upload.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")), "{answer:?}");
    assert_eq!(node.ended().await.code(), Some(0), "{}", node.stderr());
}

#[tokio::test]
async fn a_stop_refuses_the_body_of_an_own_route_that_does_not_come() {
    let node = start(|config| config.general.grace = Duration::from_secs(3)).await;
    let mut upload = Upload::awaited(node.addr(), "/own", 1000).await;
    upload.send(b"{").await;
    let stopping = tokio::spawn(node.stop());
    let answer = upload.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")), "{answer:?}");
    timeout(SOON, stopping).await.expect("it stops").unwrap();
}
