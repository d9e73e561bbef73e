//! The half of the connection that reads: what comes is believed or refused, and handed on.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BytesMut};
use phalanx_core::backend::{Arrival, Clock, Missed};
use phalanx_core::bound_reached;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::{HEARTBEAT, Shared};
use crate::clock::RedisClock;
use crate::envelope::{Opener, Refusal};
use crate::interop::Ear;
use crate::raw_connection::Reads;
use crate::resp::{Item, Items, Stop};

/// Room for what comes that is kept while nothing does.
const KEPT: usize = 64 * 1024;

/// Who understands what comes: our own envelopes, and what foreign nodes say on their channel.
pub(crate) struct Ears {
    pub(crate) ours: Mutex<Opener>,
    pub(crate) foreign: Option<Arc<Ear>>,
    /// Bytes of the longest message that is taken.
    pub(crate) longest: usize,
}

impl Ears {
    fn open(&self, channel: &[u8], bytes: &[u8], now_ms: u64) -> Result<Option<Arrival>, Refusal> {
        let channel = std::str::from_utf8(channel).map_err(|_| Refusal::Unreadable)?;
        match &self.foreign {
            Some(ear) if ear.channel() == channel => ear.open(bytes, now_ms),
            _ => self.ours.lock().unwrap_or_else(PoisonError::into_inner).open(channel, bytes, now_ms).map(Some),
        }
    }
}

/// Takes messages off the connection. Never waits for whoever they go to.
pub(super) struct Reader {
    pub(super) reads: Reads,
    pub(super) confirm: mpsc::Sender<Result<(), String>>,
    /// How much is to come of a message that is too long.
    pub(super) skip: usize,
    pub(super) ears: Arc<Ears>,
    pub(super) clock: Arc<RedisClock>,
    pub(super) out: mpsc::Sender<Arrival>,
    pub(super) shared: Arc<Shared>,
    /// Messages came that were too old. Told with the next tick: a node whose clock is wrong sends many.
    pub(super) stale: bool,
}

impl Reader {
    /// Reads until the connection breaks; says why it did.
    pub(super) async fn run(mut self) -> String {
        let mut ticks = interval(HEARTBEAT / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut come = BytesMut::new();
        loop {
            if come.is_empty() && come.capacity() > KEPT {
                come = BytesMut::new();
            }
            come.reserve(KEPT / 4);
            tokio::select! {
                read = self.reads.read_buf(&mut come) => match read {
                    Ok(0) => return "the connection was closed".to_owned(),
                    Ok(_) => if let Err(reason) = self.take(&mut come) { return reason },
                    Err(error) => return error.to_string(),
                },
                _ = ticks.tick() => {
                    self.shared.overflow.fetch_or(std::mem::take(&mut self.stale), Relaxed);
                    if self.shared.up.load(Relaxed) {
                        self.tell_gap();
                    }
                }
            }
        }
    }

    /// Hands on everything that has come whole.
    fn take(&mut self, come: &mut BytesMut) -> Result<(), String> {
        let skipped = self.skip.min(come.len());
        self.skip -= skipped;
        let mut items = Items::new(&come[skipped..], self.ears.longest);
        let mut read = skipped;
        loop {
            let confirmation = match pushed(&mut items) {
                Ok(Pushed::Message(channel, bytes)) => {
                    self.hand_on(channel, bytes);
                    None
                }
                Ok(Pushed::TooLong(rest)) => {
                    dropped(Refusal::TooLarge.as_str());
                    read = skipped + items.read();
                    self.skip = rest;
                    break;
                }
                Ok(Pushed::Confirmation) => Some(Ok(())),
                Ok(Pushed::Refusal(words)) => Some(Err(String::from_utf8_lossy(words).into_owned())),
                Err(Stop::Incomplete) => break,
                Err(Stop::Malformed) => return Err("what came is no message of redis".to_owned()),
            };
            if let Some(confirmation) = confirmation {
                self.confirm.try_send(confirmation).map_err(|_| "an answer to what was not asked".to_owned())?;
            }
            read = skipped + items.read();
        }
        come.advance(read);
        // The rest of what is skipped may be here already, and more behind it.
        if self.skip > 0 && !come.is_empty() { self.take(come) } else { Ok(()) }
    }

    fn hand_on(&mut self, channel: &[u8], bytes: &[u8]) {
        let all_told = self.tell_gap();
        match self.ears.open(channel, bytes, self.clock.now_ms()) {
            Ok(None) => {}
            Ok(Some(arrival)) => {
                if !all_told || self.out.try_send(arrival).is_err() {
                    bound_reached("rooms.bus_queue");
                    dropped("queue_full");
                    self.shared.overflow.store(true, Relaxed);
                }
            }
            Err(refusal) => {
                dropped(refusal.as_str());
                self.stale |= refusal == Refusal::Stale; // it is of one of us, and nobody will hear it
            }
        }
    }

    /// Says that messages were missed, once there is room to; answers whether nothing is left to say.
    fn tell_gap(&self) -> bool {
        let has_room = self.out.capacity() >= self.out.max_capacity().div_ceil(2);
        let flags = [(&self.shared.away, Missed::Away), (&self.shared.overflow, Missed::Overflow)];
        flags.into_iter().all(|(flag, missed)| {
            // Taken down before it is told: one that is raised meanwhile stays up.
            if !flag.load(Relaxed) {
                return true;
            }
            let is_told = has_room && flag.swap(false, Relaxed) && self.out.try_send(Arrival::Gap(missed)).is_ok();
            flag.fetch_or(!is_told, Relaxed);
            is_told
        })
    }
}

/// What Redis says on a connection that subscribes.
enum Pushed<'a> {
    /// A message on a channel.
    Message(&'a [u8], &'a [u8]),
    /// A message of which so much is to come, and which is too long.
    TooLong(usize),
    /// An answer to what was asked.
    Confirmation,
    /// No to what was asked, and why.
    Refusal(&'a [u8]),
}

fn pushed<'a>(items: &mut Items<'a>) -> Result<Pushed<'a>, Stop> {
    match items.next()? {
        Item::List(3) => match (items.next()?, items.next()?, items.next()?) {
            (Item::Text(b"message"), Item::Text(channel), Item::Text(bytes)) => Ok(Pushed::Message(channel, bytes)),
            (Item::Text(b"message"), Item::Text(_), Item::TooLong(rest)) => Ok(Pushed::TooLong(rest)),
            (Item::Text(b"subscribe" | b"unsubscribe"), _, Item::Number(_)) => Ok(Pushed::Confirmation),
            _ => Err(Stop::Malformed),
        },
        // PING is answered in two ways: as long as nothing is subscribed, and since.
        Item::List(2) => match (items.next()?, items.next()?) {
            (Item::Text(b"pong"), Item::Text(_)) => Ok(Pushed::Confirmation),
            _ => Err(Stop::Malformed),
        },
        Item::Text(b"PONG") => Ok(Pushed::Confirmation),
        Item::Refused(words) => Ok(Pushed::Refusal(words)),
        Item::Text(_) | Item::Number(_) | Item::Nil | Item::List(_) | Item::TooLong(_) => Err(Stop::Malformed),
    }
}

fn dropped(reason: &'static str) {
    metrics::counter!("phalanx_bus_dropped_total", "reason" => reason).increment(1);
}
