//! Publishes messages to rooms, at their origin.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{RoomPoint, Rooms, check_name, no_room};
use crate::backend::{Publication, PublicationKind};
use crate::connection::{Connection, InFlight};
use crate::error::{ActionError, ErrorKind};
use crate::protocol::{ENVELOPE, RoomMessage};

impl Rooms {
    /// Publishes a message to a room in the name of the server: its sender is `"0"`.
    ///
    /// `Ok` means published: every member receives it, in the one order of the room. Cancel safe: a dropped call has
    /// either published the message or has not.
    ///
    /// # Errors
    ///
    /// `not_found` without such a room, `payload_too_large` beyond `rooms.max_message`, the error with which a
    /// `before_publish` hook refuses, `unavailable` if it is unknown whether the message was published.
    pub async fn say<T: Serialize + ?Sized>(&self, room: &str, message: &T) -> Result<(), ActionError> {
        check_name(room)?;
        if !self.exists(room).await? {
            return Err(no_room());
        }
        self.publish(None, self.message(room.into(), RoomMessage::SERVER.into(), to_raw(message)?)).await
    }

    /// Publishes a message in the name of a connection of this node.
    ///
    /// # Errors
    ///
    /// Those of [`Rooms::say`], and `forbidden` if the connection is not a member.
    pub async fn say_from<T: Serialize + ?Sized>(
        &self,
        connection: &Connection,
        room: &str,
        message: &T,
    ) -> Result<(), ActionError> {
        self.say_raw(connection, room, to_raw(message)?).await
    }

    /// Publishes the JSON that a client sent, unchanged.
    pub(crate) async fn say_raw(
        &self,
        connection: &Connection,
        room: &str,
        message: Box<RawValue>,
    ) -> Result<(), ActionError> {
        check_name(room)?;
        self.check_member(connection, room).await?;
        self.publish(Some(connection), self.message(room.into(), connection.id().as_str().into(), message)).await
    }

    async fn publish(&self, sender: Option<&Connection>, message: RoomMessage) -> Result<(), ActionError> {
        let message = if self.callbacks().has(RoomPoint::Publish) {
            let Some(message) = self.callbacks().before_publish(sender, message).await? else {
                self.metrics().room_dropped.increment(1);
                return Ok(());
            };
            message
        } else {
            message
        };
        let payload = message.to_payload();
        let settings = &self.config().rooms;
        if payload.len() as u64 > settings.max_message.as_u64() + ENVELOPE {
            return Err(ActionError::of(ErrorKind::PayloadTooLarge, "the message is too large for a room"));
        }
        // A message that a hook sent to a room without members here is not delivered here.
        let in_flight = match sender.filter(|_| self.local(&message.room).is_some()) {
            Some(sender) => Some(sender.acquire_send_slot(settings.max_undelivered as u32).await),
            None => None,
        };
        let connection = sender.map(|sender| sender.id().clone());
        let publication = Publication { room: message.room, kind: PublicationKind::Message, connection, payload };
        self.bus().publish(publication).await?;
        in_flight.into_iter().for_each(InFlight::published);
        self.metrics().room_messages.increment(1);
        Ok(())
    }

    pub(super) fn message(&self, room: Arc<str>, from: Arc<str>, message: Box<RawValue>) -> RoomMessage {
        RoomMessage { room, from, sent_at: self.0.parts.clock.now_ms(), message }
    }
}

pub(super) fn to_raw<T: Serialize + ?Sized>(message: &T) -> Result<Box<RawValue>, ActionError> {
    serde_json::value::to_raw_value(message).map_err(ActionError::internal)
}
