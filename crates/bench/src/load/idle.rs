//! Sockets that were used a little and are idle now.

use std::net::SocketAddr;

use super::wire::Socket;
use crate::Anyhow;
use crate::row::Row;

/// Idle sockets, each in a room, that sent a frame and received a hundred.
#[derive(Debug)]
pub(crate) struct Sockets(Vec<Socket>);

/// The number of messages that each socket receives.
const MESSAGES: usize = 100;

/// The largest frame that a node accepts.
const MAX_FRAME: usize = 64 * 1024;

impl Sockets {
    /// Connects `count` sockets and uses them, as the row requires.
    pub(crate) async fn connect(addr: SocketAddr, count: usize, row: Row) -> Result<Self, Anyhow> {
        let mut sockets = Vec::new();
        for _ in 0..count {
            sockets.push(Socket::connect(addr).await?);
        }
        for socket in &mut sockets {
            socket.send(r#"{"event":"roomAdd","room":"otherRoom"}"#).await?;
            expect(socket, r#"{"status":"OK""#).await?;
        }
        let mut publisher = Socket::connect(addr).await?;
        publisher.send(r#"{"event":"roomAdd","room":"otherRoom"}"#).await?;
        expect(&mut publisher, r#"{"status":"OK""#).await?;
        for _ in 0..MESSAGES {
            publisher.send(r#"{"event":"say","room":"otherRoom","message":"to all members"}"#).await?;
            for socket in &mut sockets {
                expect(socket, r#"{"message":"to"#).await?;
            }
        }
        if row == Row::IdleLarge {
            let (start, end) = (r#"{"event":"action","params":{"action":"status","x":""#, r#""}}"#);
            let frame = format!("{start}{}{end}", "x".repeat(MAX_FRAME - start.len() - end.len()));
            for socket in &mut sockets {
                socket.send(&frame).await?;
                expect(socket, r#"{"id":"#).await?;
            }
        }
        Ok(Self(sockets))
    }

    /// The number of sockets.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

async fn expect(socket: &mut Socket, start: &str) -> Result<(), Anyhow> {
    let next = tokio::time::timeout(super::TIMEOUT, socket.reader.next());
    let answer = next.await.map_err(|_| format!("no frame starts with {start}"))??;
    if answer.starts_with(start.as_bytes()) {
        return Ok(());
    }
    Err(format!("expected {start}, received {}", String::from_utf8_lossy(answer)).into())
}
