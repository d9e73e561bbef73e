//! Leaves of rooms with presence that could not be announced when they happened. Their entries in the list need no memory:
//! a recovery pass removes what the node does not hold.

use std::sync::{Arc, MutexGuard, PoisonError};

use futures_util::stream::{self, TryStreamExt};

use super::{Rooms, WaitingLeaves};
use crate::backend::{BackendError, LeaveOutcome, Member, StoredMember};
use crate::id::{ConnectionId, Incarnation};
use crate::metrics::bound_reached;

/// Leaves that wait to be announced; beyond, the members of the room on this node receive a gap instead.
const MAX_WAITING: usize = 65_536;

/// Leaves that are checked at once.
const BATCH: usize = 200;

/// Leaves that are announced at once.
const AT_ONCE: usize = 32;

impl Rooms {
    fn waiting_leaves(&self) -> MutexGuard<'_, WaitingLeaves> {
        self.0.waiting_leaves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the next recovery pass announce a leave, if the room wants that.
    pub(super) fn keep_waiting(&self, room: Arc<str>, member: Member, incarnation: Incarnation) {
        if !self.has_presence(&room) {
            return;
        }
        let is_kept = {
            let mut waiting = self.waiting_leaves();
            let has_space = waiting.len() < MAX_WAITING;
            if has_space {
                waiting.insert((room.clone(), member.id), (member.joined_at, incarnation));
            }
            has_space
        };
        if !is_kept {
            bound_reached("waiting_leaves");
            self.send_gap(&room);
        }
    }

    /// Whether leaves wait to be announced.
    pub(super) fn has_waiting_leaves(&self) -> bool {
        !self.waiting_leaves().is_empty()
    }

    /// Announces a leave that waits, before the same connection joins the room again.
    pub(super) async fn announce_waiting_leave(&self, room: &Arc<str>, id: &ConnectionId) -> Result<(), BackendError> {
        let key = (room.clone(), id.clone());
        let Some((joined_at, _)) = self.waiting_leaves().get(&key).copied() else { return Ok(()) };
        self.announce_leave(room, &Member { id: id.clone(), joined_at }).await?;
        self.remove_waiting(&key, joined_at);
        Ok(())
    }

    /// Announces all leaves that wait, except those of rooms that were destroyed and created again since.
    pub(super) async fn announce_waiting_leaves(&self) -> Result<(), BackendError> {
        let all: Vec<_> = self.waiting_leaves().iter().map(|(key, value)| (key.clone(), *value)).collect();
        for batch in all.chunks(BATCH) {
            let entry = |((room, id), (joined_at, _)): &((Arc<str>, ConnectionId), (u64, Incarnation))| StoredMember {
                room: room.to_string(),
                id: id.clone(),
                joined_at: *joined_at,
            };
            let entries: Vec<StoredMember> = batch.iter().map(entry).collect();
            let of = self.0.parts.identity.generation();
            let outcomes = self.store().remove_stored(of, 0, &entries).await?;
            let leaves = batch.iter().zip(outcomes).map(Ok::<_, BackendError>);
            stream::iter(leaves)
                .try_for_each_concurrent(AT_ONCE, |((key, (joined_at, announced_in)), outcome)| async move {
                    let is_another = matches!(outcome, LeaveOutcome::NotAMember(Some(now)) if now != *announced_in);
                    if !is_another {
                        let member = Member { id: key.1.clone(), joined_at: *joined_at };
                        self.announce_leave(&key.0, &member).await?;
                    }
                    self.remove_waiting(key, *joined_at);
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }

    /// Unless the connection has joined and left again since.
    fn remove_waiting(&self, key: &(Arc<str>, ConnectionId), joined_at: u64) {
        let mut waiting = self.waiting_leaves();
        if waiting.get(key).is_some_and(|(waits, _)| *waits == joined_at) {
            waiting.remove(key);
        }
    }
}
