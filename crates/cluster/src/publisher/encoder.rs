//! Makes commands of messages, and numbers them as it writes them.

use bytes::BytesMut;
use deadpool_redis::redis::Script;
use phalanx_core::Generation;

use super::pending::{PendingPublish, PublishContent};
use crate::envelope::{Draft, EnvelopeSender, EnvelopeWriter};
use crate::keys::Keys;
use crate::resp;

/// The script that publishes messages to rooms and tags. Each connection loads it.
pub(super) const PUBLISH: &str = include_str!("../lua/bus/publish.lua");

/// The most messages in one call of the script, during which Redis does nothing else.
const MAX_MESSAGES: usize = 16;

/// About the most bytes of a call with more than one message.
const MAX_BYTES: usize = 64 * 1024;

/// The parts of commands that are always the same.
pub(super) struct FixedParts {
    /// The first parts of each call of the script, as they are written.
    call: BytesMut,
    /// The key of the hash of names, in which recipients are looked up.
    names_key: String,
}

/// The number of parts in `FixedParts::call`.
const CALL_PARTS: usize = 4;

impl FixedParts {
    pub(super) fn new(keys: &Keys) -> Self {
        let (script, unused, mut call) = (Script::new(PUBLISH), keys.unused(), BytesMut::new());
        let parts: [&str; CALL_PARTS] = ["EVALSHA", script.get_hash(), "1", &unused];
        parts.iter().for_each(|part| resp::write_part(&mut call, part.as_bytes()));
        Self { call, names_key: keys.names() }
    }

    pub(super) fn names_key(&self) -> &str {
        &self.names_key
    }
}

pub(super) struct CommandEncoder<'a> {
    pub(super) fixed: &'a FixedParts,
    pub(super) envelopes: &'a EnvelopeWriter,
    pub(super) node: &'a str,
    pub(super) at_ms: u64,
    pub(super) link: u64,
    pub(super) generation: Generation,
    /// The last number of the generation.
    pub(super) seq: &'a mut u64,
}

/// The number of messages that share the next command, and of those that this one publishes by the script. Consecutive
/// messages to rooms share a call of it.
pub(super) fn next_command<'a>(messages: impl Iterator<Item = &'a PendingPublish>) -> (usize, usize) {
    let (mut count, mut published, mut bytes) = (0, 0, 0);
    for message in messages.take(MAX_MESSAGES) {
        let Some(size) = message.job.size_in_call() else { break };
        bytes += size;
        if count > 0 && bytes > MAX_BYTES {
            break;
        }
        count += 1;
        published += message.job.count();
    }
    (count.max(1), published)
}

impl CommandEncoder<'_> {
    /// Appends the command that these messages share, as [`next_command`] counts them.
    pub(super) fn write<'a>(
        &mut self,
        out: &mut BytesMut,
        messages: impl Iterator<Item = &'a mut PendingPublish>,
        published: usize,
    ) {
        if published > 0 {
            resp::start(out, CALL_PARTS + 2 * published);
            out.extend_from_slice(&self.fixed.call);
        }
        for PendingPublish { job, number, .. } in messages {
            let channel = &*job.channel;
            match &job.content {
                PublishContent::Publication(message, interop) => {
                    let envelope = self.seal(channel, number, Draft::Publication(message));
                    resp::write_part(out, channel.as_bytes());
                    resp::write_part(out, &envelope);
                    if let Some(interop) = interop {
                        resp::write_part(out, interop.channel.as_bytes());
                        resp::write_part(out, &interop.text);
                    }
                }
                PublishContent::TagMessage(message) => {
                    let envelope = self.seal(channel, number, Draft::TagMessage(message));
                    resp::write_part(out, channel.as_bytes());
                    resp::write_part(out, &envelope);
                }
                PublishContent::NodeMessage(message) => {
                    let envelope = self.seal(channel, number, Draft::NodeMessage(message));
                    publish(out, channel, &envelope);
                }
                PublishContent::Interop(text) => publish(out, channel, text),
            }
            if let Some(recipient) = &job.recipient {
                let parts = ["HEXISTS", self.fixed.names_key(), recipient.as_str()];
                resp::write(out, parts.iter().map(|part| part.as_bytes()));
            }
        }
    }

    /// Seals a message under its number, or under the next one if it has none.
    fn seal(&mut self, channel: &str, number: &mut Option<(Generation, u64)>, draft: Draft<'_>) -> Vec<u8> {
        let (generation, seq) = *number.get_or_insert_with(|| {
            *self.seq += 1;
            (self.generation, *self.seq)
        });
        let sender = EnvelopeSender { generation: &generation, node: self.node, at_ms: self.at_ms, link: self.link };
        self.envelopes.write(channel, sender, seq, draft)
    }
}

fn publish(out: &mut BytesMut, channel: &str, message: &[u8]) {
    resp::write(out, [&b"PUBLISH"[..], channel.as_bytes(), message].into_iter());
}
