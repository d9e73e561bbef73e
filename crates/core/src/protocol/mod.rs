//! Every JSON that a client reads, each a type with a committed sample in `samples` beside it.
//!
//! Transports write these types to clients, and no JSON of their own; a test compares each type with its sample, which
//! also the guide and the tests of the browser client read. A field is renamed here, and nowhere else.

mod close;
mod debug;
mod details;
mod error;
mod file;
mod job;
mod reply;
mod room;
mod strict;
mod welcome;

pub use close::{ApplicationCode, CloseReason};
pub use debug::{RequesterInformation, ServerInformation, debug_fields};
pub use details::ConnectionDetails;
pub use error::{ErrorBody, error_body};
pub use file::{FileMessage, FilePush};
pub use job::{AcceptedJob, JobView};
pub use reply::{ReplyData, splice, splice_fields, verb_reply, without_id};
pub use room::{AwayEvent, GapEvent, MemberView, PresenceChange, PresenceEvent, RoomMessage, RoomView};
pub use strict::{JsonFault, check_json};
pub use welcome::Welcome;

pub(crate) use room::ENVELOPE;

use bytes::Bytes;
use serde::Serialize;

/// Encodes a message for clients.
pub fn encode<T: Serialize>(message: &T) -> Bytes {
    let mut text = Vec::with_capacity(192);
    serde_json::to_writer(&mut text, message)
        .expect("these types hold strings, numbers and maps with string keys, and a vector takes every byte");
    text.into()
}
