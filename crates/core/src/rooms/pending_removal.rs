//! Removes members from the backend's list, at once or later.

use std::sync::{Arc, MutexGuard, PoisonError};

use tracing::warn;

use super::{PendingLeave, Rooms};
use crate::backend::{LeaveOutcome, Member};
use crate::connection::JoinedRoom;
use crate::id::{ConnectionId, Incarnation};
use crate::metrics::bound_reached;

/// Leaves that wait for a backend that is away; beyond, a member stays listed until its node ends, which is counted.
const PENDING_LEAVES: usize = 65_536;

/// An entry of the backend's list that is to be removed. Dropped before it is settled, because the backend is away or the
/// call was dropped, it is removed later.
pub(super) struct PendingRemoval {
    rooms: Rooms,
    leave: Option<PendingLeave>,
}

/// The result of removing an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// It is removed, and its leave not announced yet.
    Removed,
    /// It was removed with its room.
    WithRoom,
    /// This node was reaped before: the reaper has run the hooks and announced the leave.
    ByReaper,
    /// Unknown: the backend did not answer.
    Unknown,
}

impl PendingRemoval {
    /// Of a connection that may be listed, and whose join was not announced.
    pub(super) fn unannounced(rooms: &Rooms, room: &Arc<str>, member: Member) -> Self {
        let leave = PendingLeave { room: room.clone(), member, announced_in: None };
        Self { rooms: rooms.clone(), leave: Some(leave) }
    }

    /// Of a connection that leaves.
    pub(super) fn of(rooms: &Rooms, id: &ConnectionId, joined: &JoinedRoom) -> Self {
        let member = Member { id: id.clone(), joined_at: joined.joined_at };
        let announced_in = Some(joined.incarnation);
        let leave = PendingLeave { room: joined.room.clone(), member, announced_in };
        Self { rooms: rooms.clone(), leave: Some(leave) }
    }

    /// Ends the wait: the list is as it should be.
    pub(super) fn settled(mut self) {
        self.leave = None;
    }

    /// Removes the entry.
    pub(super) async fn remove(&self, incarnation: Incarnation) -> Removal {
        let Some(PendingLeave { room, member, .. }) = &self.leave else { return Removal::WithRoom };
        match self.rooms.store().leave(room, member, self.rooms.0.parts.identity.generation()).await {
            Ok(LeaveOutcome::Removed) => Removal::Removed,
            Ok(LeaveOutcome::NotAMember(Some(now))) if now == incarnation => Removal::ByReaper,
            Ok(LeaveOutcome::NotAMember(_)) => Removal::WithRoom,
            Err(error) => {
                warn!(%error, room = &**room, id = %member.id, "a member that left is removed from the list later");
                Removal::Unknown
            }
        }
    }

    /// Removes the entry and announces the leave.
    pub(super) async fn finish(self, incarnation: Incarnation) {
        let removal = self.remove(incarnation).await;
        self.announce(removal).await;
    }

    /// Announces the leave, if that is this node's task.
    pub(super) async fn announce(self, removal: Removal) {
        let done = match (removal, &self.leave) {
            (Removal::Removed, Some(leave)) if leave.announced_in.is_some() => {
                self.rooms.announce_leave(&leave.room, &leave.member).await.is_ok()
            }
            (Removal::Removed | Removal::WithRoom | Removal::ByReaper, _) => true,
            (Removal::Unknown, _) => false,
        };
        if done {
            self.settled();
        }
    }
}

impl Drop for PendingRemoval {
    fn drop(&mut self) {
        let Some(leave) = self.leave.take() else { return };
        let mut pending = self.rooms.pending_leaves();
        if pending.len() < PENDING_LEAVES {
            pending.push(leave);
        } else {
            bound_reached("unwritten_leaves");
        }
    }
}

impl Rooms {
    pub(super) fn pending_leaves(&self) -> MutexGuard<'_, Vec<PendingLeave>> {
        self.0.pending_leaves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
