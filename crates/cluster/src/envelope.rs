//! The envelope of a message between nodes: one header line, then the payload exactly as it is delivered.
//!
//! The header ends with a MAC (HMAC-SHA-256) over channel, header and payload. So only nodes that know the token can
//! send messages, and a message is valid only on the channel that it was written for.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytes::Bytes;
use hmac::{Hmac, Mac};
use memchr::memchr;
use phalanx_core::backend::{
    Incoming, NodeMessage, NodeMessageKind, Publication, PublicationKind, TagId, TagMessage, TagMessageKind,
};
use phalanx_core::{ConnectionId, Generation, Incarnation};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::keys::Keys;
use crate::link::OwnLink;
use crate::resp;

mod senders;

use senders::{MessageNumbers, Senders};

/// The newest version that this node reads: version 2 added the lists of joins and leaves, and messages to tags. Each envelope has the version in
/// which its kind came, and a kind is written only if all live nodes read it, so that nodes are replaced one by one.
pub(crate) const VERSION: u32 = 2;

/// The oldest version that this node reads and writes: the one before [`VERSION`], if there is one.
const OLDEST: u32 = if VERSION > 1 { VERSION - 1 } else { VERSION };

/// The version with lists of joins and leaves.
const LISTS: u32 = 2;

/// The version with messages to tags. Nodes that do not read them subscribe to no tag.
const TAGS: u32 = 2;

/// The most bytes of a header line.
const MAX_HEADER: usize = 4096;

/// The most milliseconds by which the time of a message may differ from Redis's clock.
const MAX_AGE_MS: u64 = 30_000;

/// `,"mac":"` + 64 hexadecimal digits + `"}`.
const MAC_LEN: usize = 8 + 64 + 2;

type HmacSha256 = Hmac<Sha256>;

/// The newest version that all live nodes can read. Clones share it.
#[derive(Clone, Debug)]
pub struct EnvelopeVersion(Arc<AtomicU32>);

impl Default for EnvelopeVersion {
    /// The oldest version, until the other nodes are known.
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(OLDEST)))
    }
}

impl EnvelopeVersion {
    /// Chooses the version, given the newest versions that the live nodes can read.
    pub(crate) fn agree(&self, versions: impl IntoIterator<Item = u32>) {
        self.0.store(common_version(OLDEST, VERSION, versions), Relaxed);
    }

    /// Whether all live nodes read lists of joins and leaves.
    pub(crate) fn has_lists(&self) -> bool {
        self.0.load(Relaxed) >= LISTS
    }
}

/// The lowest of `versions`, limited to those that this node can write.
fn common_version(oldest: u32, newest: u32, versions: impl IntoIterator<Item = u32>) -> u32 {
    versions.into_iter().min().unwrap_or(oldest).clamp(oldest, newest)
}

/// A header as it is on the wire, without its MAC. The wire keeps names that are older than those of the code.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EnvelopeHeader<'a> {
    v: u32,
    kind: EnvelopeKind,
    from: &'a str,
    #[serde(borrow)]
    node: Cow<'a, str>,
    id: u64,
    /// Unix time in milliseconds, by Redis's clock.
    at: u64,
    /// A hello has none: calls that are repeated after it have lower ones than messages before it.
    #[serde(default)]
    seq: Option<u64>,
    /// The number of the connection. The last release passes it over, and writes none.
    #[serde(default)]
    link: Option<u64>,
    deadline: Option<u64>,
    #[serde(rename = "who")]
    connection: Option<&'a str>,
    joined_at: Option<u64>,
    /// The incarnation of the room that was destroyed.
    #[serde(rename = "life")]
    incarnation: Option<u64>,
}

impl EnvelopeHeader<'_> {
    /// Writes the header up to its closing brace, which the MAC precedes. By hand: serde would search each name for
    /// characters to escape, which takes longer than all the rest.
    fn write(&self, out: &mut Vec<u8>) {
        let number = |out: &mut Vec<u8>, name: &str, number| {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(resp::decimal(number, &mut [0; resp::MAX_DIGITS]));
        };
        number(out, "{\"v\":", self.v.into());
        write_text(out, ",\"kind\":", &self.kind);
        write_text(out, ",\"from\":", self.from);
        write_text(out, ",\"node\":", &self.node);
        number(out, ",\"id\":", self.id);
        number(out, ",\"at\":", self.at);
        let optional = [
            (",\"seq\":", self.seq),
            (",\"link\":", self.link),
            (",\"deadline\":", self.deadline),
            (",\"joinedAt\":", self.joined_at),
            (",\"life\":", self.incarnation),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                number(out, name, value);
            }
        }
        if let Some(connection) = self.connection {
            write_text(out, ",\"who\":", connection);
        }
    }
}

