//! Sockets that call an action in a closed loop, with a fixed number of calls in flight.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Target;
use super::wire::{Socket, encode_client};
use crate::Anyhow;

/// The expected answer to every call.
pub(crate) const ANSWER: &str = r#"{"text":"hello","context":"response","messageId":"1"}"#;

/// The connected sockets of a load.
#[derive(Debug)]
pub(crate) struct Clients {
    sockets: Vec<Socket>,
    /// The frame of a call.
    call: Vec<u8>,
    in_flight: usize,
}

impl Clients {
    /// Connects `count` sockets.
    pub(crate) async fn connect(
        addr: SocketAddr,
        Target { action, cookie }: &Target,
        count: usize,
        in_flight: usize,
    ) -> Result<Self, Anyhow> {
        let mut sockets = Vec::new();
        for _ in 0..count {
            sockets.push(Socket::connect_with(addr, cookie).await?);
        }
        let params = format!(r#"{{"action":"{action}","text":"hello"}}"#);
        let call = encode_client(format!(r#"{{"event":"action","messageId":"1","params":{params}}}"#).as_bytes());
        Ok(Self { sockets, call, in_flight })
    }

    /// Calls for the duration of `span`, and so many times at least; returns the number of answers.
    pub(crate) async fn run(&mut self, span: Duration, least: u64) -> Result<u64, Anyhow> {
        let end = Instant::now() + span;
        let in_flight = self.in_flight;
        let mut running = JoinSet::new();
        for mut socket in self.sockets.drain(..) {
            let calls = self.call.repeat(in_flight);
            running.spawn(async move {
                let mut count = 0;
                while count % 16 != 0 || count < least || Instant::now() < end {
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
