//! A room: every member checks that it receives all messages, those of each publisher in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::wire::Socket;
use crate::Anyhow;

/// The bound on a publisher's messages in flight. A message is in flight until the last member has received it, so that
/// no member falls behind.
struct InFlight {
    permits: Semaphore,
    /// The number of members that received each of the last messages. Members receive in order, so messages complete in
    /// order.
    received: [AtomicUsize; 8],
    members: usize,
}

impl InFlight {
    fn new(limit: usize, members: usize) -> Self {
        Self { permits: Semaphore::new(limit), received: Default::default(), members }
    }

    /// Waits for a permit to publish a message.
    async fn acquire(&self) -> Result<(), Anyhow> {
        self.permits.acquire().await?.forget();
        Ok(())
    }

    /// Counts one more member that received a message; the last one returns the permit.
    fn count_receipt(&self, number: u64) {
        let received = &self.received[number as usize % self.received.len()];
        if received.fetch_add(1, Relaxed) + 1 == self.members {
            received.store(0, Relaxed);
            self.permits.add_permits(1);
        }
    }
}

/// The members of a room; the first ones publish.
#[derive(Debug)]
pub(crate) struct Room {
    members: Vec<Socket>,
    publishers: usize,
    in_flight: usize,
}

const FILLER: &str = "sixty bytes that a person might have typed into this room ...";

impl Room {
    /// Connects `count` members and joins the room.
    pub(crate) async fn connect(
        addr: SocketAddr,
        count: usize,
        publishers: usize,
        in_flight: usize,
    ) -> Result<Self, Anyhow> {
        let mut members = Vec::new();
        for _ in 0..count {
            let mut socket = Socket::connect(addr).await?;
            socket.send(r#"{"event":"roomAdd","room":"defaultRoom"}"#).await?;
            let answer = socket.reader.next().await?;
            if !answer.starts_with(br#"{"status":"OK""#) {
                return Err(format!("cannot join: {}", String::from_utf8_lossy(answer)).into());
            }
            members.push(socket);
        }
        Ok(Self { members, publishers, in_flight })
    }

    /// Publishes for the duration of `span` and returns the number of deliveries to all members.
    pub(crate) async fn run(&mut self, span: Duration) -> Result<u64, Anyhow> {
        let end = Instant::now() + span;
        let (publishers, count) = (self.publishers, self.members.len());
        let bounds = (0..publishers).map(|_| InFlight::new(self.in_flight, count));
        let bounds: Arc<Vec<InFlight>> = Arc::new(bounds.collect());
        let mut running = JoinSet::new();
        for (index, socket) in self.members.drain(..).enumerate() {
            let bounds = bounds.clone();
            running.spawn(async move {
                let Socket { mut reader, mut write, id } = socket;
                let receiving = receive(&mut reader, &bounds);
                let received = if index < publishers {
                    tokio::try_join!(receiving, publish(&mut write, index, &bounds[index], end))?.0
                } else {
                    receiving.await?
                };
                Ok::<_, Anyhow>((index, Socket { reader, write, id }, received))
            });
        }
        let mut back = Vec::with_capacity(count);
        let mut total = 0;
        while let Some(done) = running.join_next().await {
            let (index, socket, received) = done??;
            back.push((index, socket));
            total += received;
        }
        back.sort_by_key(|(index, _)| *index);
        self.members = back.into_iter().map(|(_, socket)| socket).collect();
        Ok(total)
    }
}

/// Publishes numbered messages within the bound, then one that ends the run.
async fn publish(
    write: &mut tokio::net::tcp::OwnedWriteHalf,
    publisher: usize,
    bound: &InFlight,
    end: Instant,
) -> Result<(), Anyhow> {
    use tokio::io::AsyncWriteExt;
    let mut number = 0;
    while Instant::now() < end {
        bound.acquire().await?;
        let frame = super::wire::encode_client(message(publisher, number).as_bytes());
        write.write_all(&frame).await?;
        number += 1;
    }
    bound.acquire().await?;
    let frame = super::wire::encode_client(message(publisher, LAST).as_bytes());
    write.write_all(&frame).await?;
    Ok(())
}

/// The number of a publisher's last message.
const LAST: u64 = 99_999_999;

fn message(publisher: usize, number: u64) -> String {
    format!(r#"{{"event":"say","room":"defaultRoom","message":["{publisher:02}{number:08}","{FILLER}"]}}"#)
}

/// Receives until the last message of every publisher; returns the number of messages.
async fn receive(
    reader: &mut super::wire::FrameReader<tokio::net::tcp::OwnedReadHalf>,
    bounds: &[InFlight],
) -> Result<u64, Anyhow> {
    const START: &[u8] = br#"{"message":[""#;
    let mut next = vec![0_u64; bounds.len()];
    let (mut open, mut received) = (bounds.len(), 0);
    while open > 0 {
        let frame = reader.next().await?;
        let Some(rest) = frame.strip_prefix(START) else {
            if frame.starts_with(br#"{"status":"OK""#) {
                continue; // the answer to a message of this member
            }
            return Err(format!("not a message: {}", String::from_utf8_lossy(frame)).into());
        };
        received += 1;
        let (publisher, number) = numbered(rest).ok_or("a message without its number")?;
        if number == LAST {
            open -= 1;
            continue;
        }
        if number != next[publisher] {
            return Err(format!("publisher {publisher}: received {number}, expected {}", next[publisher]).into());
        }
        next[publisher] += 1;
        bounds[publisher].count_receipt(number);
    }
    Ok(received)
}

fn numbered(text: &[u8]) -> Option<(usize, u64)> {
    let digits = std::str::from_utf8(text.get(..10)?).ok()?;
    Some((digits[..2].parse().ok()?, digits[2..].parse().ok()?))
}
