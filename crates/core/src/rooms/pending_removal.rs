//! Removes members from the backend's list, at once or later.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tracing::warn;

use super::Rooms;
use crate::backend::{LeaveOutcome, Member};
use crate::connection::JoinedRoom;
use crate::id::{ConnectionId, Incarnation};
use crate::lease_state::RecoveryRequest;

/// An entry of the backend's list that is to be removed. Dropped before it is settled, because the backend is away or the
/// call was dropped, it is removed later.
pub(super) struct PendingRemoval {
    rooms: Rooms,
    entry: Option<PendingEntry>,
}

struct PendingEntry {
    room: Arc<str>,
    member: Member,
    state: EntryState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EntryState {
    /// A join with this number is sent, and the outcome is unknown: it may still arrive.
    Sent(u64),
    /// It is listed, and its join was not announced.
    Listed,
    /// Its join was announced in this incarnation of the room, and its leave is to be.
    Announced(Incarnation),
}

/// The result of removing an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// It is not listed any more, and its leave not announced yet.
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
        Self::new(rooms, room, member, EntryState::Sent(number))
    }

    /// Of a connection that leaves.
    pub(super) fn of(rooms: &Rooms, id: &ConnectionId, joined: &JoinedRoom) -> Self {
        let member = Member { id: id.clone(), joined_at: joined.joined_at };
        Self::new(rooms, &joined.room, member, EntryState::Announced(joined.incarnation))
    }

    fn new(rooms: &Rooms, room: &Arc<str>, member: Member, state: EntryState) -> Self {
        rooms.0.moves.begin();
        Self { rooms: rooms.clone(), entry: Some(PendingEntry { room: room.clone(), member, state }) }
    }

    /// The connection is listed: the entry is removed like any other.
    pub(super) fn confirm(&mut self) {
        self.entry.iter_mut().for_each(|entry| entry.state = EntryState::Listed);
    }

    /// Ends the wait: the list is as it should be.
    pub(super) fn settled(mut self) {
        self.entry = None;
    }

    /// Removes the entry.
    pub(super) async fn remove(&self, incarnation: Incarnation) -> Removal {
        let Some(PendingEntry { room, member, .. }) = &self.entry else { return Removal::WithRoom };
        let parts = &self.rooms.0.parts;
        // Under its new generation the members are listed again only by the pass.
        let is_renamed = parts.lease.is_renamed();
        match self.rooms.store().leave(room, member, incarnation, parts.identity.generation()).await {
            Ok(LeaveOutcome::Reaped) => Removal::ByReaper,
            Ok(LeaveOutcome::Lost) if is_renamed => Removal::ByReaper,
            // Others have received the join.
            Ok(LeaveOutcome::Removed | LeaveOutcome::Lost) => Removal::Removed,
            Ok(LeaveOutcome::Destroyed) => Removal::WithRoom,
            Err(error) => {
                warn!(%error, room = &**room, id = %member.id, "a member that left is removed from the list later");
                Removal::Unknown
            }
        }
    }

    /// Removes the entry and announces the leave.
    pub(super) async fn finish(mut self, incarnation: Incarnation) {
        let removal = self.remove(incarnation).await;
        self.announce(removal).await;
    }

    /// Announces the leave, if that is this node's task.
    pub(super) async fn announce(&mut self, removal: Removal) {
        let done = match (removal, &self.entry) {
            (Removal::Removed, Some(PendingEntry { room, member, state: EntryState::Announced(incarnation) })) => {
                self.rooms.announce_own_leave(room, member, *incarnation).await.is_ok()
            }
            // The reaper announced that of an earlier membership: a join that waits, and may have been announced, is of this one.
            (Removal::ByReaper, Some(PendingEntry { room, member, state: EntryState::Announced(incarnation) }))
                if self.rooms.has_waiting_change(room, &member.id) =>
            {
                self.rooms.announce_own_leave(room, member, *incarnation).await.is_ok()
            }
            (Removal::Removed | Removal::WithRoom | Removal::ByReaper, _) => true,
            (Removal::Unknown, _) => false,
        };
        if done {
            self.entry = None;
        }
    }
}

impl Drop for PendingRemoval {
    fn drop(&mut self) {
        self.rooms.0.moves.end();
        let Some(PendingEntry { room, member, state }) = self.entry.take() else { return };
        let request = |what| self.rooms.0.parts.lease.request_recovery(what);
        match state {
            // Not with the next recovery pass: a join that its client repeats must not find it.
            EntryState::Sent(number) => {
                let rooms = self.rooms.clone();
                self.rooms.0.parts.shutdown.spawn(async move { rooms.undo_join(&room, &member, number).await });
            }
            EntryState::Listed => request(RecoveryRequest::REMOVE),
            EntryState::Announced(incarnation) => {
                self.rooms.keep_leave(&room, &member, incarnation);
                request(RecoveryRequest::REMOVE);
            }
        }
    }
}

impl Rooms {
    /// Undoes a join with an unknown outcome. If that fails too, a recovery pass does it.
    async fn undo_join(&self, room: &Arc<str>, member: &Member, number: u64) {
        let generation = self.0.parts.identity.generation();
        if let Err(error) = self.store().undo_join(room, member, generation, number).await {
            warn!(%error, room = &**room, id = %member.id, "a join without an answer is undone later");
            self.give_up(number);
        }
    }

    /// Records a join or a listing with an unknown outcome: the next recovery pass has those up to this number refused.
    pub(super) fn give_up(&self, number: u64) {
        self.0.given_up.fetch_max(number, Relaxed);
        self.0.parts.lease.request_recovery(RecoveryRequest::REMOVE);
    }
}
