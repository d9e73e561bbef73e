//! The half of the connection that reads: verifies and decodes messages and passes them on.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use phalanx_core::backend::{Clock, GapCause, Incoming, TagId};
use phalanx_core::bound_reached;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::gaps::{GapScope, scope_of};
use super::{Confirmation, HEARTBEAT, SubscriberState};
use crate::clock::RedisClock;
use crate::envelope::{EnvelopeReader, Refusal};
use crate::interop::InteropChannel;
use crate::raw_connection::Reads;
use crate::resp::{RespError, RespItem, RespItems};

/// The capacity of the read buffer that is kept while the buffer is empty.
const RETAINED_CAPACITY: usize = 64 * 1024;

/// The pause before gaps are reported again that the queue had no place for.
const GAP_RETRY: Duration = Duration::from_millis(5);

/// The message of a script that has ended a session or given it a new id (`lua/sessions/shared.lua`).
const SESSION_CHANGED: &[u8] = b"session";

/// Verifies and decodes messages: the envelopes of our nodes, and those of Actionhero nodes on their channel.
pub(crate) struct MessageDecoder {
    pub(crate) envelopes: Mutex<EnvelopeReader>,
    pub(crate) interop: Option<Arc<InteropChannel>>,
    /// The prefix of the channels of rooms.
    pub(crate) room_prefix: String,
    /// The prefix of the channels of tags.
    pub(crate) tag_prefix: String,
    /// The most bytes of a message; longer ones are skipped.
    pub(crate) max_message: usize,
}

impl MessageDecoder {
    fn decode(&self, channel: &[u8], bytes: &[u8], now_ms: u64) -> Result<Option<Incoming>, Refusal> {
        let channel = std::str::from_utf8(channel).map_err(|_| Refusal::Unreadable)?;
        // Scripts cannot seal it, and it need not be: a node that receives it reads the session.
        if bytes == SESSION_CHANGED {
            let tag = channel.strip_prefix(&self.tag_prefix).and_then(TagId::parse);
            return tag.map(|tag| Some(Incoming::SessionChanged(tag))).ok_or(Refusal::Unreadable);
        }
        match &self.interop {
            Some(interop) if interop.name() == channel => interop.decode(bytes, now_ms),
            _ => self.envelopes().read(channel, bytes, now_ms),
        }
    }

    fn is_interop(&self, channel: &[u8]) -> bool {
        self.interop.as_ref().is_some_and(|interop| interop.name().as_bytes() == channel)
    }

    fn channel(&self, room: &str) -> String {
        [&self.room_prefix, room].concat()
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
    /// The channels of stale messages. Their gap is reported with the next tick and not at once, because a node whose
    /// clock is wrong sends many of them.
    pub(super) stale: HashSet<String>,
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
                    for channel in std::mem::take(&mut self.stale) {
                        self.add_gap(channel.as_bytes(), GapCause::Overflow);
                    }
                    self.shared.gaps.report(&self.out);
                }
            }
            if self.shared.gaps.any() {
                ticks.reset_after(GAP_RETRY);
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
                Ok(Push::TooLong(channel, rest)) => {
                    record_dropped(Refusal::TooLarge.as_str());
                    self.add_gap(channel, GapCause::Overflow);
                    read = skipped + items.read();
                    self.skip = rest;
                    break;
                }
                Ok(Push::Subscribed(channel)) => {
                    if self.shared.confirm(&String::from_utf8_lossy(channel)) {
                        self.add_gap(channel, GapCause::Away);
                        self.shared.gaps.report(&self.out);
                    }
                    Some(Confirmation::Confirmed)
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
        self.shared.gaps.report(&self.out);
        match self.decoder.decode(channel, bytes, self.clock.now_ms()) {
            Ok(None) => {}
            // Its room's own channel is not subscribed yet, and the gap that covers this message comes with it.
            Ok(Some(Incoming::Publication(message)))
                if self.decoder.is_interop(channel) && self.shared.has_gap(&self.decoder.channel(&message.room)) => {}
            Ok(Some(arrival)) if self.shared.gaps.cover(&arrival) => record_dropped("queue_full"),
            Ok(Some(arrival)) => {
                if let Err(refused) = self.out.try_send(arrival) {
                    bound_reached("rooms.bus_queue");
                    record_dropped("queue_full");
                    if let Some(scope) = scope_of(&refused.into_inner()) {
                        self.shared.gaps.add(scope, GapCause::Overflow);
                    }
                }
            }
            Err(refusal) => {
                record_dropped(refusal.as_str());
                // Authentic messages that are now lost.
                match refusal {
                    Refusal::Stale => drop(self.stale.insert(String::from_utf8_lossy(channel).into_owned())),
                    Refusal::UnknownSender => self.add_gap(channel, GapCause::Overflow),
                    _ => {}
                }
            }
        }
    }

    /// Adds the gap for messages of a channel that were missed. A call or a reply is not covered by one: its caller times
    /// out.
    fn add_gap(&self, channel: &[u8], cause: GapCause) {
        let Ok(channel) = std::str::from_utf8(channel) else { return };
        if let Some(room) = channel.strip_prefix(&self.decoder.room_prefix) {
            self.shared.gaps.add(GapScope::Room(room.into()), cause);
        } else if let Some(tag) = channel.strip_prefix(&self.decoder.tag_prefix) {
            if let Some(tag) = TagId::parse(tag) {
                self.shared.gaps.add(GapScope::Tag(tag), cause);
            }
        } else if channel == self.shared.keys.all_nodes() {
            self.shared.gaps.add(GapScope::Nodes, cause);
        }
    }
}

/// One thing that Redis sends on a subscribed connection.
enum Push<'a> {
    /// A message: its channel and its bytes.
    Publication(&'a [u8], &'a [u8]),
    /// A message that is too long: its channel, and how many bytes of it follow.
    TooLong(&'a [u8], usize),
    /// The confirmation of a subscription, with its channel.
    Subscribed(&'a [u8]),
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
            (RespItem::Text(b"message"), RespItem::Text(channel), RespItem::TooLong(rest)) => {
                Ok(Push::TooLong(channel, rest))
            }
            (RespItem::Text(b"subscribe"), RespItem::Text(channel), RespItem::Number(_)) => {
                Ok(Push::Subscribed(channel))
            }
            (RespItem::Text(b"unsubscribe"), _, RespItem::Number(_)) => Ok(Push::Confirmed),
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
