//! What goes over channels: one header line, then the payload as it will be handed on.
//!
//! The header ends with a MAC over channel, header and payload (HMAC-SHA-256), so that only nodes that know the token are
//! believed, and a message counts on the channel alone that it was written for.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytes::Bytes;
use hmac::{Hmac, Mac};
use phalanx_core::backend::{Arrival, Letter, LetterKind, Message, MessageKind};
use phalanx_core::{ConnectionId, Generation};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::keys::Keys;

/// The newest version that this node reads and writes. Whoever raises it keeps the one before alive in [`Sealer::seal`], for
/// clusters whose nodes are replaced one by one.
pub(crate) const VERSION: u32 = 1;

/// The oldest one: the version before it, if there was one.
const OLDEST: u32 = if VERSION > 1 { VERSION - 1 } else { VERSION };

/// The longest header line.
const MOST_HEADER: usize = 4096;

/// By how much a message's time may differ from Redis's, in milliseconds.
const MOST_AGE_MS: u64 = 30_000;

/// Generations whose numbers are remembered; beyond, those not heard for [`MOST_AGE_MS`] are forgotten.
const MOST_SENDERS: usize = 4096;

/// `,"mac":"` + 64 hexadecimal digits + `"}`.
const MAC_LEN: usize = 8 + 64 + 2;

type Seal = Hmac<Sha256>;

/// The version that this node writes, so that all who live can read it. Clones share it.
#[derive(Clone, Debug)]
pub struct Spoken(Arc<AtomicU32>);

impl Default for Spoken {
    /// Until the others are known, what even the oldest of them reads.
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(OLDEST)))
    }
}

impl Spoken {
    /// These are the newest versions of all who live.
    pub(crate) fn agree(&self, versions: impl IntoIterator<Item = u32>) {
        self.0.store(common(OLDEST, VERSION, versions), Relaxed);
    }
}

/// The lowest of `versions`, as far as a node can write it.
fn common(oldest: u32, newest: u32, versions: impl IntoIterator<Item = u32>) -> u32 {
    versions.into_iter().min().unwrap_or(oldest).clamp(oldest, newest)
}

/// A header as it stands on the wire, less its MAC.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header<'a> {
    v: u32,
    kind: Kind,
    from: &'a str,
    #[serde(borrow)]
    node: Cow<'a, str>,
    id: u64,
    /// Unix time in milliseconds, by Redis's clock.
    at: u64,
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    joined_at: Option<u64>,
    /// Of the room that was destroyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    life: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Said,
    Joined,
    Left,
    Destroyed,
    Call,
    Answer,
    Event,
}

/// What is to be sealed.
#[derive(Clone, Debug)]
pub(crate) enum Draft {
    Message(Message),
    Letter(Letter),
}

/// Who seals, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'a> {
    pub(crate) generation: Generation,
    pub(crate) node: &'a str,
    pub(crate) at_ms: u64,
    pub(crate) seq: u64,
}

/// Seals messages with one key, and believes those sealed with it or with the key before it.
#[derive(Clone)]
pub(crate) struct Sealer {
    key: Seal,
    before: Option<Seal>,
    pub(crate) spoken: Spoken,
}

impl Sealer {
    /// Keys come from what the nodes of a cluster know; `previous` may be empty.
    pub(crate) fn new(token: &str, previous: &str) -> Self {
        let before = Some(previous).filter(|token| !token.is_empty());
        Self { key: seal_of(token), before: before.map(seal_of), spoken: Spoken::default() }
    }

