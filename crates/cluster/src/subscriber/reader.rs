//! The half of the connection that reads: verifies and decodes messages and passes them on.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BytesMut};
use phalanx_core::backend::{Clock, GapCause, Incoming};
use phalanx_core::bound_reached;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::{Confirmation, HEARTBEAT, SubscriberState};
use crate::clock::RedisClock;
use crate::envelope::{EnvelopeReader, Refusal};
use crate::interop::InteropChannel;
use crate::raw_connection::Reads;
use crate::resp::{RespError, RespItem, RespItems};

/// The capacity of the read buffer that is kept while the buffer is empty.
const RETAINED_CAPACITY: usize = 64 * 1024;

/// Verifies and decodes messages: the envelopes of our nodes, and those of Actionhero nodes on their channel.
pub(crate) struct MessageDecoder {
    pub(crate) envelopes: Mutex<EnvelopeReader>,
    pub(crate) interop: Option<Arc<InteropChannel>>,
    /// The most bytes of a message; longer ones are skipped.
    pub(crate) max_message: usize,
}

impl MessageDecoder {
    fn decode(&self, channel: &[u8], bytes: &[u8], now_ms: u64) -> Result<Option<Incoming>, Refusal> {
        let channel = std::str::from_utf8(channel).map_err(|_| Refusal::Unreadable)?;
        match &self.interop {
            Some(interop) if interop.name() == channel => interop.decode(bytes, now_ms),
            _ => self.envelopes().read(channel, bytes, now_ms),
        }
    }

