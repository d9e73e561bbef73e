//! Messages of a room: the very bytes that go over its channel and that members get.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{ActionError, ErrorKind};
use crate::id::SERVER_ID;

/// Most bytes that the fields beside a message take: two names of 100 and 128 bytes, a time, and the keys.
pub(crate) const ENVELOPE: u64 = 512;

/// A message of a room.
#[derive(Clone, Debug)]
pub struct RoomMessage {
    /// The room.
    pub room: Arc<str>,
    /// The sender: a connection's id, or `"0"` for the server.
    pub from: Arc<str>,
    /// Unix time in milliseconds.
    pub sent_at: u64,
    /// Any JSON, as the sender wrote it.
    pub message: Box<RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RoomMessageFields<'a> {
    message: &'a RawValue,
    room: &'a str,
    from: &'a str,
    context: &'static str,
    sent_at: u64,
}

impl RoomMessage {
    /// The sender of messages that the application itself publishes.
    pub const SERVER: &'static str = SERVER_ID;

    /// Encodes the message as clients receive it, once for all of them.
    pub fn to_payload(&self) -> Bytes {
        let message = &*self.message;
        let fields =
            RoomMessageFields { message, room: &self.room, from: &self.from, context: "user", sent_at: self.sent_at };
        let mut text = Vec::with_capacity(message.get().len() + 192);
        serde_json::to_writer(&mut text, &fields).expect("strings are always JSON, and a vector takes every byte");
        text.into()
    }

    /// Decodes a message, for hooks that look at it; `None` if the payload is no such message.
    pub fn from_payload(payload: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Decoded {
            message: Box<RawValue>,
            room: Box<str>,
            from: Box<str>,
            sent_at: u64,
        }
        let Decoded { message, room, from, sent_at } = serde_json::from_slice(payload).ok()?;
        Some(Self { room: room.into(), from: from.into(), sent_at, message })
    }

    /// Decodes the message's own value.
    ///
    /// # Errors
    ///
    /// `invalid_input` if it is not of that type.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ActionError> {
        serde_json::from_str(self.message.get())
            .map_err(|_| ActionError::of(ErrorKind::InvalidInput, "the message has another shape"))
    }

    /// Replaces the message's value.
    ///
    /// # Errors
    ///
    /// `internal` if the value refuses to be encoded.
    pub fn with_message<T: Serialize + ?Sized>(mut self, message: &T) -> Result<Self, ActionError> {
        self.message = serde_json::value::to_raw_value(message).map_err(ActionError::internal)?;
        Ok(self)
    }
}

/// A join or a leave, in rooms that announce them: of one member, or of several whose node died or came back.
#[derive(Clone, Debug, Serialize)]
pub struct PresenceEvent<'a> {
    context: &'static str,
    event: PresenceChange,
    room: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    members: &'a [&'a str],
}

/// The two changes that a room with presence announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PresenceChange {
    /// A connection became a member.
    Join,
    /// A connection is a member no longer.
    Leave,
}

impl<'a> PresenceEvent<'a> {
    /// Announces a change of one member or more to a room.
    pub const fn new(event: PresenceChange, room: &'a str, members: &'a [&'a str]) -> Self {
        let (member, members): (_, &[_]) = match members {
            [member] => (Some(*member), &[]),
            members => (None, members),
        };
        Self { context: "presence", event, room, member, members }
    }
}

/// The notice that messages may have been missed: to a member of a room those of the room, else those to tags of the
/// connection.
#[derive(Clone, Debug, Serialize)]
pub struct GapEvent<'a> {
    context: &'static str,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
}

impl<'a> GapEvent<'a> {
    /// The gap of a connection's tags.
    pub const OF_TAGS: Self = Self { context: "api", event: "gap", room: None };

    /// The gap of one room.
    pub const fn new(room: &'a str) -> Self {
        Self { room: Some(room), ..Self::OF_TAGS }
    }
}

/// The notice to a socket in rooms that no messages of rooms arrive for now. A [`GapEvent`] for each room follows when they
/// arrive again.
#[derive(Clone, Debug, Serialize)]
pub struct AwayEvent {
    context: &'static str,
    event: &'static str,
}

impl AwayEvent {
    /// The notice, which is always the same.
    pub const NOTICE: Self = Self { context: "api", event: "away" };
}

/// A room and its members: the reply to `roomView`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoomView<'a> {
    room: &'a str,
    members: BTreeMap<&'a str, MemberView<'a>>,
    members_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// One member in a [`RoomView`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberView<'a> {
    id: &'a str,
    joined_at: u64,
}

impl<'a> RoomView<'a> {
    /// Shows a page of a room's members by their ids and times of joining, how many there are in all, and the start of
    /// the next page, if there is one.
    pub fn new(
        room: &'a str,
        listed: impl Iterator<Item = (&'a str, u64)>,
        members_count: usize,
        next: Option<String>,
    ) -> Self {
        let members = listed.map(|(id, joined_at)| (id, MemberView { id, joined_at }));
        Self { room, members: members.collect(), members_count, next }
    }
}
