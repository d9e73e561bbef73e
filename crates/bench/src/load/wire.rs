//! The subset of WebSocket frames that a load client needs, without a copy or an allocation per frame.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::Anyhow;

/// The maximum size of a head or a frame.
const MAX_SIZE: usize = 1 << 20;

/// A reader of an HTTP head and the frames after it.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    read: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(read: R) -> Self {
        Self { read, buffer: vec![0; 2048], start: 0, end: 0 }
    }

    async fn more(&mut self) -> io::Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end == self.buffer.len() {
                if self.end >= MAX_SIZE {
                    return Err(io::Error::other("a frame of more than 1 MiB"));
                }
                self.buffer.resize(self.end * 2, 0);
            }
        }
        match self.read.read(&mut self.buffer[self.end..]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.end += count;
                Ok(())
            }
        }
    }

    /// Reads the head of an HTTP message.
    pub(crate) async fn head(&mut self) -> io::Result<String> {
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(length) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&unread[..length]).into_owned();
                self.start += length + 4;
                return Ok(head);
            }
            self.more().await?;
        }
    }

    /// Reads the payload of the next text frame; pings are skipped.
    pub(crate) async fn next(&mut self) -> io::Result<&[u8]> {
        loop {
            match self.whole() {
                Some((0x1, payload)) => return Ok(&self.buffer[payload]),
                Some((0x9, _)) => {}
                Some((code, payload)) => {
                    let text = String::from_utf8_lossy(&self.buffer[payload]).into_owned();
                    return Err(io::Error::other(format!("a frame of kind {code}: {text}")));
                }
                None => self.more().await?,
            }
        }
    }

    /// Takes the next frame if the buffer has all of it; a masked payload is unmasked in the buffer.
    fn whole(&mut self) -> Option<(u8, std::ops::Range<usize>)> {
        let unread = &self.buffer[self.start..self.end];
        let (code, second) = (unread.first()? & 0xf, *unread.get(1)?);
        let (length, mut head) = match second & 0x7f {
            126 => (usize::from(u16::from_be_bytes([*unread.get(2)?, *unread.get(3)?])), 4),
            127 => (u64::from_be_bytes(unread.get(2..10)?.try_into().ok()?) as usize, 10),
            short => (usize::from(short), 2),
        };
        let mask: Option<[u8; 4]> = match second & 0x80 {
            0 => None,
            _ => Some(unread.get(head..head + 4)?.try_into().ok()?),
        };
        head += if mask.is_some() { 4 } else { 0 };
        if unread.len() < head + length {
            return None;
        }
        let payload = self.start + head..self.start + head + length;
        if let Some(mask) = mask {
            self.buffer[payload.clone()].iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        }
        self.start = payload.end;
        Some((code, payload))
    }
}

/// A text frame as a server writes it.
pub(crate) fn encode_server(payload: &[u8]) -> Vec<u8> {
    let mut frame = head(payload.len(), 0);
    frame.extend_from_slice(payload);
    frame
}

/// A text frame as a client writes it; the mask is zero, which leaves the payload as it is.
pub(crate) fn encode_client(payload: &[u8]) -> Vec<u8> {
    let mut frame = head(payload.len(), 0x80);
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

fn head(length: usize, masked: u8) -> Vec<u8> {
    let mut head = vec![0x81];
    match length {
        0..126 => head.push(masked | length as u8),
        126..65536 => {
            head.push(masked | 126);
            head.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            head.push(masked | 127);
            head.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    head
}

/// One connected socket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) reader: FrameReader<OwnedReadHalf>,
    pub(crate) write: OwnedWriteHalf,
    /// The connection's id from the welcome; empty if the server is a ceiling.
    pub(crate) id: String,
}

impl Socket {
    /// Connects as a returning browser, and reads the welcome.
    pub(crate) async fn connect(addr: SocketAddr) -> Result<Self, Anyhow> {
        Self::connect_with(addr, super::http::COOKIE).await
    }

    /// Connects with these cookies, and reads the welcome.
    pub(crate) async fn connect_with(addr: SocketAddr, cookies: &str) -> Result<Self, Anyhow> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let (read, mut write) = stream.into_split();
        let request = format!(
            "GET /ws HTTP/1.1\r\nhost: {addr}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\ncookie: {cookies}\r\n\r\n"
        );
        write.write_all(request.as_bytes()).await?;
        let mut reader = FrameReader::new(read);
        let head = reader.head().await?;
        if !head.starts_with("HTTP/1.1 101") {
            return Err(format!("no upgrade: {head}").into());
        }
        let welcome = String::from_utf8_lossy(reader.next().await?).into_owned();
        let id = welcome.split_once("\"id\":\"").and_then(|(_, rest)| rest.split('"').next());
        Ok(Self { id: id.unwrap_or_default().to_owned(), reader, write })
    }

    /// Sends a text frame.
    pub(crate) async fn send(&mut self, payload: &str) -> io::Result<()> {
        self.write.write_all(&encode_client(payload.as_bytes())).await
    }
}
