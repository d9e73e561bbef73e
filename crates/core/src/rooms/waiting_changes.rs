//! Joins and leaves of rooms with presence that could not be announced when they happened. Their entries in the list need no
//! memory: a recovery pass lists what the node holds, and removes what it does not.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::presence::by_room;
use super::{Rooms, WaitingChange, WaitingChanges, WaitingKey};
use crate::backend::{BackendError, LeaveOutcome, Member};
use crate::connection::JoinedRoom;
use crate::id::{ConnectionId, Incarnation};
use crate::metrics::bound_reached;
use crate::protocol::PresenceChange;

/// Changes that wait to be announced; beyond, the members of the room on this node receive a gap instead.
const MAX_WAITING: usize = 65_536;

/// Changes that are checked at once.
const AT_ONCE: usize = 32;

/// A join that is being announced. Dropped before that is done, it is announced later: without it the leave would be
/// announced of a member that never joined.
pub(super) struct UnannouncedJoin<'a> {
    rooms: &'a Rooms,
    joined: &'a JoinedRoom,
    id: &'a ConnectionId,
    is_announced: bool,
}

impl<'a> UnannouncedJoin<'a> {
    pub(super) fn new(rooms: &'a Rooms, joined: &'a JoinedRoom, id: &'a ConnectionId) -> Self {
        Self { rooms, joined, id, is_announced: false }
    }

    /// Announces the join. If that fails, the recovery pass announces it: the member is in the room all the same.
    pub(super) async fn announce(mut self) {
        let member = Member { id: self.id.clone(), joined_at: self.joined.joined_at };
        self.is_announced = self.rooms.announce(&self.joined.room, PresenceChange::Join, &[member]).await.is_ok();
    }
}

impl Drop for UnannouncedJoin<'_> {
    fn drop(&mut self) {
        if !self.is_announced {
            self.rooms.keep_join(self.joined, self.id);
        }
    }
}

impl Rooms {
    fn waiting_changes(&self) -> MutexGuard<'_, WaitingChanges> {
        self.0.waiting_changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the next recovery pass announce a join, if the room wants that.
    pub(super) fn keep_join(&self, joined: &JoinedRoom, id: &ConnectionId) {
        self.keep(&joined.room, id, WaitingChange { joined_at: joined.joined_at, join: true, left: None });
    }

    /// Has the next recovery pass announce a leave, if the room wants that.
    pub(super) fn keep_leave(&self, room: &Arc<str>, member: &Member, incarnation: Incarnation) {
        self.keep(
            room,
            &member.id,
            WaitingChange { joined_at: member.joined_at, join: false, left: Some(incarnation) },
        );
    }

    fn keep(&self, room: &Arc<str>, id: &ConnectionId, mut change: WaitingChange) {
        if !self.has_presence(room) {
            return;
        }
        let is_kept = {
            let mut waiting = self.waiting_changes();
            let key = (room.clone(), id.clone());
            change.join |= waiting.get(&key).is_some_and(|before| before.join);
            let has_space = waiting.len() < MAX_WAITING || waiting.contains_key(&key);
            if has_space {
                waiting.insert(key, change);
            }
            has_space
        };
        if !is_kept {
            bound_reached("waiting_changes");
            self.send_gap(room);
        }
    }

    /// Whether changes wait to be announced.
    pub(super) fn has_waiting_changes(&self) -> bool {
        !self.waiting_changes().is_empty()
    }

    /// Announces the leave of a connection of this node, behind its join.
    pub(super) async fn announce_own_leave(
        &self,
        room: &Arc<str>,
        member: &Member,
        incarnation: Incarnation,
    ) -> Result<(), BackendError> {
        if !self.has_presence(room) {
            return Ok(());
        }
        if !self.has_waiting_change(room, &member.id) {
            return self.announce_leave(room, member).await;
        }
        self.keep_leave(room, member, incarnation);
        self.announce_waiting(room, &member.id).await
    }

    /// Announces what waits of a connection and a room, before the connection joins the room again.
    pub(super) async fn announce_waiting(&self, room: &Arc<str>, id: &ConnectionId) -> Result<(), BackendError> {
        let Some((key, change)) = self.waiting_change(room, id) else { return Ok(()) };
        if change.left.is_none() {
            self.remove_waiting(&key, change); // the membership ended with its room
            return Ok(());
        }
        // In a box of its own: changes wait rarely, and every join and leave would have room for this.
        Box::pin(self.announce_change(key, change)).await
    }

