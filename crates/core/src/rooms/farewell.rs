//! How a room ends.

use std::sync::{Arc, MutexGuard, PoisonError};

use tracing::warn;

use super::speech::to_raw;
use super::{Local, Rooms, no_room};
use crate::backend::{BackendError, Message, MessageKind};
use crate::connection::{Connection, Frame};
use crate::error::ActionError;
use crate::event::Event;
use crate::hooks::{Leaving, Said};
use crate::metrics::bound_reached;

/// Rooms that wait to be told of their end; beyond, only destroying them again tells it.
const UNTOLD: usize = 4096;

impl Rooms {
    /// Ends a room: its members hear a last message and are out of it.
    ///
    /// Nobody joins it from the first step on. May be repeated until it is done; if only its members were not told, that
    /// is done later by itself. Cancel safe in the same way.
    ///
    /// # Errors
    ///
    /// `not_found` if there is no such room, `unavailable` if the backend does not answer, or members on nodes of another
    /// make could not be taken out: the room stays.
    pub async fn destroy(&self, room: &str) -> Result<(), ActionError> {
        let room: Arc<str> = room.into();
        let said = self.said(room.clone(), Said::SERVER.into(), to_raw("this room has been deleted")?);
        let payload = said.to_payload();
        let farewell = |life| Message {
            room: room.clone(),
            kind: MessageKind::Destroyed(life),
            who: None,
            payload: payload.clone(),
        };
        if let Some(foreign) = self.node.foreign()
            && self.exists(&room).await?
        {
            foreign.dismiss(&farewell(0)).await?; // they do not survive a room that goes away under them
        }
        let life = self.node.room_store().close(&room).await?.ok_or_else(no_room)?;
        let mut untold = Untold { rooms: self, farewell: Some(farewell(life)) };
        self.bid_farewell(farewell(life), life).await?;
        untold.farewell = None;
        self.node.tell(&Event::RoomDestroyed(room));
        Ok(())
    }

    async fn bid_farewell(&self, farewell: Message, life: u64) -> Result<(), BackendError> {
        let room = farewell.room.clone();
        self.node.bus().publish(farewell).await?;
        self.node.room_store().forget(&room, life).await
    }

    /// Tells rooms of their end that could not be told when it came.
    pub(crate) async fn settle_farewells(&self) -> Result<(), BackendError> {
        loop {
            let Some(farewell) = self.untold().last().cloned() else { return Ok(()) };
            let MessageKind::Destroyed(life) = farewell.kind else { return Ok(()) };
            let room = farewell.room.clone();
            match self.bid_farewell(farewell, life).await {
                Ok(()) => {}
                Err(error @ BackendError::Unavailable(_)) => return Err(error),
                Err(error) => warn!(%error, room = &*room, "a destroyed room was not forgotten"),
            }
            self.untold().retain(|other| other.room != room || other.kind != MessageKind::Destroyed(life));
            self.node.tell(&Event::RoomDestroyed(room));
        }
    }

    pub(super) fn untold(&self) -> MutexGuard<'_, Vec<Message>> {
        self.table().untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The members of a destroyed room hear the last of it and are out. Their leave hooks are asked on a task of its own,
    /// since they may wait; a leave that is under way then asks for itself.
    pub(super) fn empty(&self, local: &Local, farewell: &Message, life: u64) {
        let room = &farewell.room;
        let mut out: Vec<Connection> = local.members().values().cloned().collect();
        out.retain(|member| {
            let mut stays = member.joined();
            if !stays.destroyed(room, life) {
                return false;
            }
            member.push(Frame::Text(farewell.payload.clone()));
            self.take_out(&stays, member, room);
            true
        });
        self.node.metrics().room_deliveries.increment(out.len() as u64);
        let (rooms, room) = (self.clone(), room.clone());
        self.node.clone().shutdown().spawn(async move {
            for member in out {
                let _alone = member.membership().lock().await;
                if member.joined().end(&room, life).is_some() {
                    rooms.ask_leave_hooks(member.id(), &room, Leaving::RoomDestroyed(&member)).await;
                    rooms.node.tell(&Event::Left(room.clone(), member.clone()));
                }
            }
        });
    }
}

/// The last message of a room that was closed. Dropped before it is told, it is told later.
struct Untold<'a> {
    rooms: &'a Rooms,
    farewell: Option<Message>,
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        let Some(farewell) = self.farewell.take() else { return };
        let mut untold = self.rooms.untold();
        match untold.len() < UNTOLD {
            true => untold.push(farewell),
            false => bound_reached("untold_farewells"),
        }
    }
}
