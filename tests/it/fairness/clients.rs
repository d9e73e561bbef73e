//! The well-behaved client: it sends one request at a time, and each must be answered.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::SOON;
use crate::client::RawSocket;

/// The address of the well-behaved client.
pub(super) const NEIGHBOUR: &str = "x-forwarded-for: 198.51.100.1\r\n";

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A call with a body, on a connection that is kept.
    Call,
    /// The same to an own route.
    OwnRoute,
    /// A file of 10 kB.
    Upload,
    /// A call that takes a connection of the pool.
    Pooled,
    /// A call on a new connection.
    Connect,
    /// A new WebSocket, until its welcome.
    Handshake,
}

impl Work {
    /// The request, and the end of its response.
    fn exchange(self) -> (Vec<u8>, &'static [u8]) {
        let text = br#"{"text":"a good client"}"#.to_vec();
        let file = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n";
        let upload = [file.as_bytes(), &[b'y'; 10_000], b"\r\n--b--\r\n"].concat();
        let (path, kind, body, end): (_, _, _, &[u8]) = match self {
            Self::Call | Self::Connect | Self::Handshake => {
                ("/api/echo", "application/json", text, br#"{"text":"a good client"}"#)
            }
            Self::OwnRoute => ("/own", "text/plain", text, b"\r\n\r\n24"),
            Self::Pooled => ("/api/pooled", "application/json", text, br#"{"result":13}"#),
            Self::Upload => ("/api/upload", "multipart/form-data; boundary=b", upload, b"y\"}"),
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\n{NEIGHBOUR}content-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        ([head.as_bytes(), &body].concat(), end)
    }
}

/// A client, with its connection.
pub(super) struct Neighbour {
    addr: SocketAddr,
    work: Work,
    stream: TcpStream,
    request: Vec<u8>,
    end: &'static [u8],
    answer: Vec<u8>,
}

impl Neighbour {
    pub(super) async fn connect(addr: SocketAddr, work: Work) -> Self {
        let (request, end) = work.exchange();
        Self { addr, work, stream: connect(addr).await, request, end, answer: Vec::new() }
    }

    /// Sends a request and reads its answer, which must be that of a node that has room.
    pub(super) async fn request(&mut self) {
        match self.work {
            Work::Handshake => drop(RawSocket::connect_with(self.addr, NEIGHBOUR).await),
            Work::Connect => {
                self.stream = connect(self.addr).await;
                self.call().await;
            }
            Work::Call | Work::OwnRoute | Work::Upload | Work::Pooled => self.call().await,
        }
    }

    async fn call(&mut self) {
        self.stream.write_all(&self.request).await.unwrap();
        self.answer.clear();
        while !self.answer.ends_with(self.end) {
            let read = timeout(SOON, self.stream.read_buf(&mut self.answer)).await.expect("it is answered").unwrap();
            assert_ne!(read, 0, "it is closed: {}", String::from_utf8_lossy(&self.answer));
        }
        assert!(self.answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.answer));
    }
}

async fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}
