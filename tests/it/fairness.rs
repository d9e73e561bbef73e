//! One client of each kind that takes more than it pays for, beside a well-behaved one.
//!
//! The latencies are printed and not asserted, since the machines that run this differ: every request of the well-behaved
//! client must be answered. `cargo test -p phalanx-tests --test it -- fairness:: --nocapture`

use std::net::SocketAddr;
use std::time::Duration;

use phalanx::RunningApp;
use phalanx::axum::Router;
use phalanx::axum::routing::post;
use phalanx::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::app::{echo, settings, text};
use crate::client::Socket;

/// A limit for every wait.
const SOON: Duration = Duration::from_secs(20);

const ABUSER: &str = "203.0.113.66";
const REQUESTS: usize = 300;

/// Takes what it is given by one address, and keeps it.
const COUNT: usize = 60;

async fn start() -> RunningApp {
    let mut config = settings();
    config.web.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    config.web.max_requests = 64;
    config.web.max_waiting_bodies = 64;
    config.web.max_connections = 512;
    config.websocket.max_connections = 64;
    let routes = Router::new().route("/own", post(async |body: String| body.len().to_string()));
    App::new("fairness").actions(actions![echo, text]).router(routes).start(config).await.unwrap()
}

/// Sends requests on one connection, as another client; returns the slowest of the fastest 99 in 100.
async fn p99_of_a_good_client(addr: SocketAddr) -> Duration {
    let body = br#"{"text":"a good client"}"#;
    let head = format!(
        "POST /api/echo HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 198.51.100.1\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), body].concat();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut times = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let started = Instant::now();
        stream.write_all(&request).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(body) {
            let mut piece = [0; 1024];
            let read = timeout(SOON, stream.read(&mut piece)).await.expect("it is answered").unwrap();
            assert!(read > 0, "it is not closed");
            answer.extend_from_slice(&piece[..read]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        times.push(started.elapsed());
    }
    times.sort_unstable();
    times[REQUESTS * 99 / 100]
}

/// Sends heads whose bodies never come.
async fn slow_bodies(addr: SocketAddr, path: &str) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..COUNT {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {ABUSER}\r\ncontent-type: application/json\r\n\
             expect: 100-continue\r\ncontent-length: 1000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        timeout(SOON, stream.read_exact(&mut status)).await.unwrap().unwrap();
        assert!(matches!(&status[9..], b"100" | b"429"), "{}", String::from_utf8_lossy(&status));
        held.push(stream);
    }
    held
}

#[tokio::test]
async fn a_client_that_takes_all_it_can_leaves_the_others_what_they_need() {
    let node = start().await;
    let addr = node.addr();
    println!("alone: p99 {:?}", p99_of_a_good_client(addr).await);
    for path in ["/api/echo", "/own"] {
        let held = slow_bodies(addr, path).await;
        println!("beside {COUNT} bodies that do not come on {path}: p99 {:?}", p99_of_a_good_client(addr).await);
        drop(held);
    }
    let mut sockets = Vec::new();
    for _ in 0..COUNT {
        sockets.extend(Socket::connect_with(addr, "/ws", &[("x-forwarded-for", ABUSER)]).await.ok());
    }
    assert_eq!(sockets.len(), 16, "a quarter of websocket.max_connections");
    println!("beside {} sockets of one address: p99 {:?}", sockets.len(), p99_of_a_good_client(addr).await);
    Socket::connect_with(addr, "/ws", &[("x-forwarded-for", "198.51.100.1")]).await.expect("others may connect");
    node.stop().await;
}
