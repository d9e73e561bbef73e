//! How a connection becomes a member of a room.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::pending_removal::PendingRemoval;
use super::waiting_changes::UnannouncedJoin;
use super::{RoomPoint, Rooms, check_name, no_room};
use crate::backend::{BackendError, JoinOutcome, Member, Subscription};
use crate::connection::{Connection, JoinedRoom};
use crate::error::{ActionError, ErrorKind};
use crate::event::Event;
use crate::metrics::bound_reached;

/// How often a join starts over because rooms are destroyed beside it.
const ENTER_ATTEMPTS: usize = 8;

/// How often a join is sent that arrives after the undo of another one with a higher number.
const LATE_ATTEMPTS: usize = 2;

/// The result of entering the delivery set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entered {
    Yes,
    ConnectionClosed,
    RoomsChanged,
}

impl Rooms {
    /// Makes a connection of this node a member; for others see [`crate::Connections::apply`] with `roomAdd`.
    ///
    /// Cancel safe: a join that is dropped before it takes effect is undone, now or when the backend answers again.
    ///
    /// # Errors
    ///
    /// `invalid_input` if the name cannot be one, `not_found` without such a room, `conflict` if it is a member or in
    /// `websocket.max_rooms` rooms, the error with which a join hook refuses, `unavailable` if the backend does not answer.
    pub async fn join(&self, connection: &Connection, room: &str) -> Result<(), ActionError> {
        let mut result = Ok(());
        self.join_then(connection, room, |joined| result = joined).await;
        result
    }

    /// Joins, and calls `done` in the very step that puts the connection into the delivery set.
    pub(crate) async fn join_then(
        &self,
        connection: &Connection,
        room: &str,
        done: impl FnOnce(Result<(), ActionError>) + Send,
    ) {
        // Before the lock, so that a join hook may make the connection join other rooms.
        let room = match self.check_join(connection, room).await {
            Ok(room) => room,
            Err(error) => return done(Err(error)),
        };
        let _ordered = connection.lock_membership().await;
        if let Err(error) = self.check_room_left(connection, &room) {
            return done(Err(error)); // it joined meanwhile
        }
        let mut done = Some(done);
        for _ in 0..ENTER_ATTEMPTS {
            let destroyed = self.0.destroyed.load(Relaxed);
            let (joined, subscription, removal) = match self.list_member(connection, &room).await {
                Ok(listed) => listed,
                Err(error) => return finish(&mut done, Err(error)),
            };
            let entered = self.enter(connection, &joined, subscription, destroyed, &mut done);
            match entered {
                Entered::Yes => {
                    removal.settled();
                    let unannounced =
                        self.has_presence(&room).then(|| UnannouncedJoin::new(self, &joined, connection.id()));
                    self.notify(&Event::Joined(room, connection.clone()));
                    if let Some(unannounced) = unannounced {
                        unannounced.announce().await;
                    }
                    return;
                }
                // In a box of its own: it is rare, and every join would have room for it.
                Entered::ConnectionClosed | Entered::RoomsChanged => Box::pin(removal.finish(joined.incarnation)).await,
            }
            if entered == Entered::ConnectionClosed {
                return;
            }
        }
        finish(&mut done, Err(ActionError::conflict("rooms are being destroyed, try again")));
    }

    async fn check_join(&self, connection: &Connection, room: &str) -> Result<Arc<str>, ActionError> {
        check_name(room)?;
        self.check_room_left(connection, room)?;
        if !self.exists(room).await? {
            return Err(no_room());
        }
        let room: Arc<str> = room.into();
        if self.callbacks().has(RoomPoint::Join) {
            self.callbacks().before_join(&room, connection).await?;
        }
        Ok(room)
    }

