//! What is said in a room, and who hears it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Local, Rooms, check_name, no_room, payload};
use crate::backend::{Message, MessageKind};
use crate::connection::{Connection, Frame, Speaking};
use crate::error::{ActionError, ErrorKind};
use crate::hooks::{Heard, Said};

impl Rooms {
    /// Says something in a room, for the server: it comes `from` `"0"`.
    ///
    /// `Ok` means published: every member hears it, in the one order of the room.
    ///
    /// # Errors
    ///
    /// `not_found` without such a room, `payload_too_large` beyond `rooms.max_message`, whatever an `on_say` hook
    /// refuses with, `unavailable` if it is unknown whether it was published.
    pub async fn say<T: Serialize + ?Sized>(&self, room: &str, message: &T) -> Result<(), ActionError> {
        check_name(room)?;
        if !self.exists(room).await? {
            return Err(no_room());
        }
        self.speak(None, self.said(room.into(), Said::SERVER.into(), to_raw(message)?)).await
    }

    /// Says something for a connection of this node.
    ///
    /// # Errors
    ///
    /// Those of [`Rooms::say`], and `forbidden` if the connection is no member.
    pub async fn say_from<T: Serialize + ?Sized>(
        &self,
        connection: &Connection,
        room: &str,
        message: &T,
    ) -> Result<(), ActionError> {
        self.say_raw(connection, room, to_raw(message)?).await
    }

    /// Says what a client sent, as it came.
    pub(crate) async fn say_raw(
        &self,
        connection: &Connection,
        room: &str,
        message: Box<RawValue>,
    ) -> Result<(), ActionError> {
        check_name(room)?;
        self.check_member(connection, room).await?;
        self.speak(Some(connection), self.said(room.into(), connection.id().as_str().into(), message)).await
    }

    /// Hands a message to its room's members on this node. Never waits.
    pub(crate) fn deliver(&self, message: &Message) {
        if let MessageKind::Destroyed(_) = message.kind {
            self.table().destroyed.fetch_add(1, Relaxed); // before the look-up below, see `enter`
        }
        if message.kind == MessageKind::Said
            && let Some(speaker) = &message.who
            && let Some(speaker) = self.node.connection_table().find(speaker)
        {
            speaker.spoken();
        }
        let Some(local) = self.local(&message.room) else { return };
        let presence = match message.kind {
            MessageKind::Joined(at) => Some((at, false)),
            MessageKind::Left(at) => Some((at, true)),
            MessageKind::Said | MessageKind::Destroyed(_) => None,
        };
        if let (Some(presence), Some(who)) = (presence, &message.who)
            && !self.table().told.is_new(&message.room, who, presence)
        {
            return;
        }
        if let MessageKind::Destroyed(life) = message.kind {
            return self.empty(&local, message, life);
        }
        let hooks = &self.node.registry().recipient_hooks;
        if message.kind == MessageKind::Said && !hooks.is_empty() {
            return self.deliver_one_by_one(&local, message);
        }
        let members = local.members();
        for member in members.values() {
            member.push(Frame::Text(message.payload.clone()));
        }
        self.node.metrics().room_deliveries.increment(members.len() as u64);
    }

    /// The hooks run without any lock, so they may look at connections and rooms; who has left meanwhile is passed over.
    fn deliver_one_by_one(&self, local: &Local, message: &Message) {
        let Some(said) = Said::from_payload(&message.payload) else { return };
        let everybody: Vec<Connection> = local.members().values().cloned().collect();
        for member in &everybody {
            let mut own: Option<Said> = None;
            let mut heard = true;
            for hook in &self.node.registry().recipient_hooks {
                match self.node.caught_in_place(|| hook.say(member, own.as_ref().unwrap_or(&said))) {
                    Some(Heard::Unchanged) => {}
                    Some(Heard::Instead(other)) => own = Some(other),
                    Some(Heard::Nothing) | None => {
                        heard = false;
                        break;
                    }
                }
            }
            if heard {
                let payload = own.as_ref().map_or_else(|| message.payload.clone(), Said::to_payload);
                let members = local.members();
                if members.get(member.id()) == Some(member) {
                    member.push(Frame::Text(payload));
                    self.node.metrics().room_deliveries.increment(1);
                }
            }
        }
    }

    async fn speak(&self, speaker: Option<&Connection>, said: Said) -> Result<(), ActionError> {
        let mut said = said;
        for hook in &self.node.registry().room_hooks {
            match self.node.caught(hook.on_say(&self.node, said)).await?? {
                Some(changed) => said = changed,
                None => {
                    self.node.metrics().room_dropped.increment(1);
                    return Ok(());
                }
            }
        }
        let payload = said.to_payload();
        if payload.len() as u64 > self.node.config().rooms.max_message.as_u64() + payload::ENVELOPE {
            return Err(ActionError::of(ErrorKind::PayloadTooLarge, "the message is too large for a room"));
        }
        // What an `on_say` hook sent to a room without members here does not come by here.
        let speaking = match speaker.filter(|_| self.local(&said.room).is_some()) {
            Some(speaker) => Some(speaker.speak(self.node.config().rooms.max_undelivered as u32).await),
            None => None,
        };
        let id = speaker.map(|speaker| speaker.id().clone());
        let message = Message { room: said.room, kind: MessageKind::Said, who: id, payload };
        self.node.bus().publish(message).await?;
        speaking.into_iter().for_each(Speaking::published);
        self.node.metrics().room_messages.increment(1);
        Ok(())
    }

    pub(super) fn said(&self, room: Arc<str>, from: Arc<str>, message: Box<RawValue>) -> Said {
        Said { room, from, sent_at: self.node.now_ms(), message }
    }
}

pub(super) fn to_raw<T: Serialize + ?Sized>(message: &T) -> Result<Box<RawValue>, ActionError> {
    serde_json::value::to_raw_value(message).map_err(ActionError::internal)
}
