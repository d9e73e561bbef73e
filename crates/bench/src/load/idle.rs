//! Sockets that have lived a little and then do nothing.

use std::net::SocketAddr;

use super::wire::Socket;
use crate::Anyhow;
use crate::row::Row;

/// Sockets, each with an id and a room, that sent a frame and heard a hundred.
#[derive(Debug)]
pub(crate) struct Sockets(Vec<Socket>);

/// How many frames each hears.
const HEARD: usize = 100;

/// The largest frame a node takes.
const LARGEST: usize = 64 * 1024;

impl Sockets {
    /// Connects as many and lets them live.
    pub(crate) async fn connect(addr: SocketAddr, count: usize, row: Row) -> Result<Self, Anyhow> {
        let mut sockets = Vec::new();
        for _ in 0..count {
            sockets.push(Socket::connect(addr).await?);
        }
        for socket in &mut sockets {
            socket.send(r#"{"event":"roomAdd","room":"otherRoom"}"#).await?;
            expect(socket, r#"{"status":"OK""#).await?;
        }
        let mut speaker = Socket::connect(addr).await?;
        speaker.send(r#"{"event":"roomAdd","room":"otherRoom"}"#).await?;
        expect(&mut speaker, r#"{"status":"OK""#).await?;
        for _ in 0..HEARD {
            speaker.send(r#"{"event":"say","room":"otherRoom","message":"to everybody here"}"#).await?;
            for socket in &mut sockets {
                expect(socket, r#"{"message":"to"#).await?;
            }
        }
        if row == Row::IdleLarge {
            let (start, end) = (r#"{"event":"action","params":{"action":"status","x":""#, r#""}}"#);
            let frame = format!("{start}{}{end}", "x".repeat(LARGEST - start.len() - end.len()));
            for socket in &mut sockets {
                socket.send(&frame).await?;
                expect(socket, r#"{"id":"#).await?;
            }
        }
        Ok(Self(sockets))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

async fn expect(socket: &mut Socket, start: &str) -> Result<(), Anyhow> {
    let next = tokio::time::timeout(super::PATIENCE, socket.reader.next());
    let answer = next.await.map_err(|_| format!("nothing that begins with {start}"))??;
    if answer.starts_with(start.as_bytes()) {
        return Ok(());
    }
    Err(format!("expected {start}, heard {}", String::from_utf8_lossy(answer)).into())
}