    /// Seals a message for a channel.
    pub(crate) fn seal(&self, channel: &str, sender: Sender<'_>, draft: &Draft) -> Vec<u8> {
        let mut header = Header {
            v: self.spoken.0.load(Relaxed),
            kind: Kind::Said,
            from: sender.generation.as_str(),
            node: sender.node.into(),
            id: 0,
            at: sender.at_ms,
            seq: sender.seq,
            deadline: None,
            who: None,
            joined_at: None,
            life: None,
        };
        let payload = match draft {
            Draft::Message(message) => {
                header.who = message.who.as_ref().map(ConnectionId::as_str);
                header.kind = match message.kind {
                    MessageKind::Said => Kind::Said,
                    MessageKind::Joined(joined_at) => {
                        header.joined_at = Some(joined_at);
                        Kind::Joined
                    }
                    MessageKind::Left(joined_at) => {
                        header.joined_at = Some(joined_at);
                        Kind::Left
                    }
                    MessageKind::Destroyed(life) => {
                        header.life = Some(life);
                        Kind::Destroyed
                    }
                };
                &message.payload
            }
            Draft::Letter(letter) => {
                header.kind = match letter.kind {
                    LetterKind::Call => Kind::Call,
                    LetterKind::Answer => Kind::Answer,
                    LetterKind::Event => Kind::Event,
                };
                header.id = letter.id;
                header.deadline = letter.deadline_ms;
                &letter.payload
            }
        };
        let mut sealed = Vec::with_capacity(320 + payload.len());
        serde_json::to_writer(&mut sealed, &header).expect("names and numbers are always JSON");
        sealed.pop(); // the closing brace
        let mac = authenticated(&self.key, channel, &sealed, payload).finalize().into_bytes();
        sealed.extend_from_slice(b",\"mac\":\"");
        for byte in mac {
            sealed.extend_from_slice(&[hex(byte >> 4), hex(byte & 15)]);
        }
        sealed.extend_from_slice(b"\"}\n");
        sealed.extend_from_slice(payload);
        sealed
    }

    fn is_sealed(&self, channel: &str, header: &[u8], mac: &[u8], payload: &[u8]) -> bool {
        let keys = std::iter::once(&self.key).chain(&self.before);
        keys.into_iter().any(|key| authenticated(key, channel, header, payload).verify_slice(mac).is_ok())
    }
}

fn seal_of(token: &str) -> Seal {
    let keyed = |key: &[u8]| Seal::new_from_slice(key).expect("a key may be of any length");
    let derived = keyed(token.as_bytes()).chain_update("phalanx bus 1").finalize().into_bytes();
    keyed(&derived)
}

fn authenticated(key: &Seal, channel: &str, header: &[u8], payload: &[u8]) -> Seal {
    // No channel has a zero byte in its name, and no header a line end.
    key.clone().chain_update(channel).chain_update([0]).chain_update(header).chain_update("\n").chain_update(payload)
}

fn hex(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble & 15)]
}

fn unhex(text: &[u8]) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let text: &[u8; 64] = text.try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(bytes)
}

/// Why a message is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is no envelope.
    Unreadable,
    /// Whoever wrote it does not know the token, or wrote it for another channel.
    Unsealed,
    /// It is of a version that this node does not read.
    Version,
    /// It is too old, or of the future.
    Stale,
    /// It was heard before, or something after it was.
    Replayed,
    /// It is larger than may be said here.
    TooLarge,
    /// There is no room for what it asks.
    QueueFull,
}

impl Refusal {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Unsealed => "unsealed",
            Self::Version => "version",
            Self::Stale => "stale",
            Self::Replayed => "replayed",
            Self::TooLarge => "too_large",
            Self::QueueFull => "queue_full",
        }
    }
}

/// Opens envelopes, and remembers the last number of each sender.
pub(crate) struct Opener {
    sealer: Sealer,
    room_prefix: String,
    heard: HashMap<Generation, (u64, u64)>,
}

impl Opener {
    pub(crate) fn new(sealer: Sealer, keys: &Keys) -> Self {
        Self { sealer, room_prefix: keys.room_prefix(), heard: HashMap::new() }
    }

