//! Replies over a socket: `context` and `messageId` around data, or spliced onto an object that is already encoded.

use bytes::Bytes;
use serde::Serialize;

/// The data of a verb's reply.
#[derive(Debug)]
pub enum ReplyData<'a, T: Serialize> {
    /// `"data":true`: the verb took effect.
    Done,
    /// No data: the message is published.
    Published,
    /// The requested object.
    Data(&'a T),
}

#[derive(Serialize)]
struct VerbReply<T> {
    status: &'static str,
    context: &'static str,
    data: T,
}

/// Encodes `{"status":"OK","context":"response","data"?,"messageId"}`. The id is JSON text, and goes back as it came.
pub fn verb_reply<T: Serialize>(message_id: &str, data: &ReplyData<'_, T>) -> Bytes {
    match data {
        // Most replies are one of these two, which need no encoding.
        ReplyData::Done => with_id(br#"{"status":"OK","context":"response","data":true}"#, message_id),
        ReplyData::Published => with_id(br#"{"status":"OK","context":"response"}"#, message_id),
        ReplyData::Data(data) => {
            with_id(&super::encode(&VerbReply { status: "OK", context: "response", data }), message_id)
        }
    }
}

fn with_id(reply: &[u8], message_id: &str) -> Bytes {
    splice_fields(reply, &[b"\"messageId\":", message_id.as_bytes()])
}

/// Splices a reply's fields onto an encoded object: `{…}` becomes `{…,"context":"response","messageId":…}`.
///
/// The answer of an action is encoded once, whatever the transport; this copies its bytes and parses nothing.
pub fn splice(object: &[u8], message_id: &str) -> Bytes {
    splice_fields(object, &[b"\"context\":\"response\",\"messageId\":", message_id.as_bytes()])
}

/// Splices the context alone: for the error of a frame without a usable `messageId`.
pub fn without_id(object: &[u8]) -> Bytes {
    splice_fields(object, &[b"\"context\":\"response\""])
}

/// Splices encoded fields onto an encoded object: `{…}` becomes `{…,<fields>}`.
pub fn splice_fields(object: &[u8], fields: &[&[u8]]) -> Bytes {
    let length: usize = fields.iter().map(|part| part.len()).sum();
    let mut text = Vec::with_capacity(object.len() + length + 1);
    text.extend_from_slice(&object[..object.len() - 1]);
    if object.len() > 2 {
        text.push(b',');
    }
    fields.iter().for_each(|part| text.extend_from_slice(part));
    text.push(b'}');
    text.into()
}
