//! Input crafted to cost the node more than its sender, or to be mistaken for other input.

use std::time::Duration;

use phalanx_testkit::{Process, check_time, print};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;

use crate::app::{settings, start};
use crate::client::{RawSocket, Socket, get, post_json, raw, request};

const MULTIPART: &str = "content-type: multipart/form-data; boundary=b";

#[tokio::test]
async fn a_body_of_a_hundred_thousand_names_costs_no_more_than_its_bytes() {
    let node = start(settings()).await;
    let fields: Vec<String> = (0..95_000).map(|number| format!("\"{number:x}\":0")).collect();
    let body = format!("{{{}}}", fields.join(","));
    let answer = timeout(Duration::from_secs(10), post_json(node.addr(), "/api/echo", &body)).await;
    assert_eq!(answer.expect("it answers in time, even in a build without optimizations").status, 200);
    node.stop().await;
}

#[tokio::test]
async fn bytes_between_the_parts_of_a_multipart_body_are_bounded() {
    let node = start(settings()).await;
    let addr = node.addr();
    let preamble = vec![b'x'; 3 << 20];
    assert_eq!(request(addr, "POST /api/upload", &[MULTIPART], &preamble).await.status, 413);
    let head = [b"--b\r\nx: ".to_vec(), vec![b'y'; 3 << 20]].concat();
    assert_eq!(request(addr, "POST /api/upload", &[MULTIPART], &head).await.status, 413);
    let nameless = "--b\r\ncontent-type: text/plain\r\n\r\nz\r\n".repeat(500) + "--b--\r\n";
    assert_eq!(request(addr, "POST /api/upload", &[MULTIPART], nameless.as_bytes()).await.status, 413);
    node.stop().await;
}

#[tokio::test]
async fn a_form_field_wins_over_a_file_and_an_empty_file_field_is_no_file() {
    let node = start(settings()).await;
    let addr = node.addr();
    let part = |head: &str, body: &str| format!("--b\r\ncontent-disposition: form-data; {head}\r\n\r\n{body}\r\n");
    let both = part("name=\"text\"; filename=\"a\"", "file") + &part("name=\"text\"", "field") + "--b--\r\n";
    let answer = request(addr, "POST /api/echo", &[MULTIPART], both.as_bytes()).await;
    assert_eq!(answer.json()["text"], "field");
    let empty = part("name=\"file\"; filename=\"\"", "") + "--b--\r\n";
    let answer = request(addr, "POST /api/upload", &[MULTIPART], empty.as_bytes()).await;
    assert_eq!(answer.json()["error"]["details"][0]["code"], "required");
    node.stop().await;
}

#[tokio::test]
async fn a_version_is_reached_by_its_own_methods_alone() {
    let node = start(settings()).await;
    let addr = node.addr();
    assert_eq!(get(addr, "/api/thing").await.json()["version"], 1);
    assert_eq!(get(addr, "/api/thing?apiVersion=").await.json()["version"], 1);
    assert_eq!(get(addr, "/api/thing?apiVersion=2").await.error_code(), "not_found");
    assert_eq!(request(addr, "POST /api/thing", &[], b"").await.json()["version"], 2);
    assert_eq!(request(addr, "DELETE /api/thing", &[], b"").await.status, 405);
    node.stop().await;
}

#[tokio::test]
async fn only_a_trusted_proxy_sets_the_client_address_and_only_its_own_entry_counts() {
    let mut config = settings();
    config.web.metadata = Some(true);
    let spoofed = "x-forwarded-for: 1.2.3.4";
    let node = start(config.clone()).await;
    assert_eq!(remote(node.addr(), &[spoofed, "x-real-ip: 1.2.3.4"]).await, "127.0.0.1");
    node.stop().await;
    config.web.trusted_proxies = vec!["127.0.0.1".parse().unwrap(), "::ffff:10.0.0.1".parse().unwrap()];
    let node = start(config).await;
    let addr = node.addr();
    assert_eq!(remote(addr, &["x-forwarded-for: 9.9.9.9"]).await, "9.9.9.9");
    assert_eq!(remote(addr, &["x-forwarded-for: 1.2.3.4, 9.9.9.9, 10.0.0.1"]).await, "9.9.9.9");
    assert_eq!(remote(addr, &[spoofed, "x-forwarded-for: 9.9.9.9"]).await, "9.9.9.9");
    assert_eq!(remote(addr, &["x-forwarded-for: rubbish, 9.9.9.9"]).await, "9.9.9.9");
    assert_eq!(remote(addr, &["x-forwarded-for: [zz]:1"]).await, "127.0.0.1");
    assert_eq!(remote(addr, &["x-real-ip: 9.9.9.9"]).await, "9.9.9.9");
    let unreadable = b"GET /api/echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-forwarded-for: \xff\r\n\
        x-real-ip: 1.2.3.4\r\n\r\n";
    assert_eq!(raw(addr, unreadable).await.json()["requesterInformation"]["remoteIP"], "127.0.0.1");
    node.stop().await;
}

