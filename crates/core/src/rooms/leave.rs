//! How a connection leaves a room.

use std::future::poll_fn;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout_at};

use super::pending_removal::{PendingRemoval, Removal};
use super::{LeaveCause, Leaver, RoomPoint, Rooms, check_name};
use crate::connection::{Connection, JoinedRoom, JoinedRooms};
use crate::error::ActionError;
use crate::event::Event;
use crate::future::BoxFuture;

/// How long a connection that closes leaves one room after the other; then it leaves all others at once.
const LEAVE_PATIENCE: Duration = Duration::from_millis(100);

impl Rooms {
    /// Takes a connection of this node out of a room because that was requested.
    ///
    /// Once the `before_leave` hooks agree, it is out, also if the call is dropped: the `after_leave` hooks run on a task of their
    /// own, which the call waits for, and a removal from the list that fails is repeated when the backend answers again.
    ///
    /// # Errors
    ///
    /// `invalid_input` if the name cannot be one, `not_found` without such a room, `forbidden` if it is not a member, the
    /// error with which a `before_leave` hook refuses, `unavailable` if the backend does not answer whether the room exists.
    pub async fn leave(&self, connection: &Connection, room: &str) -> Result<(), ActionError> {
        check_name(room)?;
        let ordered = connection.lock_membership().await;
        let joined = connection.joined_rooms().find(room).cloned();
        let Some(joined) = joined else { return Err(self.no_member(room).await) };
        if self.callbacks().has(RoomPoint::Leave) {
            self.callbacks().before_leave(&joined.room, connection).await?;
        }
        let removal = PendingRemoval::of(self, connection.id(), &joined);
        self.exit(connection, &joined);
        let incarnation = joined.incarnation;
        // Before the entry is removed: if the node dies meanwhile, the reaper finds the entry and runs them.
        let (removal, _ordered) = match self.start_left(&joined.room, connection).await {
            None => {
                self.notify(&Event::Left(joined.room, connection.clone()));
                (removal, ordered)
            }
            Some(hooks) => self.finish_left(hooks, removal, ordered, connection.clone(), joined).await?,
        };
        removal.finish(incarnation).await;
        Ok(())
    }

    /// Starts the `after_leave` hooks of a leave that was agreed to. Returns their future if they wait for something: most do not.
    async fn start_left(&self, room: &Arc<str>, connection: &Connection) -> Option<BoxFuture<'static, ()>> {
        if !self.callbacks().has(RoomPoint::Left) {
            return None;
        }
        let mut hooks = self.left_hooks(room, Leaver::of(connection, LeaveCause::Requested));
        let first = poll_fn(|task| Poll::Ready(hooks.as_mut().poll(task))).await;
        first.is_pending().then_some(hooks)
    }

    /// Waits for the `after_leave` hooks of a leave. They are not dropped with the call: they continue on a task of their own, which
    /// then drops the removal, so that the recovery pass does it.
    async fn finish_left(
        &self,
        hooks: BoxFuture<'static, ()>,
        removal: PendingRemoval,
        ordered: OwnedMutexGuard<()>,
        connection: Connection,
        joined: JoinedRoom,
    ) -> Result<(PendingRemoval, OwnedMutexGuard<()>), ActionError> {
        let rooms = self.clone();
        let left = Box::pin(async move {
            hooks.await;
            rooms.notify(&Event::Left(joined.room, connection));
            (removal, ordered)
        });
        self.0.parts.shutdown.spawn(left).await.map_err(ActionError::internal)
    }

    /// Takes a connection that closes out of all its rooms.
    ///
    /// One after the other as long as that is quick. A backend that does not answer costs one timeout and not one for each
    /// room: the connection counts among `websocket.max_connections`, and its id is taken, until it is out of all of them.
    pub(crate) async fn leave_all(&self, connection: &Connection) {
        let _ordered = connection.lock_membership().await;
        let all = {
            let mut joined = connection.joined_rooms();
            joined.closed = true;
            joined.all()
        };
        let (mut leaving, patience) = (FuturesUnordered::new(), Instant::now() + LEAVE_PATIENCE);
        for joined in all {
            leaving.push(self.leave_closing(connection, joined));
            let _ = timeout_at(patience, leaving.next()).await;
        }
        while leaving.next().await.is_some() {}
    }

    /// Takes a connection that closes out of one room.
    ///
    /// The `after_leave` hooks run before its entry is removed, so that a node that dies meanwhile leaves them to its reaper.
    /// Only where this node may have been reaped, the removal comes first: the reaper may have run the hooks.
    async fn leave_closing(&self, connection: &Connection, joined: JoinedRoom) {
        let mut removal = PendingRemoval::of(self, connection.id(), &joined);
        let early =
            if self.0.parts.lease.may_be_reaped() { Some(removal.remove(joined.incarnation).await) } else { None };
        if early != Some(Removal::ByReaper) {
            self.run_left(&joined.room, || Leaver::of(connection, LeaveCause::Closed)).await;
        }
        let removed = match early {
            Some(removed) => removed,
            // While the backend is known to be away, the recovery pass or the reaper removes it.
            None if self.0.parts.lease.is_late() => Removal::Unknown,
            None => removal.remove(joined.incarnation).await,
        };
        self.exit(connection, &joined);
        self.notify(&Event::Left(joined.room.clone(), connection.clone()));
        removal.announce(removed).await;
    }

    pub(super) async fn run_left(&self, room: &Arc<str>, leaver: impl FnOnce() -> Leaver) {
        if self.callbacks().has(RoomPoint::Left) {
            self.left_hooks(room, leaver()).await;
        }
    }

    fn left_hooks(&self, room: &Arc<str>, leaver: Leaver) -> BoxFuture<'static, ()> {
        self.0.parts.callbacks.clone().after_leave(room.clone(), leaver)
    }

    /// Ends a membership on this node.
    pub(super) fn exit(&self, connection: &Connection, membership: &JoinedRoom) {
        let mut joined = connection.joined_rooms();
        joined.remove(&membership.room, membership.incarnation);
        self.remove_local(&joined, connection, &membership.room);
    }

    /// Removes a connection from the delivery set of a room, unless it is in a new room of that name. The caller has
    /// locked its joined rooms, which keeps it from entering meanwhile.
    pub(super) fn remove_local(&self, joined: &JoinedRooms, connection: &Connection, room: &Arc<str>) {
        if joined.find(room).is_some() {
            return;
        }
        let mut rooms = self.0.local.write().unwrap_or_else(PoisonError::into_inner);
        let Some(local) = rooms.get(room) else { return };
        let is_empty = {
            let mut members = local.members();
            members.remove(connection);
            members.is_empty()
        };
        if is_empty {
            rooms.remove(room);
        }
    }
}
