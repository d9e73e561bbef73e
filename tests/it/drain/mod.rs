//! A node that stops under load fails no request: `ROUNDS` stops (3), many in `just chaos`.

pub(crate) mod clients;
mod cut;
pub(crate) mod load;

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use phalanx::config::Config;
use phalanx::prelude::*;
use phalanx::{RunningApp, axum};
use phalanx_testkit::{check_time, print};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use self::clients::{Class, Targets};
use self::load::{Load, Outcomes};
use crate::app::{nap, settings, text};
use crate::client::{RawSocket, Socket};
use crate::panics::SOON;

/// Returns 4 MiB.
#[action(get)]
async fn large(_ctx: Context) -> Result<Body, ActionError> {
    Ok(Body::bytes("text/plain", vec![b'a'; 4 << 20]))
}

/// Takes a body.
#[action(post, raw_body)]
async fn take(_ctx: Context, body: RawBody, _: NoInput) -> Result<usize, ActionError> {
    Ok(body.len())
}

/// A line each 20 ms, for ever.
fn lines() -> impl futures_util::Stream<Item = Result<Bytes, ActionError>> + Send + 'static {
    stream::unfold((), |()| async {
        sleep(Duration::from_millis(20)).await;
        Some((Ok(Bytes::from_static(b"a line\n")), ()))
    })
}

/// Streams until the node stops.
#[action(get)]
async fn endless(_ctx: Context) -> Result<Body, ActionError> {
    Ok(Body::stream("text/plain", lines()))
}

/// Streams a hundred lines, to the end.
#[action(get, finish_stream)]
async fn hundred(_ctx: Context) -> Result<Body, ActionError> {
    Ok(Body::stream("text/plain", futures_util::StreamExt::take(lines(), 100)))
}

/// Streams until it learns itself that the node stops.
#[action(get, finish_stream)]
async fn polite(ctx: Context) -> Result<Body, ActionError> {
    let stopping = Box::pin(async move { ctx.stopping().await });
    Ok(Body::stream("text/plain", futures_util::StreamExt::take_until(lines(), stopping)))
}

async fn start(change: impl FnOnce(&mut Config)) -> RunningApp {
    let mut config = settings();
    change(&mut config);
    let own = async |upgrade: axum::extract::WebSocketUpgrade| {
        upgrade.on_upgrade(async |mut socket| while socket.recv().await.is_some() {})
    };
    let app = App::new("drain").actions(actions![nap, text, large, take, endless, hundred, polite]);
    app.router(axum::Router::new().route("/own", axum::routing::get(own))).start(config).await.unwrap()
}

const TARGETS: Targets =
    Targets { short: "/api/text", slow: "/api/nap?ms=300", download: "/api/large", upload: "/api/take" };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_a_node_stops_under_load() {
    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
    let mut totals = [Outcomes::default(); Class::ALL.len()];
    let mut stops = Vec::new();
    for _ in 0..rounds {
        let node = start(|_| {}).await;
        let load = Load::start(node.addr(), TARGETS);
        load.until_more(1).await;
        let begin = Instant::now();
        let stopped = node.stop().await;
        stops.push(begin.elapsed());
        assert_eq!(stopped.abandoned, 0);
        for (total, outcomes) in totals.iter_mut().zip(load.ended().await) {
            total.add(outcomes);
        }
    }
    stops.sort();
    let all = Outcomes::print(totals);
    print(format_args!("{rounds} stops: median {:?}, longest {:?}", stops[stops.len() / 2], stops[stops.len() - 1]));
    assert_eq!(all.failed, 0);
}

#[tokio::test]
async fn a_quiet_connection_is_closed_and_one_with_half_a_request_is_not() {
    let node = start(|config| config.web.drain = Duration::from_millis(300)).await;
    let addr = node.addr();
    let mut quiet = TcpStream::connect(addr).await.unwrap();
    let mut half = TcpStream::connect(addr).await.unwrap();
    half.write_all(b"GET /api/text HTTP/1.1\r\nho").await.unwrap();
    let begin = Instant::now();
    let stopped = tokio::spawn(node.stop());
    let mut input = Vec::new();
    timeout(SOON, quiet.read_to_end(&mut input)).await.unwrap().unwrap();
    assert_eq!(input, b"");
    let (took, quiet) = (begin.elapsed(), Duration::from_millis(300));
    assert!(took >= quiet, "{took:?}");
    check_time("quiet for 300 ms", took, quiet);
    half.write_all(b"st: x\r\n\r\n").await.unwrap();
    timeout(SOON, half.read_to_end(&mut input)).await.unwrap().unwrap();
    let response = String::from_utf8(input).unwrap().to_lowercase();
    assert!(response.starts_with("http/1.1 200 ") && response.contains("\r\nconnection: close\r\n"), "{response}");
    assert_eq!(stopped.await.unwrap().abandoned, 0);
}

