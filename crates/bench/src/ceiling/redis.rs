//! Publish and reply over Redis with nothing around it: messages of a fixed size, written and counted as bytes.

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

/// One connection that hears a channel, one that publishes on another.
struct Link {
    hears: TcpStream,
    says: OwnedWriteHalf,
    /// What one message is, as it is published.
    said: Vec<u8>,
    /// How long one is, as it is heard.
    heard: usize,
    buffer: Vec<u8>,
    filled: usize,
}

impl Link {
    async fn connect(redis: SocketAddr, hears: &str, says: &str) -> Result<Self, Anyhow> {
        let (mut hearing, saying) = (TcpStream::connect(redis).await?, TcpStream::connect(redis).await?);
        hearing.set_nodelay(true)?;
        saying.set_nodelay(true)?;
        let confirmed = format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{hears}\r\n:1\r\n", hears.len());
        hearing.write_all(format!("SUBSCRIBE {hears}\r\n").as_bytes()).await?;
        hearing.read_exact(&mut vec![0; confirmed.len()]).await?;
        let (mut answers, saying) = saying.into_split();
        tokio::spawn(async move {
            let mut ignored = vec![0; 4096];
            while answers.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
        });
        let payload = format!("${}\r\n{PAYLOAD}\r\n", PAYLOAD.len());
        let said = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{says}\r\n{payload}", says.len());
        let heard = format!("*3\r\n$7\r\nmessage\r\n${}\r\n{hears}\r\n{payload}", hears.len());
        let buffer = vec![0; heard.len() * 64];
        Ok(Self { hears: hearing, says: saying, said: said.into(), heard: heard.len(), buffer, filled: 0 })
    }

    async fn say(&mut self, times: usize) -> Result<(), Anyhow> {
        Ok(self.says.write_all(&self.said.repeat(times)).await?)
    }

    /// Waits for messages and says how many came.
    async fn hear(&mut self) -> Result<usize, Anyhow> {
        loop {
            let read = self.hears.read(&mut self.buffer[self.filled..]).await?;
            if read == 0 {
                return Err("redis closed a connection".into());
            }
            self.filled += read;
            let whole = self.filled / self.heard;
            if whole > 0 {
                self.filled -= whole * self.heard;
                return Ok(whole);
            }
        }
    }
}

/// Publishes back whatever is published, until it is killed.
pub(crate) async fn echo(redis: SocketAddr) -> Result<(), Anyhow> {
    let mut link = Link::connect(redis, "bench:ask", "bench:answer").await?;
    println!("listening on http://{redis}");
    loop {
        let heard = link.hear().await?;
        link.say(heard).await?;
    }
}

/// The other end.
pub(crate) struct Caller(Link);

impl Caller {
    pub(crate) async fn connect(redis: SocketAddr) -> Result<Self, Anyhow> {
        Ok(Self(Link::connect(redis, "bench:answer", "bench:ask").await?))
    }

    /// Microseconds of a call, with so many in flight.
    pub(crate) async fn run(&mut self, in_flight: usize, span: Duration) -> Result<f64, Anyhow> {
        let (began, mut times, mut asked) = (Instant::now(), Vec::new(), VecDeque::new());
        let mut free = in_flight;
        loop {
            if began.elapsed() < span && free > 0 {
                asked.extend(std::iter::repeat_n(Instant::now(), free));
                self.0.say(free).await?;
            }
            if asked.is_empty() {
                return per_call(times, in_flight, began.elapsed());
            }
            free = self.0.hear().await?;
            times.extend(asked.drain(..free).map(|asked| asked.elapsed()));
        }
    }
}