    pub(super) fn envelopes(&self) -> MutexGuard<'_, EnvelopeReader> {
        self.envelopes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes messages off the connection. Never waits for the consumer of the queue.
pub(super) struct ChannelReader {
    pub(super) reads: Reads,
    pub(super) confirm: mpsc::Sender<Confirmation>,
    /// The number of bytes of a too long message that are still to be skipped.
    pub(super) skip: usize,
    pub(super) decoder: Arc<MessageDecoder>,
    pub(super) clock: Arc<RedisClock>,
    pub(super) out: mpsc::Sender<Incoming>,
    pub(super) shared: Arc<SubscriberState>,
    /// Stale messages were received. The gap is reported with the next tick and not at once, because a node whose clock
    /// is wrong sends many of them.
    pub(super) received_stale: bool,
}

impl ChannelReader {
    /// Reads until the connection breaks; returns the reason.
    pub(super) async fn run(mut self) -> String {
        let mut ticks = interval(HEARTBEAT / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut received = BytesMut::new();
        loop {
            if received.is_empty() && received.capacity() > RETAINED_CAPACITY {
                received = BytesMut::new();
            }
            received.reserve(RETAINED_CAPACITY / 4);
            tokio::select! {
                read = self.reads.read_buf(&mut received) => match read {
                    Ok(0) => return "the connection was closed".to_owned(),
                    Ok(_) => if let Err(reason) = self.process(&mut received) { return reason },
                    Err(error) => return error.to_string(),
                },
                _ = ticks.tick() => {
                    self.shared.missed_by_overflow.fetch_or(std::mem::take(&mut self.received_stale), Relaxed);
                    if *self.shared.session.borrow() > 0 {
                        self.report_gaps();
                    }
                }
            }
        }
    }

    /// Processes everything that was received completely.
    fn process(&mut self, received: &mut BytesMut) -> Result<(), String> {
        let skipped = self.skip.min(received.len());
        self.skip -= skipped;
        let mut items = RespItems::new(&received[skipped..], self.decoder.max_message);
        let mut read = skipped;
        loop {
            let confirmation = match next_push(&mut items) {
                Ok(Push::Publication(channel, bytes)) => {
                    self.pass_on(channel, bytes);
                    None
                }
                Ok(Push::TooLong(rest)) => {
                    record_dropped(Refusal::TooLarge.as_str());
                    read = skipped + items.read();
                    self.skip = rest;
                    break;
                }
                Ok(Push::Confirmed) => Some(Confirmation::Confirmed),
                Ok(Push::Refused(message)) => {
                    Some(Confirmation::Refused(String::from_utf8_lossy(message).into_owned()))
                }
                Err(RespError::Incomplete) => break,
                Err(RespError::Malformed) => return Err("redis sent something other than a message".to_owned()),
            };
            if let Some(confirmation) = confirmation {
                self.confirm.try_send(confirmation).map_err(|_| "a reply without a command".to_owned())?;
            }
            read = skipped + items.read();
        }
        received.advance(read);
        // The rest of the skipped message may already be in the buffer, followed by others.
        if self.skip > 0 && !received.is_empty() { self.process(received) } else { Ok(()) }
    }

    fn pass_on(&mut self, channel: &[u8], bytes: &[u8]) {
        let all_reported = self.report_gaps();
        match self.decoder.decode(channel, bytes, self.clock.now_ms()) {
            Ok(None) => {}
            Ok(Some(arrival)) => {
                if !all_reported || self.out.try_send(arrival).is_err() {
                    bound_reached("rooms.bus_queue");
                    record_dropped("queue_full");
                    self.shared.missed_by_overflow.store(true, Relaxed);
                }
            }
            Err(refusal) => {
                record_dropped(refusal.as_str());
                // Authentic messages that are now lost.
                self.received_stale |= refusal == Refusal::Stale;
                self.shared.missed_by_overflow.fetch_or(refusal == Refusal::UnknownSender, Relaxed);
            }
        }
    }

    /// Reports that messages were missed, once the queue is half empty; returns whether no gap is left to report.
    fn report_gaps(&self) -> bool {
        let has_capacity = self.out.capacity() >= self.out.max_capacity().div_ceil(2);
        let flags =
            [(&self.shared.missed_while_down, GapCause::Away), (&self.shared.missed_by_overflow, GapCause::Overflow)];
        flags.into_iter().all(|(flag, cause)| {
            if !flag.load(Relaxed) {
                return true;
            }
            // Cleared before the gap is reported: if the flag is set again meanwhile, it remains set.
            let is_reported =
                has_capacity && flag.swap(false, Relaxed) && self.out.try_send(Incoming::Gap(cause)).is_ok();
            flag.fetch_or(!is_reported, Relaxed);
            is_reported
        })
    }
}

/// One thing that Redis sends on a subscribed connection.
enum Push<'a> {
    /// A message: its channel and its bytes.
    Publication(&'a [u8], &'a [u8]),
    /// A message that is too long; this many bytes of it follow.
    TooLong(usize),
    /// A positive reply to a command.
    Confirmed,
    /// An error reply to a command, with its message.
    Refused(&'a [u8]),
}

fn next_push<'a>(items: &mut RespItems<'a>) -> Result<Push<'a>, RespError> {
    match items.next()? {
        RespItem::List(3) => match (items.next()?, items.next()?, items.next()?) {
            (RespItem::Text(b"message"), RespItem::Text(channel), RespItem::Text(bytes)) => {
                Ok(Push::Publication(channel, bytes))
            }
            (RespItem::Text(b"message"), RespItem::Text(_), RespItem::TooLong(rest)) => Ok(Push::TooLong(rest)),
            (RespItem::Text(b"subscribe" | b"unsubscribe"), _, RespItem::Number(_)) => Ok(Push::Confirmed),
            _ => Err(RespError::Malformed),
        },
        // The reply to PING is a list on a connection with subscriptions, and a plain text on one without.
        RespItem::List(2) => match (items.next()?, items.next()?) {
            (RespItem::Text(b"pong"), RespItem::Text(_)) => Ok(Push::Confirmed),
            _ => Err(RespError::Malformed),
        },
        RespItem::Text(b"PONG") => Ok(Push::Confirmed),
        RespItem::Error(message) => Ok(Push::Refused(message)),
        RespItem::Text(_) | RespItem::Number(_) | RespItem::Nil | RespItem::List(_) | RespItem::TooLong(_) => {
            Err(RespError::Malformed)
        }
    }
}

fn record_dropped(reason: &'static str) {
    metrics::counter!("phalanx_bus_dropped_total", "reason" => reason).increment(1);
}