fn write_text(out: &mut Vec<u8>, name: &str, text: &(impl Serialize + ?Sized)) {
    out.extend_from_slice(name.as_bytes());
    serde_json::to_writer(out, text).expect("a text is always JSON");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EnvelopeKind {
    #[serde(rename = "said")]
    Publication,
    Joined,
    Left,
    Joins,
    Leaves,
    Destroyed,
    Call,
    #[serde(rename = "answer")]
    Reply,
    #[serde(rename = "event")]
    Topic,
    /// A frame for the connections with a tag.
    Tagged,
    TagCall,
    /// The first message of a connection. The last release refuses it as unreadable.
    Hello,
}

impl EnvelopeKind {
    /// The version in which it came.
    const fn version(self) -> u32 {
        match self {
            Self::Joins | Self::Leaves => LISTS,
            Self::Tagged | Self::TagCall => TAGS,
            Self::Publication
            | Self::Joined
            | Self::Left
            | Self::Destroyed
            | Self::Call
            | Self::Reply
            | Self::Topic
            | Self::Hello => 1,
        }
    }
}

/// The content of an envelope that is to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Draft<'a> {
    Publication(&'a Publication),
    NodeMessage(&'a NodeMessage),
    TagMessage(&'a TagMessage),
}

/// The sender of an envelope, with the time and the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EnvelopeSender<'a> {
    pub(crate) generation: &'a Generation,
    pub(crate) node: &'a str,
    pub(crate) at_ms: u64,
    /// The number of the connection.
    pub(crate) link: u64,
}

/// The keys of the MAC: the current one, and the one before it while the token is being replaced.
#[derive(Clone)]
pub(crate) struct MacKeys {
    current: HmacSha256,
    previous: Option<HmacSha256>,
}

impl MacKeys {
    /// Derives the keys from the tokens of the cluster; `previous` may be empty.
    pub(crate) fn new(token: &str, previous: &str) -> Self {
        let previous = Some(previous).filter(|token| !token.is_empty());
        Self { current: derive_key(token), previous: previous.map(derive_key) }
    }

    fn verify(&self, channel: &str, header: &[u8], mac: &[u8], payload: &[u8]) -> bool {
        let keys = std::iter::once(&self.current).chain(&self.previous);
        keys.into_iter().any(|key| compute_mac(key, channel, header, payload).verify_slice(mac).is_ok())
    }
}

fn derive_key(token: &str) -> HmacSha256 {
    let keyed = |key: &[u8]| HmacSha256::new_from_slice(key).expect("a key may be of any length");
    let derived = keyed(token.as_bytes()).chain_update("phalanx bus 1").finalize().into_bytes();
    keyed(&derived)
}

fn compute_mac(key: &HmacSha256, channel: &str, header: &[u8], payload: &[u8]) -> HmacSha256 {
    // The separators are unambiguous: no channel has a zero byte in its name, and no header has a line feed.
    key.clone().chain_update(channel).chain_update([0]).chain_update(header).chain_update("\n").chain_update(payload)
}

/// Writes envelopes with the current key.
pub(crate) struct EnvelopeWriter {
    keys: MacKeys,
}

impl EnvelopeWriter {
    pub(crate) fn new(keys: MacKeys) -> Self {
        Self { keys }
    }

    /// Encodes a draft for a channel, under its sequence number.
    pub(crate) fn write(&self, channel: &str, sender: EnvelopeSender<'_>, seq: u64, draft: Draft<'_>) -> Vec<u8> {
        let mut header = EnvelopeHeader { seq: Some(seq), ..self.header(sender, EnvelopeKind::Publication) };
        let payload = match draft {
            Draft::Publication(message) => {
                header.connection = message.connection.as_ref().map(ConnectionId::as_str);
                header.kind = match message.kind {
                    PublicationKind::Message => EnvelopeKind::Publication,
                    PublicationKind::Joined(joined_at) => {
                        header.joined_at = Some(joined_at);
                        EnvelopeKind::Joined
                    }
                    PublicationKind::Left(joined_at) => {
                        header.joined_at = Some(joined_at);
                        EnvelopeKind::Left
                    }
                    PublicationKind::Joins => EnvelopeKind::Joins,
                    PublicationKind::Leaves => EnvelopeKind::Leaves,
                    PublicationKind::Destroyed(incarnation) => {
                        header.incarnation = Some(incarnation.0);
                        EnvelopeKind::Destroyed
                    }
                };
                &message.payload
            }
            Draft::NodeMessage(message) => {
                header.kind = match message.kind {
                    NodeMessageKind::Call => EnvelopeKind::Call,
                    NodeMessageKind::Reply => EnvelopeKind::Reply,
                    NodeMessageKind::Topic => EnvelopeKind::Topic,
                };
                header.id = message.id;
                header.deadline = message.deadline_ms;
                &message.payload
            }
            Draft::TagMessage(message) => {
                header.kind = match message.kind {
                    TagMessageKind::Frame => EnvelopeKind::Tagged,
                    TagMessageKind::Call => EnvelopeKind::TagCall,
                };
                header.id = message.id;
                header.deadline = message.deadline_ms;
                &message.payload
            }
        };
        header.v = header.kind.version();
        let mut envelope = Vec::with_capacity(336 + payload.len());
        header.write(&mut envelope);
        self.seal(channel, envelope, payload)
    }

    /// Encodes the hello of a connection of the node that has these names.
    pub(crate) fn write_hello(&self, channel: &str, sender: EnvelopeSender<'_>, names: &[Generation]) -> Vec<u8> {
        let names: Vec<&str> = names.iter().map(Generation::as_str).collect();
        let payload = serde_json::to_vec(&names).expect("names are always JSON");
        let mut header = Vec::new();
        self.header(sender, EnvelopeKind::Hello).write(&mut header);
        self.seal(channel, header, &payload)
    }

    fn header<'a>(&self, sender: EnvelopeSender<'a>, kind: EnvelopeKind) -> EnvelopeHeader<'a> {
        EnvelopeHeader {
            v: kind.version(),
            kind,
            from: sender.generation.as_str(),
            node: sender.node.into(),
            id: 0,
            at: sender.at_ms,
            seq: None,
            link: Some(sender.link),
            deadline: None,
            connection: None,
            joined_at: None,
            incarnation: None,
        }
    }

    /// Adds the MAC and the payload to a header that lacks its closing brace.
    fn seal(&self, channel: &str, mut envelope: Vec<u8>, payload: &[u8]) -> Vec<u8> {
        let mac = compute_mac(&self.keys.current, channel, &envelope, payload).finalize().into_bytes();
        envelope.extend_from_slice(b",\"mac\":\"");
        envelope.extend_from_slice(&hex(&mac.into()));
        envelope.extend_from_slice(b"\"}\n");
        envelope.extend_from_slice(payload);
        envelope
    }
}