    /// Opens what came over a channel.
    pub(crate) fn open(&mut self, channel: &str, bytes: &[u8], now_ms: u64) -> Result<Arrival, Refusal> {
        let most = &bytes[..bytes.len().min(MOST_HEADER)];
        let line = most.iter().position(|byte| *byte == b'\n').ok_or(Refusal::Unreadable)?;
        let (sealed, payload) = (&bytes[..line], &bytes[line + 1..]);
        let (header, mac) = sealed.split_at_checked(line.wrapping_sub(MAC_LEN)).ok_or(Refusal::Unreadable)?;
        let mac = mac.strip_prefix(b",\"mac\":\"").and_then(|mac| mac.strip_suffix(b"\"}")).and_then(unhex);
        let mac = mac.ok_or(Refusal::Unreadable)?;
        if !self.sealer.is_sealed(channel, header, &mac, payload) {
            return Err(Refusal::Unsealed);
        }
        let header: Header<'_> = serde_json::from_slice(sealed).map_err(|_| Refusal::Unreadable)?;
        if !(OLDEST..=VERSION).contains(&header.v) {
            return Err(Refusal::Version);
        }
        let from = Generation::parse(header.from).ok_or(Refusal::Unreadable)?;
        self.is_next(from, header.seq, now_ms)?;
        // After the number: what is stale was missed, and is so once.
        if header.at.abs_diff(now_ms) > MOST_AGE_MS {
            return Err(Refusal::Stale);
        }
        match channel.strip_prefix(&self.room_prefix) {
            Some(room) => message(room, &header, payload),
            None => letter(from, &header, payload),
        }
    }

    fn is_next(&mut self, from: Generation, seq: u64, now_ms: u64) -> Result<(), Refusal> {
        if self.heard.len() >= MOST_SENDERS {
            // What they sent before is stale by now, so nothing of theirs can be replayed.
            self.heard.retain(|_, (_, heard_ms)| heard_ms.abs_diff(now_ms) <= 2 * MOST_AGE_MS);
        }
        let (last, heard_ms) = self.heard.entry(from).or_insert((0, now_ms));
        if seq <= *last {
            return Err(Refusal::Replayed);
        }
        (*last, *heard_ms) = (seq, now_ms);
        Ok(())
    }
}

fn message(room: &str, header: &Header<'_>, payload: &[u8]) -> Result<Arrival, Refusal> {
    let kind = match (header.kind, header.joined_at) {
        (Kind::Said, _) => MessageKind::Said,
        (Kind::Joined, Some(joined_at)) => MessageKind::Joined(joined_at),
        (Kind::Left, Some(joined_at)) => MessageKind::Left(joined_at),
        (Kind::Destroyed, _) => MessageKind::Destroyed(header.life.ok_or(Refusal::Unreadable)?),
        (Kind::Joined | Kind::Left | Kind::Call | Kind::Answer | Kind::Event, _) => return Err(Refusal::Unreadable),
    };
    let who = header.who.map(ConnectionId::parse).transpose().map_err(|_| Refusal::Unreadable)?;
    let payload = Bytes::copy_from_slice(payload); // the sockets get these very bytes, which must not pin more
    std::str::from_utf8(&payload).map_err(|_| Refusal::Unreadable)?;
    Ok(Arrival::Message(Message { room: Arc::from(room), kind, who, payload }))
}

