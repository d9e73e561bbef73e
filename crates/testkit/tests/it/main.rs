//! Tests of the tools that cause faults in other tests.
#![allow(clippy::unwrap_used, reason = "a panic names the line of the test")]

use std::net::SocketAddr;
use std::time::Duration;

use phalanx_testkit::{Proxy, Redis};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

struct Client(TcpStream);

impl Client {
    async fn connect(addr: SocketAddr) -> Self {
        Self(TcpStream::connect(addr).await.unwrap())
    }

    async fn send(&mut self, command: &str) {
        self.0.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
    }

    /// Reads until the input ends with `end`, or until the connection ends.
    async fn read_until(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        let read = async {
            while !bytes.ends_with(end.as_bytes()) && self.0.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {}
        };
        timeout(SOON, read).await.expect("a reply arrives");
        String::from_utf8(bytes).unwrap()
    }

    async fn query(&mut self, command: &str, end: &str) -> String {
        self.send(command).await;
        self.read_until(end).await
    }
}

#[tokio::test]
async fn a_restarted_server_has_its_data_or_is_empty() {
    let mut redis = Redis::start().await;
    let addr = redis.addr();
    assert_eq!(Client::connect(addr).await.query("SET key value", "\r\n").await, "+OK\r\n");
    redis.kill().await;
    redis.start_again().await;
    assert_eq!(Client::connect(addr).await.query("GET key", "value\r\n").await, "$5\r\nvalue\r\n");
    redis.kill().await;
    redis.start_empty().await;
    assert_eq!(Client::connect(addr).await.query("GET key", "\r\n").await, "$-1\r\n");
}

#[tokio::test]
async fn a_frozen_server_answers_after_it_is_thawed() {
    let redis = Redis::start().await;
    let mut client = Client::connect(redis.addr()).await;
    assert_eq!(client.query("PING", "\r\n").await, "+PONG\r\n");
    redis.freeze();
    client.send("PING").await;
    let early = timeout(Duration::from_millis(200), client.0.readable()).await;
    assert!(early.is_err(), "a frozen server sends nothing");
    redis.thaw();
    assert_eq!(client.read_until("\r\n").await, "+PONG\r\n");
}

#[tokio::test]
async fn a_link_is_paused_cut_and_restored() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let mut client = Client::connect(proxy.addr()).await;
    assert_eq!(client.query("PING", "\r\n").await, "+PONG\r\n");
    proxy.pause();
    client.send("PING").await;
    assert!(timeout(Duration::from_millis(200), client.0.readable()).await.is_err(), "nothing is forwarded");
    proxy.restore();
    assert_eq!(client.read_until("\r\n").await, "+PONG\r\n");
    proxy.cut();
    assert_eq!(client.read_until("never").await, "", "the connection ends");
    assert_eq!(Client::connect(proxy.addr()).await.read_until("never").await, "", "and so do new ones");
    proxy.restore();
    assert_eq!(Client::connect(proxy.addr()).await.query("PING", "\r\n").await, "+PONG\r\n");
}

#[tokio::test]
async fn one_message_is_dropped_and_the_next_is_not() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let mut subscriber = Client::connect(proxy.addr()).await;
    subscriber.query("SUBSCRIBE news", ":1\r\n").await;
    proxy.swallow("two");
    let mut publisher = Client::connect(redis.addr()).await;
    for word in ["one", "two", "three", "two"] {
        assert_eq!(publisher.query(&format!("PUBLISH news {word}"), "\r\n").await, ":1\r\n");
    }
    let received = subscriber.read_until("two\r\n").await;
    let words: Vec<&str> = received.lines().filter(|line| ["one", "two", "three"].contains(line)).collect();
    assert_eq!(words, ["one", "three", "two"]);
}

#[tokio::test]
async fn a_delayed_link_delays_both_directions() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let mut client = Client::connect(proxy.addr()).await;
    proxy.delay(Duration::from_millis(150));
    let sent = tokio::time::Instant::now();
    assert_eq!(client.query("PING", "\r\n").await, "+PONG\r\n");
    assert!(sent.elapsed() >= Duration::from_millis(300), "in both directions");
}
