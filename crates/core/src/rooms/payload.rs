//! What goes over a room's channel: the very bytes that members get.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::hooks::Said;

/// Most bytes that the fields beside a message take: two names of 100 and 128 bytes, a time, and the keys.
pub(crate) const ENVELOPE: u64 = 512;

/// Encodes who came or went.
pub(super) fn presence(room: &str, member: &str, event: &str) -> Bytes {
    let mut text = Vec::with_capacity(192);
    text.extend_from_slice(b"{\"context\":\"presence\",\"event\":");
    quote(&mut text, event);
    text.extend_from_slice(b",\"room\":");
    quote(&mut text, room);
    text.extend_from_slice(b",\"member\":");
    quote(&mut text, member);
    text.push(b'}');
    text.into()
}

/// Encodes that messages of a room may have been missed.
pub(super) fn gap(room: &str) -> Bytes {
    let mut text = Vec::with_capacity(160);
    text.extend_from_slice(b"{\"context\":\"api\",\"event\":\"gap\",\"room\":");
    quote(&mut text, room);
    text.push(b'}');
    text.into()
}

impl Said {
    /// Encodes the message as clients hear it, once for all of them.
    pub fn to_payload(&self) -> Bytes {
        let message = self.message.get();
        let mut text = Vec::with_capacity(message.len() + 192);
        text.extend_from_slice(b"{\"message\":");
        text.extend_from_slice(message.as_bytes());
        text.extend_from_slice(b",\"room\":");
        quote(&mut text, &self.room);
        text.extend_from_slice(b",\"from\":");
        quote(&mut text, &self.from);
        text.extend_from_slice(b",\"context\":\"user\",\"sentAt\":");
        text.extend_from_slice(self.sent_at.to_string().as_bytes());
        text.push(b'}');
        text.into()
    }

    /// Reads a message back, for those who look at it.
    pub fn from_payload(payload: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire {
            message: Box<RawValue>,
            room: Box<str>,
            from: Box<str>,
            sent_at: u64,
        }
        let wire: Wire = serde_json::from_slice(payload).ok()?;
        Some(Self { room: wire.room.into(), from: wire.from.into(), sent_at: wire.sent_at, message: wire.message })
    }
}

fn quote(text: &mut Vec<u8>, value: &str) {
    serde_json::to_writer(text, value).expect("a string is always JSON, and a vector takes every byte");
}