fn hex(bytes: &[u8; 32]) -> [u8; 64] {
    let (digit, mut text) = (|nibble: u8| b"0123456789abcdef"[usize::from(nibble & 15)], [0; 64]);
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(*byte)]);
    }
    text
}

fn unhex(text: &[u8]) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    let text: &[u8; 64] = text.try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Why a received message is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not an envelope.
    Unreadable,
    /// Its MAC is wrong: the sender does not know the token, or wrote the message for another channel.
    Unauthenticated,
    /// Its version is one that this node does not read.
    Version,
    /// Its time is too far in the past or in the future.
    Stale,
    /// The connection that it came over was replaced.
    Outdated,
    /// It is for a room or a tag, and came over a connection of its sender that is not known.
    UnknownSender,
    /// Its sequence number, or a later one of the same sender, was received before.
    Replayed,
    /// It is larger than the limit.
    TooLarge,
    /// The queue for the reply to it is full.
    QueueFull,
}

impl Refusal {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Unauthenticated => "unsealed",
            Self::Version => "version",
            Self::Stale => "stale",
            Self::Outdated => "outdated",
            Self::UnknownSender => "unknown_sender",
            Self::Replayed => "replayed",
            Self::TooLarge => "too_large",
            Self::QueueFull => "queue_full",
        }
    }
}

