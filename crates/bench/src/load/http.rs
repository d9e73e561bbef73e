//! Keep-alive connections that call the same action repeatedly and compare every answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Target;
use crate::Anyhow;

/// The cookie of a returning browser, so that no answer sets a new one.
pub(crate) const COOKIE: &str = "sessionID=0123456789abcdef0123456789abcdef";

/// The expected body of every answer.
const BODY: &[u8] = br#"{"text":"hello"}"#;

/// The end of a head.
const CUT: &[u8] = b"\r\n\r\n";

/// The connections of a load.
#[derive(Debug)]
pub(crate) struct Clients(Vec<Client>);

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    request: Arc<str>,
    buffer: Vec<u8>,
}

impl Clients {
    /// Connects `count` clients.
    pub(crate) async fn connect(addr: SocketAddr, target: &Target, count: usize) -> Result<Self, Anyhow> {
        let (mut clients, request) = (Vec::new(), request_of(target));
        for _ in 0..count {
            clients.push(Client::connect(addr, request.clone()).await?);
        }
        Ok(Self(clients))
    }

    /// Calls for the duration of `span`, and so many times at least; returns the number of answers.
    pub(crate) async fn run(&mut self, span: Duration, least: u64) -> Result<u64, Anyhow> {
        let end = Instant::now() + span;
        let mut running = JoinSet::new();
        for mut client in self.0.drain(..) {
            running.spawn(async move {
                let mut count = 0;
                while count % 16 != 0 || count < least || Instant::now() < end {
                    client.call().await?;
                    count += 1;
                }
                Ok::<_, Anyhow>((client, count))
            });
        }
        let mut total = 0;
        while let Some(done) = running.join_next().await {
            let (client, count) = done??;
            self.0.push(client);
            total += count;
        }
        Ok(total)
    }
}

/// The request for a target.
fn request_of(Target { action, cookie }: &Target) -> Arc<str> {
    format!("GET /api/{action}/hello HTTP/1.1\r\nhost: bench\r\naccept: */*\r\ncookie: {cookie}\r\n\r\n").into()
}

impl Clients {
    /// Calls with the first one, and waits for the answer.
    pub(crate) async fn call_once(&mut self) -> Result<(), Anyhow> {
        self.0.first_mut().ok_or("there is no client")?.call().await
    }
}

impl Client {
    async fn connect(addr: SocketAddr, request: Arc<str>) -> Result<Self, Anyhow> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request, buffer: vec![0; 4096] })
    }

    async fn call(&mut self) -> Result<(), Anyhow> {
        let (head, end) = self.exchange().await?;
        if !self.buffer.starts_with(b"HTTP/1.1 200 ") || &self.buffer[head..end] != BODY {
            return Err(format!("a wrong answer: {}", String::from_utf8_lossy(&self.buffer[..end])).into());
        }
        Ok(())
    }

    /// Sends a request, reads its answer into the buffer and returns the start and end of the body.
    async fn exchange(&mut self) -> Result<(usize, usize), Anyhow> {
        self.stream.write_all(self.request.as_bytes()).await?;
        let mut end = 0;
        loop {
            match self.stream.read(&mut self.buffer[end..]).await? {
                0 => return Err("the server closed a connection".into()),
                count => end += count,
            }
            let seen = &self.buffer[..end];
            if let Some(head) = seen.windows(4).position(|window| window == CUT)
                && end >= head + 4 + BODY.len()
            {
                return Ok((head + 4, end));
            }
        }
    }
}

/// The response headers of a node, without those that every server adds itself.
pub(crate) async fn headers(addr: SocketAddr) -> Result<Vec<String>, Anyhow> {
    let mut client = Client::connect(addr, request_of(&Target::echo())).await?;
    let (head, _) = client.exchange().await?;
    let text = String::from_utf8_lossy(&client.buffer[..head]).into_owned();
    let own = ["content-length", "date"];
    let is_own = |line: &&str| !own.iter().any(|name| line.to_ascii_lowercase().starts_with(name));
    Ok(text.lines().skip(1).filter(|line| !line.is_empty()).filter(is_own).map(str::to_owned).collect())
}

/// Posts nothing to a path and returns the cookie that the answer sets, `name=value`.
pub(crate) async fn new_cookie(addr: SocketAddr, path: &str) -> Result<String, Anyhow> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncookie: {COOKIE}\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.windows(CUT.len()).any(|window| window == CUT) {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err("the server closed a connection".into());
        }
    }
    let head = String::from_utf8_lossy(&answer).into_owned();
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")?.split(';').next());
    Ok(cookie.ok_or_else(|| format!("no cookie: {head}"))?.to_owned())
}
