//! Recovery of rooms and members after a fault of the backend or the bus.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use super::pending_removal::PendingRemoval;
use super::{LeaveCause, PendingLeave, Rooms};
use crate::backend::{BackendError, JoinOutcome, LeaveOutcome, Member};
use crate::connection::{Connection, Frame, JoinedRoom};
use crate::event::Event;
use crate::id::Generation;
use crate::lease_state::RestoreReason;
use crate::metrics::bound_reached;
use crate::protocol::{self, AwayEvent};

/// How long listing a connection again waits for a join or a leave of it that is in progress.
const RESTORE_WAIT: Duration = Duration::from_secs(5);

impl Rooms {
    /// Whether there are leaves to store or last messages to publish, or messages were missed.
    pub(crate) fn need_recovery(&self) -> bool {
        self.0.missed_messages.load(Relaxed) || !self.pending_leaves().is_empty() || !self.pending_destroys().is_empty()
    }

    /// Records that messages were missed.
    pub(crate) fn record_missed_messages(&self) {
        self.0.missed_messages.store(true, Relaxed);
    }

    /// Whether messages were missed since the last call of this function.
    pub(crate) fn take_missed_messages(&self) -> bool {
        self.0.missed_messages.swap(false, Relaxed)
    }

    /// Stores the leaves that could not be stored when they happened, and announces them.
    pub(crate) async fn settle_leaves(&self) -> Result<(), BackendError> {
        loop {
            let Some(leave) = self.pending_leaves().last().cloned() else { return Ok(()) };
            let generation = self.0.parts.identity.generation();
            if let Some(number) = leave.undoes {
                let undone = self.store().undo_join(&leave.room, &leave.member, generation, number).await;
                undone.or_else(|error| skip_room_errors(error, &leave.room))?;
                self.drop_pending(&leave);
                continue;
            }
            let to_announce = match self.store().leave(&leave.room, &leave.member, generation).await {
                Ok(LeaveOutcome::Removed) => leave.announced_in.is_some(),
                // It may have been this node, whose answer was lost; a receiver drops a leave that a reaper announced.
                Ok(LeaveOutcome::NotAMember(incarnation)) => incarnation.is_some() && incarnation == leave.announced_in,
                Err(error) => skip_room_errors(error, &leave.room).map(|()| leave.announced_in.is_some())?,
            };
            if to_announce {
                self.announce_leave(&leave.room, &leave.member).await?;
            }
            self.drop_pending(&leave);
        }
    }

    fn drop_pending(&self, leave: &PendingLeave) {
        let mut pending = self.pending_leaves();
        if let Some(at) = pending.iter().rposition(|other| other == leave) {
            pending.swap_remove(at);
        }
    }

    /// Sends every socket that is in rooms the notice that their messages do not arrive for now.
    pub(crate) fn send_away(&self) {
        let frame = protocol::encode(&AwayEvent::NOTICE);
        for connection in self.0.parts.registry.all() {
            if connection.joined_rooms().names().next().is_some() {
                connection.push(Frame::Text(frame.clone()));
            }
        }
    }

    /// Creates the rooms of `rooms.start` again.
    pub(crate) async fn restore_start_rooms(&self) -> Result<(), BackendError> {
        for room in &self.config().rooms.start {
            let created = self.store().create(room, self.config().rooms.max_rooms).await;
            created.map(drop).or_else(|error| skip_room_errors(error, room))?;
        }
        Ok(())
    }

    /// Lists a connection again in all its rooms, as one of the node `of`. One that a hook blocks is left to the next pass,
    /// and delays none of the others.
    pub(crate) async fn restore(
        &self,
        connection: &Connection,
        of: Generation,
        why: RestoreReason,
    ) -> Result<(), BackendError> {
        if connection.joined_rooms().closed {
            return Ok(()); // it is leaving all its rooms
        }
        let Ok(_ordered) = timeout(RESTORE_WAIT, connection.membership_lock().lock_owned()).await else {
            bound_reached("restore_wait");
            self.0.parts.lease.request_restore(why);
            return Ok(());
        };
        let all: Vec<JoinedRoom> = connection.joined_rooms().standing().cloned().collect();
        for joined in all {
            let restored = self.restore_in(connection, &joined, of, why).await;
            restored.or_else(|error| skip_room_errors(error, &joined.room))?;
        }
        Ok(())
    }

    /// A room that is gone is created again only if all was `lost`: otherwise it was destroyed, also where there is a new
    /// one of its name by now. A member of a node that was renamed joins anew: other nodes may have received its leave, and
    /// its next leave is another one.
    async fn restore_in(
        &self,
        connection: &Connection,
        joined: &JoinedRoom,
        of: Generation,
        why: RestoreReason,
    ) -> Result<(), BackendError> {
        let room = &joined.room;
        let joined_at = joined.joined_at.max(why.renamed_ms);
        // Before it is stored: a leave must find the join that may be listed, whatever becomes of the answer.
        connection.joined_rooms().rejoin(room, joined_at, joined.incarnation);
        if why.lost {
            self.store().create(room, self.config().rooms.max_rooms).await?;
        }
        let member = Member { id: connection.id().clone(), joined_at };
        let is_another = |incarnation| !why.lost && incarnation != joined.incarnation;
        match self.store().join(room, &member, of, self.next_join_number()).await? {
            JoinOutcome::New(now) | JoinOutcome::Replaced(now) if is_another(now) => {
                PendingRemoval::unannounced(self, room, member).finish(now).await;
                self.leave_destroyed(connection, joined).await;
            }
            JoinOutcome::Elsewhere(now) if is_another(now) => self.leave_destroyed(connection, joined).await,
            JoinOutcome::New(now) => {
                connection.joined_rooms().rejoin(room, joined_at, now);
                if why.renamed_ms > 0 {
                    self.announce_join(&JoinedRoom::new(room.clone(), joined_at, now), connection.id()).await;
                }
            }
            JoinOutcome::Replaced(now) => connection.joined_rooms().rejoin(room, joined_at, now),
            JoinOutcome::Elsewhere(_) => {}
            JoinOutcome::NoRoom => self.leave_destroyed(connection, joined).await,
            JoinOutcome::Late => return Err(BackendError::unavailable("the listing was late")),
        }
        Ok(())
    }

    /// Ends the membership of a room that was destroyed while this node missed its last message.
    async fn leave_destroyed(&self, connection: &Connection, joined: &JoinedRoom) {
        self.exit(connection, joined);
        self.run_left(&joined.room, connection.id(), LeaveCause::RoomDestroyed(connection)).await;
        self.notify(&Event::Left(joined.room.clone(), connection.clone()));
    }
}

/// Skips an error that concerns one room alone.
fn skip_room_errors(error: BackendError, room: &str) -> Result<(), BackendError> {
    match error {
        BackendError::Unavailable(_) | BackendError::Refused(_) | BackendError::Failed(_) | BackendError::Full => {
            Err(error)
        }
        BackendError::WrongKind { .. } | BackendError::Locked { .. } => {
            warn!(%error, room, "a room cannot be recovered");
            Ok(())
        }
    }
}
