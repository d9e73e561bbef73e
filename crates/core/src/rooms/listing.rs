//! Takes members off the list, at once or later.

use std::sync::Arc;

use tracing::warn;

use super::stays::Stay;
use super::{Rooms, Unwritten};
use crate::backend::{Left, Member};
use crate::connection::ConnectionId;
use crate::metrics::bound_reached;

/// Leaves that wait for a backend that is away; beyond, a member stays listed until its node ends, which is counted.
const UNWRITTEN: usize = 65_536;

/// A place on the list that is to go. Dropped before it is settled, because the backend is away or nobody waits any more,
/// it goes later.
pub(super) struct Listing<'a> {
    rooms: &'a Rooms,
    leave: Option<Unwritten>,
}

/// What became of a place on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unlisted {
    /// It is gone, and nobody was told yet.
    Now,
    /// It went with its room.
    WithRoom,
    /// This node was found dead before: whoever cleaned up has asked the hooks and told the room.
    ByReaper,
    /// It is not known.
    Unknown,
}

impl<'a> Listing<'a> {
    /// Of a connection that may be listed, and whose join nobody heard of.
    pub(super) fn unheard(rooms: &'a Rooms, room: &Arc<str>, member: Member) -> Self {
        Self { rooms, leave: Some(Unwritten { room: room.clone(), member, heard: None }) }
    }

    /// Of a connection that leaves.
    pub(super) fn of(rooms: &'a Rooms, id: &ConnectionId, stay: &Stay) -> Self {
        let member = Member { id: id.clone(), joined_at: stay.joined_at };
        Self { rooms, leave: Some(Unwritten { room: stay.room.clone(), member, heard: Some(stay.life) }) }
    }

    /// It is as it should be.
    pub(super) fn settled(mut self) {
        self.leave = None;
    }

    /// Takes the member off the list.
    pub(super) async fn unlist(&self, life: u64) -> Unlisted {
        let Some(Unwritten { room, member, .. }) = &self.leave else { return Unlisted::WithRoom };
        let node = &self.rooms.node;
        match node.room_store().leave(room, member, node.generation()).await {
            Ok(Left::Now) => Unlisted::Now,
            Ok(Left::Before(Some(now))) if now == life => Unlisted::ByReaper,
            Ok(Left::Before(_)) => Unlisted::WithRoom,
            Err(error) => {
                warn!(%error, room = &**room, id = %member.id, "a member that left is taken off the list later");
                Unlisted::Unknown
            }
        }
    }

    /// Takes the member off the list and tells the room.
    pub(super) async fn end(self, life: u64) {
        let unlisted = self.unlist(life).await;
        self.tell(unlisted).await;
    }

    /// Tells the room, if there is something to tell.
    pub(super) async fn tell(self, unlisted: Unlisted) {
        let told = match (unlisted, &self.leave) {
            (Unlisted::Now, Some(leave)) if leave.heard.is_some() => {
                self.rooms.tell_leave(&leave.room, &leave.member).await.is_ok()
            }
            (Unlisted::Now | Unlisted::WithRoom | Unlisted::ByReaper, _) => true,
            (Unlisted::Unknown, _) => false,
        };
        if told {
            self.settled();
        }
    }
}

impl Drop for Listing<'_> {
    fn drop(&mut self) {
        let Some(leave) = self.leave.take() else { return };
        let mut unwritten = self.rooms.unwritten();
        match unwritten.len() < UNWRITTEN {
            true => unwritten.push(leave),
            false => bound_reached("unwritten_leaves"),
        }
    }
}
