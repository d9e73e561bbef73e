//! A room: every member checks that it hears everything, each speaker's messages in their order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::wire::Socket;
use crate::Anyhow;

/// A speaker's messages on their way: each until the last member has heard it, so that nobody falls behind.
struct InFlight {
    places: Semaphore,
    /// How many members have heard each of the last messages. They hear them in order, so they complete in order.
    heard: [AtomicUsize; 8],
    members: usize,
}

impl InFlight {
    fn new(most: usize, members: usize) -> Self {
        Self { places: Semaphore::new(most), heard: Default::default(), members }
    }

    /// Waits for a place.
    async fn begin(&self) -> Result<(), Anyhow> {
        self.places.acquire().await?.forget();
        Ok(())
    }

    /// Notes that one more member heard a message.
    fn hear(&self, number: u64) {
        let heard = &self.heard[number as usize % self.heard.len()];
        if heard.fetch_add(1, Relaxed) + 1 == self.members {
            heard.store(0, Relaxed);
            self.places.add_permits(1);
        }
    }
}

/// A room's members; the first ones speak.
#[derive(Debug)]
pub(crate) struct Room {
    members: Vec<Socket>,
    speakers: usize,
    in_flight: usize,
}

const FILLER: &str = "sixty bytes that a person might have typed into this room ...";

impl Room {
    /// Connects and joins as many.
    pub(crate) async fn connect(
        addr: SocketAddr,
        count: usize,
        speakers: usize,
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
        Ok(Self { members, speakers, in_flight })
    }

    /// Speaks for a while; says how many messages were heard by all members together.
    pub(crate) async fn run(&mut self, span: Duration) -> Result<u64, Anyhow> {
        let end = Instant::now() + span;
        let (speakers, count) = (self.speakers, self.members.len());
        let places = (0..speakers).map(|_| InFlight::new(self.in_flight, count));
        let places: Arc<Vec<InFlight>> = Arc::new(places.collect());
        let mut running = JoinSet::new();
        for (index, socket) in self.members.drain(..).enumerate() {
            let places = places.clone();
            running.spawn(async move {
                let Socket { mut reader, mut write, id } = socket;
                let listening = listen(&mut reader, &places);
                let heard = if index < speakers {
                    tokio::try_join!(listening, speak(&mut write, index, &places[index], end))?.0
                } else {
                    listening.await?
                };
                Ok::<_, Anyhow>((index, Socket { reader, write, id }, heard))
            });
        }
        let mut back = Vec::with_capacity(count);
        let mut total = 0;
        while let Some(done) = running.join_next().await {
            let (index, socket, heard) = done??;
            back.push((index, socket));
            total += heard;
        }
        back.sort_by_key(|(index, _)| *index);
        self.members = back.into_iter().map(|(_, socket)| socket).collect();
        Ok(total)
    }
}

/// Says numbered messages, so many at a time, then one that ends the run.
async fn speak(
    write: &mut tokio::net::tcp::OwnedWriteHalf,
    speaker: usize,
    places: &InFlight,
    end: Instant,
) -> Result<(), Anyhow> {
    use tokio::io::AsyncWriteExt;
    let mut number = 0;
    while Instant::now() < end {
        places.begin().await?;
        let frame = super::wire::encode_client(message(speaker, number).as_bytes());
        write.write_all(&frame).await?;
        number += 1;
    }
    places.begin().await?;
    let frame = super::wire::encode_client(message(speaker, LAST).as_bytes());
    write.write_all(&frame).await?;
    Ok(())
}

/// The number of a speaker's last message.
const LAST: u64 = 99_999_999;

fn message(speaker: usize, number: u64) -> String {
    format!(r#"{{"event":"say","room":"defaultRoom","message":["{speaker:02}{number:08}","{FILLER}"]}}"#)
}

/// Hears until every speaker has said its last; says how many messages came.
async fn listen(
    reader: &mut super::wire::FrameReader<tokio::net::tcp::OwnedReadHalf>,
    speakers: &[InFlight],
) -> Result<u64, Anyhow> {
    const START: &[u8] = br#"{"message":[""#;
    let mut next = vec![0_u64; speakers.len()];
    let (mut open, mut heard) = (speakers.len(), 0);
    while open > 0 {
        let frame = reader.next().await?;
        let Some(rest) = frame.strip_prefix(START) else {
            if frame.starts_with(br#"{"status":"OK""#) {
                continue; // a speaker's receipt
            }
            return Err(format!("not a message: {}", String::from_utf8_lossy(frame)).into());
        };
        heard += 1;
        let (speaker, number) = numbered(rest).ok_or("a message without its number")?;
        if number == LAST {
            open -= 1;
            continue;
        }
        if number != next[speaker] {
            return Err(format!("speaker {speaker}: heard {number}, expected {}", next[speaker]).into());
        }
        next[speaker] += 1;
        speakers[speaker].hear(number);
    }
    Ok(heard)
}

fn numbered(text: &[u8]) -> Option<(usize, u64)> {
    let digits = std::str::from_utf8(text.get(..10)?).ok()?;
    Some((digits[..2].parse().ok()?, digits[2..].parse().ok()?))
}