    fn check_room_left(&self, connection: &Connection, room: &str) -> Result<(), ActionError> {
        let joined = connection.joined_rooms();
        if joined.find(room).is_some() {
            return Err(ActionError::conflict("the connection is already in this room"));
        }
        if joined.names().count() >= self.config().websocket.max_rooms {
            bound_reached("websocket.max_rooms");
            return Err(ActionError::conflict("the connection is in as many rooms as it may be"));
        }
        Ok(())
    }

    /// Subscribes to the room and lists the connection as its member, which then has to enter the delivery set.
    async fn list_member(
        &self,
        connection: &Connection,
        room: &Arc<str>,
    ) -> Result<(JoinedRoom, Subscription, PendingRemoval), ActionError> {
        let subscription = self.bus().subscribe(room).await?;
        if self.has_presence(room) {
            self.announce_waiting(room, connection.id()).await?;
        }
        let joined_at = connection.joined_rooms().next_joined_at(self.0.parts.clock.now_ms());
        let member = Member { id: connection.id().clone(), joined_at };
        for _ in 0..LATE_ATTEMPTS {
            let number = self.next_join_number();
            let mut removal = PendingRemoval::of_join(self, room, member.clone(), number);
            let outcome = match self.store().join(room, &member, self.0.parts.identity.generation(), number).await {
                Ok(outcome) => outcome,
                Err(error @ (BackendError::Refused(_) | BackendError::Full)) => {
                    removal.settled(); // nothing was changed
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
            };
            match outcome {
                JoinOutcome::New(incarnation) | JoinOutcome::Replaced(incarnation) => {
                    removal.confirm();
                    let joined = JoinedRoom::new(room.clone(), joined_at, incarnation);
                    return Ok((joined, subscription, removal));
                }
                JoinOutcome::Elsewhere(_) | JoinOutcome::NoRoom | JoinOutcome::Late => removal.settled(),
            }
            match outcome {
                JoinOutcome::Late => {}
                JoinOutcome::NoRoom => return Err(no_room()),
                _ => return Err(ActionError::conflict("the connection is already in this room")),
            }
        }
        let message = "the backend is slow, and nothing was stored";
        Err(ActionError::of(ErrorKind::Unavailable, message).with_retry_after(Duration::from_secs(1)))
    }

    /// The number of the next join, higher than all before.
    pub(super) fn next_join_number(&self) -> u64 {
        self.0.last_join.fetch_add(1, Relaxed) + 1
    }

    /// Puts a connection into the delivery set and reports success, in one step.
    ///
    /// A room that was destroyed since `destroyed` was read may be this one: its last message arrived, and took out the
    /// connections that were in the set then. The count is read after the connection is in the set, so that either this
    /// step sees the new count or the last message sees the connection.
    fn enter(
        &self,
        connection: &Connection,
        joining: &JoinedRoom,
        subscription: Subscription,
        destroyed: u64,
        done: &mut Option<impl FnOnce(Result<(), ActionError>)>,
    ) -> Entered {
        let mut joined = connection.joined_rooms();
        if joined.closed {
            finish(done, Err(ActionError::conflict("the connection has ended")));
            return Entered::ConnectionClosed;
        }
        let mut rooms = self.0.local.write().unwrap_or_else(PoisonError::into_inner);
        let local = rooms.entry(joining.room.clone()).or_default().clone();
        let mut members = local.members();
        members.insert(connection);
        if self.0.destroyed.load(Relaxed) != destroyed {
            members.remove(connection);
            let is_empty = members.is_empty();
            drop(members);
            if is_empty {
                rooms.remove(&joining.room);
            }
            return Entered::RoomsChanged;
        }
        // If the room has a subscription already, that one serves this member too.
        let _ = local.subscription.set(subscription);
        joined.add(joining.clone());
        finish(done, Ok(()));
        Entered::Yes
    }
}

fn finish(done: &mut Option<impl FnOnce(Result<(), ActionError>)>, result: Result<(), ActionError>) {
    if let Some(done) = done.take() {
        done(result);
    }
}