fn letter(from: Generation, header: &Header<'_>, payload: &[u8]) -> Result<Arrival, Refusal> {
    let kind = match header.kind {
        Kind::Call => LetterKind::Call,
        Kind::Answer => LetterKind::Answer,
        Kind::Event => LetterKind::Event,
        Kind::Said | Kind::Joined | Kind::Left | Kind::Destroyed => return Err(Refusal::Unreadable),
    };
    let payload = Bytes::copy_from_slice(payload);
    Ok(Arrival::Letter(from, Letter { kind, id: header.id, deadline_ms: header.deadline, payload }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: &str = "shop:room:lobby";

    fn opener(token: &str, previous: &str) -> Opener {
        Opener::new(Sealer::new(token, previous), &Keys::new("actionhero:", "shop"))
    }

    fn sealed(token: &str, seq: u64) -> Vec<u8> {
        sealed_in(VERSION, token, seq)
    }

    fn sealed_in(version: u32, token: &str, seq: u64) -> Vec<u8> {
        let draft = Draft::Message(Message {
            room: "lobby".into(),
            kind: MessageKind::Left(7),
            who: ConnectionId::parse("a-1").ok(),
            payload: "{\"a\":\"\n\"}".into(),
        });
        let generation = Generation::parse("aaaaaaaaaa").unwrap();
        let sender = Sender { generation, node: "one \"two\"\n", at_ms: 1_000_000, seq };
        let sealer = Sealer::new(token, "");
        sealer.spoken.0.store(version, Relaxed);
        sealer.seal(CHANNEL, sender, &draft)
    }

    fn refusal(opener: &mut Opener, channel: &str, bytes: &[u8], now_ms: u64) -> Option<Refusal> {
        opener.open(channel, bytes, now_ms).err()
    }

    #[test]
    fn what_was_sealed_is_opened_once_and_in_order() {
        let mut opener = opener("secret", "");
        let Ok(Arrival::Message(read)) = opener.open(CHANNEL, &sealed("secret", 2), 1_000_000) else {
            panic!("opened")
        };
        assert_eq!((&*read.room, read.kind, &*read.payload), ("lobby", MessageKind::Left(7), &b"{\"a\":\"\n\"}"[..]));
        for seq in [2, 1] {
            assert_eq!(refusal(&mut opener, CHANNEL, &sealed("secret", seq), 1_000_000), Some(Refusal::Replayed));
        }
        assert_eq!(refusal(&mut opener, CHANNEL, &sealed("secret", 3), 1_000_000), None);
    }

    #[test]
    fn what_is_forged_old_or_of_another_channel_is_refused() {
        let good = sealed("secret", 3);
        let mut opener = opener("secret", "");
        assert_eq!(refusal(&mut opener, "shop:room:other", &good, 1_000_000), Some(Refusal::Unsealed));
        assert_eq!(refusal(&mut opener, CHANNEL, &sealed("guess", 1), 1_000_000), Some(Refusal::Unsealed));
        for (seq, now_ms) in [(1, 1_030_001), (2, 969_999)] {
            assert_eq!(refusal(&mut opener, CHANNEL, &sealed("secret", seq), now_ms), Some(Refusal::Stale));
            let again = refusal(&mut opener, CHANNEL, &sealed("secret", seq), now_ms);
            assert_eq!(again, Some(Refusal::Replayed), "it was missed once");
        }
        for place in 0..good.len() {
            let mut changed = good.clone();
            changed[place] ^= 1;
            assert!(refusal(&mut opener, CHANNEL, &changed, 1_000_000).is_some(), "byte {place}");
            assert!(refusal(&mut opener, CHANNEL, &good[..place], 1_000_000).is_some(), "{place} bytes");
        }
        for rubbish in ["", "null", "\n", "{}\n", "\n\n{}", &"x".repeat(10_000)] {
            assert_eq!(refusal(&mut opener, CHANNEL, rubbish.as_bytes(), 1), Some(Refusal::Unreadable), "{rubbish}");
        }
        assert_eq!(refusal(&mut opener, CHANNEL, &good, 1_000_000), None);
    }

    #[test]
    fn while_a_token_is_replaced_both_are_believed() {
        let mut opener = opener("new", "old");
        assert_eq!(refusal(&mut opener, CHANNEL, &sealed("old", 1), 1_000_000), None);
        assert_eq!(refusal(&mut opener, CHANNEL, &sealed("new", 2), 1_000_000), None);
        assert_eq!(refusal(&mut opener, CHANNEL, &sealed("older", 3), 1_000_000), Some(Refusal::Unsealed));
    }

    #[test]
    fn a_node_writes_what_all_who_live_can_read_and_reads_its_own_version_and_the_one_before() {
        for (versions, written) in [(&[3, 3][..], 3), (&[3, 2], 2), (&[4, 3], 3), (&[5, 4], 3), (&[1, 3], 2), (&[], 2)]
        {
            assert_eq!(common(2, 3, versions.iter().copied()), written, "among {versions:?}");
        }
        let mut opener = opener("secret", "");
        for (seq, version, refused) in [(1, 0, true), (2, OLDEST, false), (3, VERSION, false), (4, VERSION + 1, true)] {
            let refusal = refusal(&mut opener, CHANNEL, &sealed_in(version, "secret", seq), 1_000_000);
            assert_eq!(refusal, refused.then_some(Refusal::Version), "version {version}");
        }
    }
}