/// Verifies and decodes envelopes, and remembers the connection and the last sequence number of each sender.
pub(crate) struct EnvelopeReader {
    keys: MacKeys,
    all_nodes: String,
    room_prefix: String,
    tag_prefix: String,
    senders: Senders,
    own: OwnLink,
}

impl EnvelopeReader {
    pub(crate) fn new(mac_keys: MacKeys, keys: &Keys, own: OwnLink) -> Self {
        let (all_nodes, room_prefix, tag_prefix) = (keys.all_nodes(), keys.room_prefix(), keys.tag_prefix());
        Self { keys: mac_keys, all_nodes, room_prefix, tag_prefix, senders: Senders::default(), own }
    }

    /// Forgets the connections of all senders, before a new subscription.
    pub(crate) fn forget_links(&mut self) {
        self.senders.forget_links();
    }

    /// Learns the connections that Redis has stored.
    pub(crate) fn learn_links(&mut self, links: &[(Generation, u64)], now_ms: u64) {
        links.iter().for_each(|(from, link)| self.senders.learn(*from, *link, now_ms));
    }

    /// Verifies and decodes what was received on a channel. A hello is handled here.
    pub(crate) fn read(&mut self, channel: &str, bytes: &[u8], now_ms: u64) -> Result<Option<Incoming>, Refusal> {
        let start = &bytes[..bytes.len().min(MAX_HEADER)];
        let line = memchr(b'\n', start).ok_or(Refusal::Unreadable)?;
        let (header_line, payload) = (&bytes[..line], &bytes[line + 1..]);
        let (header, mac) = header_line.split_at_checked(line.wrapping_sub(MAC_LEN)).ok_or(Refusal::Unreadable)?;
        let mac = mac.strip_prefix(b",\"mac\":\"").and_then(|mac| mac.strip_suffix(b"\"}")).and_then(unhex);
        let mac = mac.ok_or(Refusal::Unreadable)?;
        if !self.keys.verify(channel, header, &mac, payload) {
            return Err(Refusal::Unauthenticated);
        }
        let header: EnvelopeHeader<'_> = serde_json::from_slice(header_line).map_err(|_| Refusal::Unreadable)?;
        if !(OLDEST..=VERSION).contains(&header.v) {
            return Err(Refusal::Version);
        }
        let from = Generation::parse(header.from).ok_or(Refusal::Unreadable)?;
        let room = channel.strip_prefix(&self.room_prefix);
        let tag = channel.strip_prefix(&self.tag_prefix);
        if header.kind == EnvelopeKind::Hello {
            return self.read_hello(channel, &header, payload, now_ms);
        }
        let (link, seq) = (header.link, header.seq.ok_or(Refusal::Unreadable)?);
        let is_publication = room.is_some() || tag.is_some();
        let numbers = MessageNumbers { link, seq, is_publication };
        match self.senders.accept(from, numbers, now_ms) {
            Err(Refusal::UnknownSender) if self.learn_own(from, now_ms) => {
                self.senders.accept(from, numbers, now_ms)?
            }
            accepted => accepted?,
        }
        // Checked after the sequence number: a stale message counts as missed, and a replay of it must not count again.
        if header.at.abs_diff(now_ms) > MAX_AGE_MS {
            return Err(Refusal::Stale);
        }
        match (room, tag) {
            (Some(room), _) => publication(room, &header, payload),
            (None, Some(tag)) => tag_message(from, tag, &header, payload),
            (None, None) => node_message(from, &header, payload),
        }
        .map(Some)
    }

    /// Learns the connection of this node, if `from` is this node and none of it is known.
    fn learn_own(&mut self, from: Generation, now_ms: u64) -> bool {
        let link = self.own.of(from).filter(|_| !self.senders.is_known(from));
        link.inspect(|link| self.senders.learn(from, *link, now_ms)).is_some()
    }