async fn remote(addr: std::net::SocketAddr, headers: &[&str]) -> String {
    let answer = request(addr, "GET /api/echo", headers, b"").await.json();
    answer["requesterInformation"]["remoteIP"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_client_that_never_reads_its_response_is_reset_in_time() {
    let mut config = settings();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("big.bin"), vec![0; 30 << 20]).unwrap();
    config.paths.public = vec![folder.path().to_owned()];
    config.web.write_timeout = Duration::from_millis(300);
    let node = start(config).await;
    let mut unread = TcpStream::connect(node.addr()).await.unwrap();
    unread.write_all(b"GET /big.bin HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 1];
    unread.read_exact(&mut first).await.unwrap();
    // A stop waits up to its grace of 30 s for accepted requests: it ends earlier only if the connection does.
    let started = Instant::now();
    timeout(Duration::from_secs(20), node.stop()).await.expect("the connection is reset");
    check_time("a write timeout of 300 ms: reset", started.elapsed(), Duration::from_millis(300));
    drop(unread);
}

#[tokio::test]
async fn files_of_an_action_are_private_and_keep_their_status() {
    let node = start(settings()).await;
    let addr = node.addr();
    let answer = get(addr, "/api/report").await;
    assert_eq!((answer.status, answer.header("cache-control")), (202, Some("private, no-cache")));
    let head = request(addr, "HEAD /api/report", &["range: bytes=0-1"], b"").await;
    assert_eq!((head.status, head.body.len()), (202, 0));
    assert_eq!(head.header("content-length"), answer.header("content-length"));
    let part = request(addr, "GET /api/report", &["range: bytes=0-1"], b"").await;
    assert_eq!((part.status, part.body.len()), (206, 2));
    let head = request(addr, "HEAD /api/echo/x", &[], b"").await;
    assert_eq!(head.header("content-length"), Some("12"));
    let missing = (get(addr, "/missing").await, request(addr, "HEAD /missing", &[], b"").await);
    assert_eq!(missing.0.header("content-length"), missing.1.header("content-length"));
    node.stop().await;
}

#[tokio::test]
async fn every_frame_counts_and_each_reached_bound_is_counted_by_name() {
    let settings = [("PHALANX__WEBSOCKET__MESSAGES_PER_SECOND", "1"), ("PHALANX__WEBSOCKET__MESSAGE_BURST", "5")];
    let node = Process::start("tour", &settings).await;
    let mut pings = Socket::connect(node.addr).await;
    for _ in 0..250 {
        pings.send_frame(Frame::ping(Vec::new())).await;
    }
    assert_eq!(pings.closed().await, 4003);
    let mut malformed = Socket::connect(node.addr).await;
    for _ in 0..10 {
        malformed.send("{").await;
    }
    assert_eq!(malformed.closed().await, 1008);
    let mut large = Socket::connect(node.addr).await;
    large.send(&"x".repeat(70_000)).await;
    assert_eq!(large.closed().await, 1009);
    let metrics = String::from_utf8(get(node.admin, "/metrics").await.body).unwrap();
    for bound in ["websocket.messages_per_second", "malformed_frames", "websocket.max_frame_bytes"] {
        assert!(metrics.contains(&format!("phalanx_bound_reached_total{{bound=\"{bound}\"}}")), "{bound}: {metrics}");
    }
}

#[tokio::test]
async fn frames_without_payload_count_as_well() {
    let mut config = settings();
    config.websocket.messages_per_second = 20;
    config.websocket.message_burst = 100;
    let node = start(config).await;
    let empty = RawSocket::masked(0x00, b"").repeat(10_000);
    let one_byte = RawSocket::masked(0x00, b" ").repeat(1_000);
    // Twenty million of them, or as many messages in tiny parts as that takes.
    let tiny_parts =
        [RawSocket::masked(0x01, b""), one_byte, RawSocket::masked(0x80, br#"{"event":"detailsView"}"#)].concat();
    for (first, repeated) in [(RawSocket::masked(0x01, b"{"), empty), (Vec::new(), tiny_parts)] {
        let mut socket = RawSocket::connect(node.addr()).await;
        socket.writer.write_all(&first).await.unwrap();
        let started = Instant::now();
        let closed = timeout(Duration::from_secs(1), socket.flood(&repeated, 2_000)).await;
        assert_eq!(closed.expect("it is closed within a second"), 4003);
        print(format_args!("frames without payload: closed after {:.1?}", started.elapsed()));
    }
    node.stop().await;
}

#[tokio::test]
async fn a_pong_between_the_fragments_of_a_message_costs_nothing() {
    let mut config = settings();
    config.websocket.messages_per_second = 20;
    config.websocket.message_burst = 100;
    let node = start(config).await;
    let message = format!(r#"{{"event":"detailsView","fill":"{}"}}"#, "x".repeat(60_000));
    let (first, rest) = message.as_bytes().split_at(30_000);
    let frames = [RawSocket::masked(0x01, first), RawSocket::masked(0x8a, b""), RawSocket::masked(0x80, rest)].concat();
    let mut socket = RawSocket::connect(node.addr()).await;
    for _ in 0..5 {
        socket.writer.write_all(&frames).await.unwrap();
        let (first, payload) = timeout(Duration::from_secs(20), socket.frame()).await.unwrap();
        let answer = String::from_utf8_lossy(&payload);
        assert!(first == 0x81 && answer.contains(r#""status":"OK""#), "{answer}");
    }
    node.stop().await;
}

#[tokio::test]
async fn paths_tolerate_a_slash_at_the_end_and_read_a_plus_as_a_space() {
    let node = start(settings()).await;
    let addr = node.addr();
    assert_eq!(get(addr, "/api/echo/x/").await.json()["text"], "x");
    assert_eq!(get(addr, "/api/echo/a+b%2Bc").await.json()["text"], "a b+c");
    assert_eq!(get(addr, "/api/echo/%ff").await.error_code(), "malformed");
    assert_eq!(request(addr, "OPTIONS /api/nothing", &[], b"").await.status, 200);
    node.stop().await;
}
