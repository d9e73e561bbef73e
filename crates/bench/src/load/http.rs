//! Keep-alive connections that call the same action repeatedly and compare every answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Anyhow;

/// The cookie of a returning browser, so that no answer sets a new one.
pub(crate) const COOKIE: &str = "sessionID=0123456789abcdef0123456789abcdef";

/// The expected body of every answer.
const BODY: &[u8] = br#"{"text":"hello"}"#;

/// The connections of a load.
#[derive(Debug)]
pub(crate) struct Clients(Vec<Client>);

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Clients {
    /// Connects `count` clients.
    pub(crate) async fn connect(addr: SocketAddr, count: usize) -> Result<Self, Anyhow> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(Client::connect(addr).await?);
        }
        Ok(Self(clients))
    }

    /// Calls for the duration of `span` and returns the number of answers.
    pub(crate) async fn run(&mut self, span: Duration) -> Result<u64, Anyhow> {
        let end = Instant::now() + span;
        let mut running = JoinSet::new();
        for mut client in self.0.drain(..) {
            running.spawn(async move {
                let mut count = 0;
                while count % 16 != 0 || Instant::now() < end {
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

impl Client {
    async fn connect(addr: SocketAddr) -> Result<Self, Anyhow> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 4096] })
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
        const REQUEST: &str = "GET /api/echo/hello HTTP/1.1\r\nhost: bench\r\naccept: */*\r\ncookie: ";
        const CUT: &str = "\r\n\r\n";
        let mut request = [0; 160];
        let mut length = 0;
        for part in [REQUEST, COOKIE, CUT] {
            request[length..length + part.len()].copy_from_slice(part.as_bytes());
            length += part.len();
        }
        self.stream.write_all(&request[..length]).await?;
        let mut end = 0;
        loop {
            match self.stream.read(&mut self.buffer[end..]).await? {
                0 => return Err("the server closed a connection".into()),
                count => end += count,
            }
            let seen = &self.buffer[..end];
            if let Some(head) = seen.windows(4).position(|window| window == CUT.as_bytes())
                && end >= head + 4 + BODY.len()
            {
                return Ok((head + 4, end));
            }
        }
    }
}

/// The response headers of a node, without those that every server adds itself.
pub(crate) async fn headers(addr: SocketAddr) -> Result<Vec<String>, Anyhow> {
    let mut client = Client::connect(addr).await?;
    let (head, _) = client.exchange().await?;
    let text = String::from_utf8_lossy(&client.buffer[..head]).into_owned();
    let own = ["content-length", "date"];
    let is_own = |line: &&str| !own.iter().any(|name| line.to_ascii_lowercase().starts_with(name));
    Ok(text.lines().skip(1).filter(|line| !line.is_empty()).filter(is_own).map(str::to_owned).collect())
}