    /// Learns the connection of a node, whatever the time of its hello: a replayed one has a number that is known.
    fn read_hello(
        &mut self,
        channel: &str,
        header: &EnvelopeHeader<'_>,
        payload: &[u8],
        now_ms: u64,
    ) -> Result<Option<Incoming>, Refusal> {
        let link = header.link.filter(|_| channel == self.all_nodes).ok_or(Refusal::Unreadable)?;
        let names: Vec<&str> = serde_json::from_slice(payload).map_err(|_| Refusal::Unreadable)?;
        for name in names {
            let name = Generation::parse(name).ok_or(Refusal::Unreadable)?;
            self.senders.learn(name, link, now_ms);
        }
        Ok(None)
    }
}

fn publication(room: &str, header: &EnvelopeHeader<'_>, payload: &[u8]) -> Result<Incoming, Refusal> {
    let kind = match (header.kind, header.joined_at) {
        (EnvelopeKind::Publication, _) => PublicationKind::Message,
        (EnvelopeKind::Joined, Some(joined_at)) => PublicationKind::Joined(joined_at),
        (EnvelopeKind::Left, Some(joined_at)) => PublicationKind::Left(joined_at),
        (EnvelopeKind::Joins, _) => PublicationKind::Joins,
        (EnvelopeKind::Leaves, _) => PublicationKind::Leaves,
        (EnvelopeKind::Destroyed, _) => {
            PublicationKind::Destroyed(Incarnation(header.incarnation.ok_or(Refusal::Unreadable)?))
        }
        (
            EnvelopeKind::Joined
            | EnvelopeKind::Left
            | EnvelopeKind::Call
            | EnvelopeKind::Reply
            | EnvelopeKind::Topic
            | EnvelopeKind::Tagged
            | EnvelopeKind::TagCall
            | EnvelopeKind::Hello,
            _,
        ) => return Err(Refusal::Unreadable),
    };
    let connection = header.connection.map(ConnectionId::parse).transpose().map_err(|_| Refusal::Unreadable)?;
    let payload = frame(payload)?;
    Ok(Incoming::Publication(Publication { room: Arc::from(room), kind, connection, payload }))
}

/// Copies a text for sockets: they share these very bytes, and a slice would keep the whole read buffer alive.
fn frame(payload: &[u8]) -> Result<Bytes, Refusal> {
    let text = std::str::from_utf8(payload).map_err(|_| Refusal::Unreadable)?;
    Ok(Bytes::copy_from_slice(text.as_bytes()))
}

fn tag_message(from: Generation, tag: &str, header: &EnvelopeHeader<'_>, payload: &[u8]) -> Result<Incoming, Refusal> {
    let kind = match header.kind {
        EnvelopeKind::Tagged => TagMessageKind::Frame,
        EnvelopeKind::TagCall => TagMessageKind::Call,
        EnvelopeKind::Publication
        | EnvelopeKind::Joined
        | EnvelopeKind::Left
        | EnvelopeKind::Joins
        | EnvelopeKind::Leaves
        | EnvelopeKind::Destroyed
        | EnvelopeKind::Call
        | EnvelopeKind::Reply
        | EnvelopeKind::Topic
        | EnvelopeKind::Hello => return Err(Refusal::Unreadable),
    };
    let (tag, payload) = (TagId::parse(tag).ok_or(Refusal::Unreadable)?, frame(payload)?);
    Ok(Incoming::TagMessage(from, TagMessage { tag, kind, id: header.id, deadline_ms: header.deadline, payload }))
}

fn node_message(from: Generation, header: &EnvelopeHeader<'_>, payload: &[u8]) -> Result<Incoming, Refusal> {
    let kind = match header.kind {
        EnvelopeKind::Call => NodeMessageKind::Call,
        EnvelopeKind::Reply => NodeMessageKind::Reply,
        EnvelopeKind::Topic => NodeMessageKind::Topic,
        EnvelopeKind::Publication
        | EnvelopeKind::Joined
        | EnvelopeKind::Left
        | EnvelopeKind::Joins
        | EnvelopeKind::Leaves
        | EnvelopeKind::Destroyed
        | EnvelopeKind::Tagged
        | EnvelopeKind::TagCall
        | EnvelopeKind::Hello => {
            return Err(Refusal::Unreadable);
        }
    };
    let payload = Bytes::copy_from_slice(payload);
    Ok(Incoming::NodeMessage(from, NodeMessage { kind, id: header.id, deadline_ms: header.deadline, payload }))
}

#[cfg(test)]
mod tests;
