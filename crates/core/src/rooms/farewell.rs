//! How a room ends.

use std::sync::Arc;

use super::speech::to_raw;
use super::{Local, Rooms, no_room};
use crate::backend::{Message, MessageKind};
use crate::connection::Connection;
use crate::error::ActionError;
use crate::event::Event;
use crate::hooks::{Leaving, Said};

impl Rooms {
    /// Ends a room: its members hear a last message and are out of it.
    ///
    /// # Errors
    ///
    /// `not_found` if there is no such room.
    pub async fn destroy(&self, room: &str) -> Result<(), ActionError> {
        let said = self.said(room.into(), Said::SERVER.into(), to_raw("this room has been deleted")?);
        let payload = said.to_payload();
        let message = Message { room: said.room, kind: MessageKind::Destroyed, who: None, payload };
        if let Some(foreign) = self.node.foreign()
            && self.exists(room).await?
        {
            foreign.dismiss(&message).await?; // they do not survive a room that goes away under them
        }
        if !self.node.room_store().remove(room).await? {
            return Err(no_room());
        }
        self.node.bus().publish(message).await?;
        self.node.tell(&Event::RoomDestroyed(room.into()));
        Ok(())
    }

    /// A destroyed room lets its members go, on a task of its own: their leave hooks may wait.
    pub(super) fn empty(&self, room: &Arc<str>, local: &Local) {
        let members: Vec<Connection> = local.members().values().cloned().collect();
        for member in &members {
            self.exit(member, room);
        }
        let (rooms, room) = (self.clone(), room.clone());
        self.node.clone().shutdown().spawn(async move {
            for member in members {
                rooms.ask_leave_hooks(member.id(), &room, Leaving::RoomDestroyed(&member)).await;
                rooms.node.tell(&Event::Left(room.clone(), member));
            }
        });
    }
}