    /// Whether a change of a connection and a room waits to be announced.
    pub(super) fn has_waiting_change(&self, room: &Arc<str>, id: &ConnectionId) -> bool {
        self.waiting_change(room, id).is_some()
    }

    /// The change of a connection and a room that waits.
    fn waiting_change(&self, room: &Arc<str>, id: &ConnectionId) -> Option<(WaitingKey, WaitingChange)> {
        let waiting = self.waiting_changes();
        if waiting.is_empty() {
            return None;
        }
        let key = (room.clone(), id.clone());
        let change = waiting.get(&key).copied()?;
        Some((key, change))
    }

    async fn announce_change(&self, key: WaitingKey, change: WaitingChange) -> Result<(), BackendError> {
        let room = &key.0;
        let member = Member { id: key.1.clone(), joined_at: change.joined_at };
        if change.join {
            self.announce(room, PresenceChange::Join, std::slice::from_ref(&member)).await?;
        }
        if change.left.is_some() {
            self.announce_leave(room, &member).await?;
        }
        self.remove_waiting(&key, change);
        Ok(())
    }

    /// Announces all changes that wait, except those of rooms that were destroyed since. Those of a connection that joins or
    /// leaves a room now are left to it, or to the next pass: it announces a join that waits before its leave.
    pub(crate) async fn announce_waiting_changes(&self) -> Result<(), BackendError> {
        let mut waiting: Vec<_> = self.waiting_changes().iter().map(|(key, value)| (key.clone(), *value)).collect();
        let mut locks = HashMap::new();
        waiting.retain(|((_, id), _)| {
            let Some(connection) = self.0.parts.registry.find(id) else { return true };
            locks.entry(id.clone()).or_insert_with(|| connection.try_lock_membership()).is_some()
        });
        let check =
            |(key, change)| async move { Ok::<_, BackendError>((self.is_due(&key, change).await?, key, change)) };
        let checks: Vec<_> =
            stream::iter(waiting.into_iter().map(check)).buffer_unordered(AT_ONCE).try_collect().await?;
        let (mut due, mut joined, mut left) = (Vec::with_capacity(checks.len()), Vec::new(), Vec::new());
        for (is_due, key, change) in checks {
            if !is_due {
                self.remove_waiting(&key, change);
                continue;
            }
            let member = Member { id: key.1.clone(), joined_at: change.joined_at };
            if change.left.is_some() {
                left.push((key.0.clone(), member.clone()));
            }
            if change.join {
                joined.push((key.0.clone(), member));
            }
            due.push((key, change));
        }
        for (change, members) in [(PresenceChange::Join, joined), (PresenceChange::Leave, left)] {
            for (room, members) in by_room(members) {
                self.announce(&room, change, &members).await?;
            }
        }
        due.iter().for_each(|(key, change)| self.remove_waiting(key, *change));
        drop(locks);
        Ok(())
    }

    /// Whether a change is still to be announced.
    async fn is_due(&self, (room, id): &WaitingKey, change: WaitingChange) -> Result<bool, BackendError> {
        let Some(incarnation) = change.left else { return Ok(self.holds(room, id, change.joined_at)) };
        let member = Member { id: id.clone(), joined_at: change.joined_at };
        let left = self.store().leave(room, &member, incarnation, self.0.parts.identity.generation()).await?;
        Ok(left != LeaveOutcome::Destroyed)
    }

    /// Whether a connection of this node is in a room since then.
    fn holds(&self, room: &str, id: &ConnectionId, joined_at: u64) -> bool {
        let connection = self.0.parts.registry.find(id);
        connection.is_some_and(|it| it.joined_rooms().find(room).is_some_and(|joined| joined.joined_at == joined_at))
    }

    /// Unless another change was added since.
    fn remove_waiting(&self, key: &WaitingKey, announced: WaitingChange) {
        let mut waiting = self.waiting_changes();
        if waiting.get(key) == Some(&announced) {
            waiting.remove(key);
        }
    }
}
