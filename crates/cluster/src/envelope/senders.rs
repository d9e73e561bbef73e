//! The memory of senders: the number of the connection over which each publishes, and its last message.

use std::collections::HashMap;

use phalanx_core::{Generation, bound_reached};

use super::{MAX_AGE_MS, Refusal};

/// Generations that are remembered. Beyond this number, those whose connection is not known and that sent nothing for
/// twice [`MAX_AGE_MS`] are forgotten, and no more connections are remembered.
const MAX_SENDERS: usize = 4096;

#[derive(Default)]
pub(super) struct Senders(HashMap<Generation, Sender>);

struct Sender {
    /// The number of its connection, if that is known in this session.
    link: Option<u64>,
    /// The sequence number of its last message.
    seq: u64,
    /// When that was received.
    at_ms: u64,
}

/// The numbers that a message carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageNumbers {
    /// The number of the connection; nodes of the last release write none.
    pub(super) link: Option<u64>,
    pub(super) seq: u64,
    /// Whether the message is for a room, whose messages all members receive in one order, or for a tag.
    pub(super) is_publication: bool,
}

impl Senders {
    /// Forgets all connections: the hellos of a time without a subscription were missed.
    pub(super) fn forget_links(&mut self) {
        self.0.values_mut().for_each(|sender| sender.link = None);
    }

    /// Learns the number of a sender's connection, unless a higher one is known.
    pub(super) fn learn(&mut self, from: Generation, link: u64, now_ms: u64) {
        if self.0.len() >= MAX_SENDERS && !self.0.contains_key(&from) {
            self.forget_silent(now_ms);
            if self.0.len() >= MAX_SENDERS {
                return bound_reached("bus.senders");
            }
        }
        let sender = self.sender(from, now_ms);
        sender.link = sender.link.max(Some(link));
    }

    /// Whether the connection of a sender is known.
    pub(super) fn is_known(&self, from: Generation) -> bool {
        self.0.get(&from).is_some_and(|sender| sender.link.is_some())
    }

    /// Accepts a message unless a connection of a higher number has replaced the one it came over, or the message, or a
    /// later one, was received before. A publication over a connection that is not known is refused as well: it may have
    /// been replaced, and if its number is higher than the known one, messages were missed with its hello. That is so at a
    /// server that has become a replica, while it synchronises with the new primary.
    pub(super) fn accept(&mut self, from: Generation, message: MessageNumbers, now_ms: u64) -> Result<(), Refusal> {
        if self.0.len() >= MAX_SENDERS {
            self.forget_silent(now_ms);
        }
        let sender = self.sender(from, now_ms);
        match (message.link, sender.link) {
            (Some(link), Some(known)) if link < known => return Err(Refusal::Outdated),
            (Some(link), known) if message.is_publication && known != Some(link) => return Err(Refusal::UnknownSender),
            (Some(_) | None, _) => {}
        }
        if message.seq <= sender.seq {
            return Err(Refusal::Replayed);
        }
        (sender.seq, sender.at_ms) = (message.seq, now_ms);
        Ok(())
    }

    fn sender(&mut self, from: Generation, now_ms: u64) -> &mut Sender {
        self.0.entry(from).or_insert(Sender { link: None, seq: 0, at_ms: now_ms })
    }

    /// Everything that the forgotten senders have sent is stale by now, so none of it can be replayed.
    fn forget_silent(&mut self, now_ms: u64) {
        self.0.retain(|_, sender| sender.link.is_some() || sender.at_ms.abs_diff(now_ms) <= 2 * MAX_AGE_MS);
    }
}
