//! Bare publish and reply over Redis: messages of a fixed size, written and counted as bytes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::Instant;

use crate::Anyhow;
use crate::apply::per_call;

const PAYLOAD: &str = r#"{"connection":"aaaaaaaaaa-aaaaaaaaaaaaaaaaaaaaaa","method":"set","args":["k",1]}"#;

/// A connection that subscribes to one channel, and one that publishes to another.
struct Link {
    subscriber: TcpStream,
    publisher: OwnedWriteHalf,
    /// One message as it is published.
    published: Vec<u8>,
    /// The length of one message as it is received.
    received_len: usize,
    buffer: Vec<u8>,
    filled: usize,
}

impl Link {
    async fn connect(redis: SocketAddr, subscribe_to: &str, publish_to: &str) -> Result<Self, Anyhow> {
        let (mut subscriber, publisher) = (TcpStream::connect(redis).await?, TcpStream::connect(redis).await?);
        subscriber.set_nodelay(true)?;
        publisher.set_nodelay(true)?;
        let confirmed = format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{subscribe_to}\r\n:1\r\n", subscribe_to.len());
        subscriber.write_all(format!("SUBSCRIBE {subscribe_to}\r\n").as_bytes()).await?;
        subscriber.read_exact(&mut vec![0; confirmed.len()]).await?;
        let (mut replies, publisher) = publisher.into_split();
        tokio::spawn(async move {
            let mut ignored = vec![0; 4096];
            while replies.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
        });
        let payload = format!("${}\r\n{PAYLOAD}\r\n", PAYLOAD.len());
        let published = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{publish_to}\r\n{payload}", publish_to.len());
        let received_len =
            format!("*3\r\n$7\r\nmessage\r\n${}\r\n{subscribe_to}\r\n{payload}", subscribe_to.len()).len();
        let buffer = vec![0; received_len * 64];
        Ok(Self { subscriber, publisher, published: published.into(), received_len, buffer, filled: 0 })
    }

    async fn publish(&mut self, times: usize) -> Result<(), Anyhow> {
        Ok(self.publisher.write_all(&self.published.repeat(times)).await?)
    }

    /// Waits for messages and returns how many arrived.
    async fn receive(&mut self) -> Result<usize, Anyhow> {
        loop {
            let read = self.subscriber.read(&mut self.buffer[self.filled..]).await?;
            if read == 0 {
                return Err("redis closed a connection".into());
            }
            self.filled += read;
            let whole = self.filled / self.received_len;
            if whole > 0 {
                self.filled -= whole * self.received_len;
                return Ok(whole);
            }
        }
    }
}

/// Publishes a reply for every message, until it is killed.
pub(crate) async fn echo(redis: SocketAddr) -> Result<(), Anyhow> {
    let mut link = Link::connect(redis, "bench:call", "bench:reply").await?;
    println!("listening on http://{redis}");
    loop {
        let received = link.receive().await?;
        link.publish(received).await?;
    }
}

/// The calling side of [`echo`].
pub(crate) struct Caller(Link);

impl Caller {
    pub(crate) async fn connect(redis: SocketAddr) -> Result<Self, Anyhow> {
        Ok(Self(Link::connect(redis, "bench:reply", "bench:call").await?))
    }

    /// The microseconds of a call, with `in_flight` calls at a time.
    pub(crate) async fn run(&mut self, in_flight: usize, span: Duration) -> Result<f64, Anyhow> {
        let (started, mut times, mut pending) = (Instant::now(), Vec::new(), VecDeque::new());
        let mut free = in_flight;
        loop {
            if started.elapsed() < span && free > 0 {
                pending.extend(std::iter::repeat_n(Instant::now(), free));
                self.0.publish(free).await?;
            }
            if pending.is_empty() {
                return per_call(times, in_flight, started.elapsed());
            }
            free = self.0.receive().await?;
            times.extend(pending.drain(..free).map(|called| called.elapsed()));
        }
    }
}
