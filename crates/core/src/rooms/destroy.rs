//! The end of a room.

use std::sync::{Arc, MutexGuard, PoisonError};

use tracing::warn;

use super::publish::to_raw;
use super::{LeaveCause, Leaver, LocalRoom, Rooms, no_room};
use crate::backend::{BackendError, Publication, PublicationKind};
use crate::connection::{Connection, Frame};
use crate::error::ActionError;
use crate::event::Event;
use crate::id::Incarnation;
use crate::metrics::bound_reached;
use crate::protocol::RoomMessage;

/// Last messages of rooms that wait for the bus; beyond, only destroying the room again publishes it.
const PENDING_DESTROYS: usize = 4096;

impl Rooms {
    /// Destroys a room: its members receive a last message and are out of it.
    ///
    /// No connection joins it from the first step on. May be repeated until it is done; if only the last message was not
    /// published, that is done later by itself. Cancel safe in the same way.
    ///
    /// # Errors
    ///
    /// `not_found` if there is no such room, `unavailable` if the backend does not answer, or members on Actionhero nodes
    /// could not be taken out: the room stays.
    pub async fn destroy(&self, room: &str) -> Result<(), ActionError> {
        let room: Arc<str> = room.into();
        let message = self.message(room.clone(), RoomMessage::SERVER.into(), to_raw("this room has been deleted")?);
        let payload = message.to_payload();
        let last = |incarnation| Publication {
            room: room.clone(),
            kind: PublicationKind::Destroyed(incarnation),
            connection: None,
            payload: payload.clone(),
        };
        if let Some(interop) = &self.0.parts.interop
            && self.exists(&room).await?
        {
            // Actionhero nodes do not survive a room that disappears under their members.
            interop.evict_members(&message).await?;
        }
        let incarnation = self.store().close(&room).await?.ok_or_else(no_room)?;
        let mut pending = PendingDestroy { rooms: self, last: Some((incarnation, last(incarnation))) };
        self.publish_destroy(last(incarnation), incarnation).await?;
        pending.last = None;
        self.notify(&Event::RoomDestroyed(room));
        Ok(())
    }

    async fn publish_destroy(&self, last: Publication, incarnation: Incarnation) -> Result<(), BackendError> {
        let room = last.room.clone();
        self.bus().publish(last).await?;
        self.store().forget(&room, incarnation).await
    }

    /// Publishes the last messages of rooms that could not be published when the rooms were destroyed.
    pub(crate) async fn settle_destroys(&self) -> Result<(), BackendError> {
        loop {
            let Some((incarnation, last)) = self.pending_destroys().last().cloned() else { return Ok(()) };
            let room = last.room.clone();
            match self.publish_destroy(last, incarnation).await {
                Ok(()) => {}
                Err(error @ (BackendError::Unavailable(_) | BackendError::Refused(_))) => return Err(error),
                Err(error) => warn!(%error, room = &*room, "a destroyed room was not forgotten"),
            }
            self.pending_destroys().retain(|(other, last)| last.room != room || *other != incarnation);
            self.notify(&Event::RoomDestroyed(room));
        }
    }

    pub(super) fn pending_destroys(&self) -> MutexGuard<'_, Vec<(Incarnation, Publication)>> {
        self.0.pending_destroys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the members of a destroyed room out of it, after its last message. Their `after_leave` hooks run on a task of their
    /// own, since hooks may wait; a leave that is in progress then runs them itself.
    pub(super) fn evict_members(&self, local: &LocalRoom, last: &Publication, incarnation: Incarnation) {
        let room = &last.room;
        let mut evicted: Vec<Connection> = {
            let mut members = local.members();
            members.begin_frame();
            members.all().cloned().collect()
        };
        evicted.retain(|member| {
            let mut joined = member.joined_rooms();
            if !joined.mark_destroyed(room, incarnation) {
                return false;
            }
            member.push(Frame::Text(last.payload.clone()));
            self.remove_local(&joined, member, room);
            true
        });
        self.metrics().room_deliveries.increment(evicted.len() as u64);
        let (rooms, room) = (self.clone(), room.clone());
        self.0.parts.shutdown.spawn(async move {
            for member in evicted {
                rooms.finish_destroyed(&member, &room, incarnation).await;
            }
        });
    }

    /// Runs the `after_leave` hooks of a member whose room was destroyed, unless a leave that was in progress has run them.
    pub(super) async fn finish_destroyed(&self, member: &Connection, room: &Arc<str>, incarnation: Incarnation) {
        let _ordered = member.lock_membership().await;
        if member.joined_rooms().remove(room, incarnation).is_some() {
            self.run_left(room, || Leaver::of(member, LeaveCause::RoomDestroyed)).await;
            self.notify(&Event::Left(room.clone(), member.clone()));
        }
    }
}

/// The last message of a room that was closed. Dropped before it is published, it is published later.
struct PendingDestroy<'a> {
    rooms: &'a Rooms,
    last: Option<(Incarnation, Publication)>,
}

impl Drop for PendingDestroy<'_> {
    fn drop(&mut self) {
        let Some(last) = self.last.take() else { return };
        let mut pending = self.rooms.pending_destroys();
        if pending.len() < PENDING_DESTROYS {
            pending.push(last);
        } else {
            bound_reached("untold_farewells");
        }
    }
}