#[tokio::test]
async fn streams_without_an_end_get_one_and_long_downloads_run_on() {
    let node = start(|config| config.websocket.drain = Duration::from_millis(500)).await;
    let addr = node.addr();
    let mut streams = Vec::new();
    for path in ["/api/endless", "/api/polite", "/api/hundred"] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut input = vec![0; 15];
        stream.read_exact(&mut input).await.unwrap();
        assert_eq!(input, b"HTTP/1.1 200 OK");
        streams.push(tokio::spawn(async move {
            stream.read_to_end(&mut input).await.unwrap();
            String::from_utf8(input).unwrap()
        }));
    }
    let stopped = timeout(SOON, node.stop()).await.unwrap();
    assert_eq!(stopped.abandoned, 0);
    let mut lines = Vec::new();
    for stream in streams {
        let text = timeout(SOON, stream).await.unwrap().unwrap();
        assert!(text.ends_with("\r\n0\r\n\r\n"), "the last chunk: {text}");
        lines.push(text.matches("a line").count());
    }
    assert_eq!(lines[2], 100);
    assert!(lines[0] < 100 && lines[1] < 100, "{lines:?}");
}

#[tokio::test]
async fn a_node_that_is_to_stop_serves_on_for_its_delay_and_says_that_it_is_not_ready() {
    let node = start(|config| {
        config.general.stop_delay = Duration::from_secs(1);
        config.web.drain = Duration::from_millis(100);
    })
    .await;
    let (addr, handle) = (node.addr(), node.node().clone());
    let begin = Instant::now();
    let stopped = tokio::spawn(node.stop());
    let not_ready = async {
        while handle.health().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, not_ready).await.unwrap();
    let mut socket = Socket::connect(addr).await;
    let response = crate::client::get(addr, "/api/text").await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close"))); // the client asked for it
    assert!(begin.elapsed() < Duration::from_secs(1), "it is in time: {:?}", begin.elapsed());
    assert_eq!(socket.closed().await, 1001);
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(stopped.await.unwrap().abandoned, 0);
}

#[tokio::test]
async fn a_client_of_http_1_0_is_told_of_the_close_alone() {
    let node = start(|_| {}).await;
    let mut client = TcpStream::connect(node.addr()).await.unwrap();
    let request = "GET /api/text HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut input = Vec::new();
    while !input.ends_with(b"}") {
        input.push(timeout(SOON, client.read_u8()).await.unwrap().unwrap());
    }
    let handle = node.node().clone();
    let stopped = tokio::spawn(node.stop());
    timeout(SOON, handle.stopping()).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    timeout(SOON, client.read_to_end(&mut input)).await.unwrap().unwrap();
    let text = String::from_utf8(input).unwrap().to_lowercase();
    let said: Vec<_> = text.lines().filter(|line| line.starts_with("connection:")).collect();
    assert_eq!(said, ["connection: keep-alive", "connection: close"], "{text}");
    assert_eq!(stopped.await.unwrap().abandoned, 0);
}

#[tokio::test]
async fn an_upgrade_during_the_drain_is_sent_elsewhere_at_once() {
    for path in ["/ws", "/own"] {
        let node = start(|_| {}).await;
        let mut client = TcpStream::connect(node.addr()).await.unwrap();
        client.write_all(b"GET /api/text HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        client.read_exact(&mut [0; 15]).await.unwrap();
        let handle = node.node().clone();
        let stopped = tokio::spawn(node.stop());
        timeout(SOON, handle.stopping()).await.unwrap();
        let upgrade = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        client.write_all(upgrade.as_bytes()).await.unwrap();
        let mut input = Vec::new();
        timeout(SOON, client.read_to_end(&mut input)).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&input).to_lowercase();
        let response = &text[text.find("http/1.1 503").unwrap_or_else(|| panic!("{text}"))..];
        assert!(
            response.contains("\r\nretry-after: 0\r\n") && response.contains("\r\nconnection: close\r\n"),
            "{response}"
        );
        assert_eq!(stopped.await.unwrap().abandoned, 0);
    }
}

#[tokio::test]
async fn sockets_are_closed_one_by_one_over_the_drain() {
    let node = start(|config| {
        config.websocket.drain = Duration::from_secs(1);
        config.web.drain = Duration::from_millis(100);
    })
    .await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(RawSocket::connect(node.addr()).await);
    }
    let begin = Instant::now();
    let stopped = tokio::spawn(node.stop());
    let closing = sockets.into_iter().map(|mut socket| {
        tokio::spawn(async move {
            assert_eq!(socket.closed().await, 1001);
            begin.elapsed()
        })
    });
    let mut times = Vec::new();
    for closed in closing.collect::<Vec<_>>() {
        times.push(timeout(SOON, closed).await.unwrap().unwrap());
    }
    times.sort();
    for (number, time) in times.iter().enumerate() {
        assert!(*time >= Duration::from_millis(200) * number as u32, "evenly: {times:?}");
    }
    assert_eq!(stopped.await.unwrap().abandoned, 0);
}

#[tokio::test]
async fn the_connections_of_operators_end_with_the_node() {
    let node = start(|config| config.admin.bind = "127.0.0.1:0".into()).await;
    let mut half = TcpStream::connect(node.admin_addr().unwrap()).await.unwrap();
    half.write_all(b"GET /livez HTTP/1.1\r\nho").await.unwrap();
    let mut quiet = TcpStream::connect(node.admin_addr().unwrap()).await.unwrap();
    assert_eq!(node.stop().await.abandoned, 0);
    for client in [&mut half, &mut quiet] {
        // Each has 5 s for its head.
        let read = timeout(Duration::from_secs(3), client.read(&mut [0])).await.expect("it is closed");
        assert!(read.is_ok_and(|bytes| bytes == 0));
    }
}
