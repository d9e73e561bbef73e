//! Sockets that call an action in a closed loop, with a fixed number of calls in flight.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::wire::{Socket, encode_client};
use crate::Anyhow;

const CALL: &str = r#"{"event":"action","messageId":"1","params":{"action":"echo","text":"hello"}}"#;

/// The expected answer to every call.
pub(crate) const ANSWER: &str = r#"{"text":"hello","context":"response","messageId":"1"}"#;

/// The connected sockets of a load.
#[derive(Debug)]
pub(crate) struct Clients {
    sockets: Vec<Socket>,
    in_flight: usize,
}

impl Clients {
    /// Connects `count` sockets.
    pub(crate) async fn connect(addr: SocketAddr, count: usize, in_flight: usize) -> Result<Self, Anyhow> {
        let mut sockets = Vec::new();
        for _ in 0..count {
            sockets.push(Socket::connect(addr).await?);
        }
        Ok(Self { sockets, in_flight })
    }

    /// Calls for the duration of `span` and returns the number of answers.
    pub(crate) async fn run(&mut self, span: Duration) -> Result<u64, Anyhow> {
        let end = Instant::now() + span;
        let (one, in_flight) = (encode_client(CALL.as_bytes()), self.in_flight);
        let mut running = JoinSet::new();
        for mut socket in self.sockets.drain(..) {
            let calls = one.repeat(in_flight);
            running.spawn(async move {
                let mut count = 0;
                while count % 16 != 0 || Instant::now() < end {
                    socket.write.write_all(&calls).await?;
                    for _ in 0..in_flight {
                        let answer = socket.reader.next().await?;
                        if answer != ANSWER.as_bytes() {
                            return Err(format!("a wrong answer: {}", String::from_utf8_lossy(answer)).into());
                        }
                        count += 1;
                    }
                }
                Ok::<_, Anyhow>((socket, count))
            });
        }
        let mut total = 0;
        while let Some(done) = running.join_next().await {
            let (socket, count) = done??;
            self.sockets.push(socket);
            total += count;
        }
        Ok(total)
    }
}
