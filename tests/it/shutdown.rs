//! A node that stops completes every call that it accepted.

use std::time::Duration;

use phalanx::RunningApp;
use phalanx::prelude::*;
use phalanx_testkit::check_time;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::app::{echo, settings};
use crate::client::{Socket, get};
use crate::panics::{SOON, start};

const WAIT: &str = r#"{"event":"action","messageId":1,"params":{"action":"wait"}}"#;

#[tokio::test]
async fn accepted_calls_are_answered_and_sockets_are_closed() {
    let (node, stage) = start(|_| {}).await;
    let addr = node.addr();
    let mut socket = Socket::connect(addr).await;
    socket.send(WAIT).await;
    stage.until("waiting").await;
    let http = tokio::spawn(async move { get(addr, "/api/wait").await });
    stage.until("waiting").await;
    let stopped = stop(node).await;
    stage.open(2);
    assert_eq!(socket.next_in("response").await["result"], "done");
    assert_eq!(socket.closed().await, 1001);
    assert_eq!(http.await.unwrap().json()["result"], "done");
    assert_eq!(stopped.await.unwrap().abandoned, 0);
}

/// Starts to stop a node, and returns once its only socket is closing.
async fn stop(node: RunningApp) -> tokio::task::JoinHandle<phalanx::StopReport> {
    let connection = node.node().connections().all().remove(0);
    let stopped = tokio::spawn(node.stop());
    let closing = async {
        while !connection.is_closing() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, closing).await.expect("the socket is being closed");
    stopped
}

#[tokio::test]
async fn calls_that_outlast_the_grace_are_abandoned() {
    let (node, stage) = start(|config| config.general.grace = Duration::from_millis(200)).await;
    let mut socket = Socket::connect(node.addr()).await;
    socket.send(WAIT).await;
    stage.until("waiting").await;
    let started = Instant::now();
    let stopped = tokio::time::timeout(SOON, node.stop()).await.unwrap();
    check_time("a grace of 200 ms", started.elapsed(), Duration::from_millis(200));
    assert!(stopped.abandoned > 0);
}

#[tokio::test]
async fn a_client_whose_last_body_is_complete_does_not_delay_a_stop() {
    let mut config = settings();
    config.web.drain = Duration::from_millis(100);
    let node = App::new("echo").actions(actions![echo]).start(config).await.unwrap();
    let mut client = TcpStream::connect(node.addr()).await.unwrap();
    let head = "POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(br#"{"text":"a"}"#).await.unwrap();
    let mut status = [0; 15];
    client.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
    let started = Instant::now();
    node.stop().await;
    assert!(started.elapsed() < Duration::from_millis(1500), "it waits for no client: {:?}", started.elapsed());
}
