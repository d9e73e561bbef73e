//! The tools that break things work themselves.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

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

    /// Reads until what came ends so; whatever comes, if the connection ends.
    async fn reads(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        let read = async {
            while !bytes.ends_with(end.as_bytes()) && self.0.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {}
        };
        timeout(SOON, read).await.expect("an answer comes");
        String::from_utf8(bytes).unwrap()
    }

    async fn asks(&mut self, command: &str, end: &str) -> String {
        self.send(command).await;
        self.reads(end).await
    }
}

#[tokio::test]
async fn a_server_comes_back_with_its_data_or_empty() {
    let mut redis = Redis::start().await;
    let addr = redis.addr();
    assert_eq!(Client::connect(addr).await.asks("SET key value", "\r\n").await, "+OK\r\n");
    redis.kill().await;
    redis.start_again().await;
    assert_eq!(Client::connect(addr).await.asks("GET key", "value\r\n").await, "$5\r\nvalue\r\n");
    redis.kill().await;
    redis.start_empty().await;
    assert_eq!(Client::connect(addr).await.asks("GET key", "\r\n").await, "$-1\r\n");
}

#[tokio::test]
async fn a_frozen_server_answers_when_it_thaws() {
    let redis = Redis::start().await;
    let mut client = Client::connect(redis.addr()).await;
    assert_eq!(client.asks("PING", "\r\n").await, "+PONG\r\n");
    redis.freeze();
    client.send("PING").await;
    let early = timeout(Duration::from_millis(200), client.0.readable()).await;
    assert!(early.is_err(), "a frozen server says nothing");
    redis.thaw();
    assert_eq!(client.reads("\r\n").await, "+PONG\r\n");
}

#[tokio::test]
async fn a_link_is_cut_held_and_mended() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let mut client = Client::connect(proxy.addr()).await;
    assert_eq!(client.asks("PING", "\r\n").await, "+PONG\r\n");
    proxy.hold();
    client.send("PING").await;
    assert!(timeout(Duration::from_millis(200), client.0.readable()).await.is_err(), "nothing comes through");
    proxy.mend();
    assert_eq!(client.reads("\r\n").await, "+PONG\r\n");
    proxy.cut();
    assert_eq!(client.reads("never").await, "", "the connection ends");
    assert_eq!(Client::connect(proxy.addr()).await.reads("never").await, "", "and new ones too");
    proxy.mend();
    assert_eq!(Client::connect(proxy.addr()).await.asks("PING", "\r\n").await, "+PONG\r\n");
}

#[tokio::test]
async fn one_message_is_swallowed_and_the_next_is_not() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let mut listener = Client::connect(proxy.addr()).await;
    listener.asks("SUBSCRIBE news", ":1\r\n").await;
    proxy.swallow("two");
    let mut speaker = Client::connect(redis.addr()).await;
    for word in ["one", "two", "three", "two"] {
        assert_eq!(speaker.asks(&format!("PUBLISH news {word}"), "\r\n").await, ":1\r\n");
    }
    let heard = listener.reads("two\r\n").await;
    let words: Vec<&str> = heard.lines().filter(|line| ["one", "two", "three"].contains(line)).collect();
    assert_eq!(words, ["one", "three", "two"]);
}

#[tokio::test]
async fn a_delayed_link_is_late() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let mut client = Client::connect(proxy.addr()).await;
    proxy.delay(Duration::from_millis(150));
    let asked = tokio::time::Instant::now();
    assert_eq!(client.asks("PING", "\r\n").await, "+PONG\r\n");
    assert!(asked.elapsed() >= Duration::from_millis(300), "both ways");
}
