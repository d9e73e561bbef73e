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
    /// Of a connection whose join with this number is sent to the backend, and was not announced. Dropped before the
    /// outcome is known, it undoes the join at once.
    pub(super) fn of_join(rooms: &Rooms, room: &Arc<str>, member: Member, number: u64) -> Self {
        let leave = PendingLeave { room: room.clone(), member, announced_in: None, undoes: Some(number) };
        Self { rooms: rooms.clone(), leave: Some(leave) }
    }

    /// The connection is listed: the entry is removed like any other.
    pub(super) fn confirm(&mut self) {
        self.leave.iter_mut().for_each(|leave| leave.undoes = None);
    }

    /// Of a connection that is listed, and whose join was not announced.
    pub(super) fn unannounced(rooms: &Rooms, room: &Arc<str>, member: Member) -> Self {
        let leave = PendingLeave { room: room.clone(), member, announced_in: None, undoes: None };
        Self { rooms: rooms.clone(), leave: Some(leave) }
    }

    /// Of a connection that leaves.
    pub(super) fn of(rooms: &Rooms, id: &ConnectionId, joined: &JoinedRoom) -> Self {
        let member = Member { id: id.clone(), joined_at: joined.joined_at };
        let announced_in = Some(joined.incarnation);
        let leave = PendingLeave { room: joined.room.clone(), member, announced_in, undoes: None };
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
        match leave.undoes {
            // Not with the next recovery pass: other calls of this node may wait for the same join.
            Some(number) => {
                let rooms = self.rooms.clone();
                self.rooms.0.parts.shutdown.spawn(async move { rooms.undo_or_keep(leave, number).await });
            }
            None => self.rooms.keep_pending(leave),
        }
    }
}

impl Rooms {
    /// Undoes a join with an unknown outcome, now or later.
    async fn undo_or_keep(&self, leave: PendingLeave, number: u64) {
        let generation = self.0.parts.identity.generation();
        if let Err(error) = self.store().undo_join(&leave.room, &leave.member, generation, number).await {
            warn!(%error, room = &*leave.room, id = %leave.member.id, "a join without an answer is undone later");
            self.keep_pending(leave);
        }
    }

    fn keep_pending(&self, leave: PendingLeave) {
        let mut pending = self.pending_leaves();
        if pending.len() < PENDING_LEAVES {
            pending.push(leave);
        } else {
            bound_reached("unwritten_leaves");
        }
    }

    pub(super) fn pending_leaves(&self) -> MutexGuard<'_, Vec<PendingLeave>> {
        self.0.pending_leaves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
