//! Who comes into a room, and who goes.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use super::stays::{Stay, Stays};
use super::{Rooms, check_name, no_room};
use crate::backend::{Joined, Member, Subscription};
use crate::connection::{Connection, ConnectionId};
use crate::error::ActionError;
use crate::event::Event;
use crate::hooks::Leaving;

impl Rooms {
    /// Makes a connection of this node a member; for others see [`crate::Connections::apply`] with `roomAdd`.
    ///
    /// # Errors
    ///
    /// `invalid_input` if the name cannot be one, `not_found` without such a room, `conflict` if it is a member or in
    /// `websocket.max_rooms` rooms, whatever a join hook refuses with, `unavailable` if the backend does not answer.
    pub async fn join(&self, connection: &Connection, room: &str) -> Result<(), ActionError> {
        let mut result = Ok(());
        self.join_then(connection, room, |joined| result = joined).await;
        result
    }

    /// Joins, and calls `done` in the very step that makes the connection hear the room.
    pub(crate) async fn join_then(
        &self,
        connection: &Connection,
        room: &str,
        done: impl FnOnce(Result<(), ActionError>) + Send,
    ) {
        // Before the lock, so that a join hook may make the connection join other rooms.
        let room = match self.may_join(connection, room).await {
            Ok(room) => room,
            Err(error) => return done(Err(error)),
        };
        let _alone = connection.membership().lock().await;
        if let Err(error) = self.has_place(connection, &room) {
            return done(Err(error)); // it joined meanwhile
        }
        let mut done = Some(done);
        for _ in 0..ENTER_ATTEMPTS {
            let epoch = self.table().destroyed.load(Relaxed);
            let membership = match self.become_member(connection, &room).await {
                Ok(membership) => membership,
                Err(error) => return tell(&mut done, Err(error)),
            };
            let member = Member { id: connection.id().clone(), joined_at: membership.joined_at };
            match self.enter(connection, &room, membership, epoch, &mut done) {
                Entered::In => {
                    self.node.tell(&Event::Joined(room.clone(), connection.clone()));
                    return self.tell_join(&room, connection.id()).await;
                }
                Entered::Ended => return self.unlist(&room, member).await,
                Entered::RoomsChanged => self.unlist(&room, member).await,
            }
        }
        tell(&mut done, Err(ActionError::conflict("rooms are being destroyed, try again")));
    }

    /// Takes a connection of this node out of a room because somebody asked for it.
    ///
    /// # Errors
    ///
    /// `not_found` without such a room, `forbidden` if it is no member, whatever a leave hook refuses with.
    pub async fn leave(&self, connection: &Connection, room: &str) -> Result<(), ActionError> {
        check_name(room)?;
        let _alone = connection.membership().lock().await;
        self.check_member(connection, room).await?;
        let Some(stay) = connection.joined().find(room).cloned() else { return Err(no_room()) };
        let room = stay.room.clone();
        for hook in &self.node.registry().room_hooks {
            self.node.caught(hook.leave(&self.node, &room, connection.id(), Leaving::Asked(connection))).await??;
        }
        let member = Member { id: connection.id().clone(), joined_at: stay.joined_at };
        self.node.room_store().leave(&room, &member, self.node.generation()).await?;
        self.exit(connection, &stay);
        self.node.tell(&Event::Left(room.clone(), connection.clone()));
        self.tell_leave(&room, connection.id()).await;
        Ok(())
    }

    /// Takes a connection that ends out of all its rooms.
    pub(crate) async fn leave_all(&self, connection: &Connection) {
        let _alone = connection.membership().lock().await;
        connection.joined().ended = true;
        loop {
            let Some(stay) = connection.joined().first() else { return };
            self.ask_leave_hooks(connection.id(), &stay.room, Leaving::Ended(connection)).await;
            self.exit(connection, &stay);
            self.node.tell(&Event::Left(stay.room.clone(), connection.clone()));
            self.write_leave(&stay.room, Member { id: connection.id().clone(), joined_at: stay.joined_at }).await;
        }
    }

    pub(super) async fn ask_leave_hooks(&self, id: &ConnectionId, room: &str, why: Leaving<'_>) {
        for hook in &self.node.registry().room_hooks {
            self.node.guarded("leave", async { drop(hook.leave(&self.node, room, id, why).await) }).await;
        }
    }

    async fn may_join(&self, connection: &Connection, room: &str) -> Result<Arc<str>, ActionError> {
        check_name(room)?;
        self.has_place(connection, room)?;
        if !self.exists(room).await? {
            return Err(no_room());
        }
        let room: Arc<str> = room.into();
        for hook in &self.node.registry().room_hooks {
            self.node.caught(hook.join(&self.node, &room, connection)).await??;
        }
        Ok(room)
    }

    fn has_place(&self, connection: &Connection, room: &str) -> Result<(), ActionError> {
        if connection.is_in(room) {
            return Err(ActionError::conflict("the connection is already in this room"));
        }
        if connection.joined().names().count() >= self.node.config().websocket.max_rooms {
            return Err(ActionError::conflict("the connection is in as many rooms as it may be"));
        }
        Ok(())
    }

    /// Subscribes to the room and lists the connection as its member.
    async fn become_member(&self, connection: &Connection, room: &Arc<str>) -> Result<Membership, ActionError> {
        let subscription = self.node.bus().subscribe(room).await?;
        let joined_at = connection.joined().next_joined_at(self.node.now_ms());
        let member = Member { id: connection.id().clone(), joined_at };
        match self.node.room_store().join(room, &member, self.node.generation()).await? {
            Joined::New(life) | Joined::Anew(life) => Ok(Membership { joined_at, life, subscription }),
            Joined::Already => Err(ActionError::conflict("the connection is already in this room")),
            Joined::NoRoom => Err(no_room()),
        }
    }

    /// Puts a connection into the delivery set and tells it so, in one step.
    ///
    /// A room that was destroyed since `epoch` may be this one: its last message came by, and took everybody out that
    /// was in then. The count is read after the connection stands in the set, so that either this step sees the new
    /// count or the last message sees the connection.
    fn enter(
        &self,
        connection: &Connection,
        room: &Arc<str>,
        membership: Membership,
        epoch: u64,
        done: &mut Option<impl FnOnce(Result<(), ActionError>)>,
    ) -> Entered {
        let mut joined = connection.joined();
        if joined.ended {
            tell(done, Err(ActionError::conflict("the connection has ended")));
            return Entered::Ended;
        }
        let mut rooms = self.table().rooms.write().unwrap_or_else(PoisonError::into_inner);
        let local = rooms.entry(room.clone()).or_default().clone();
        let mut members = local.members();
        members.insert(connection.id().clone(), connection.clone());
        if self.table().destroyed.load(Relaxed) != epoch {
            members.swap_remove(connection.id());
            let empty = members.is_empty();
            drop(members);
            if empty {
                rooms.remove(room);
            }
            return Entered::RoomsChanged;
        }
        // Where there is one already, it does for this member too.
        let _ = local.subscription.set(membership.subscription);
        joined.begin(room.clone(), membership.joined_at, membership.life);
        tell(done, Ok(()));
        Entered::In
    }

    /// Ends a stay.
    pub(super) fn exit(&self, connection: &Connection, stay: &Stay) {
        let mut joined = connection.joined();
        joined.end(&stay.room, stay.life);
        self.take_out(&joined, connection, &stay.room);
    }

    /// Takes a connection out of the delivery set of a room, unless it is in a new one of that name. Whoever holds what it
    /// joined keeps it from coming in meanwhile.
    pub(super) fn take_out(&self, joined: &Stays, connection: &Connection, room: &Arc<str>) {
        if joined.find(room).is_some() {
            return;
        }
        let mut rooms = self.table().rooms.write().unwrap_or_else(PoisonError::into_inner);
        let Some(local) = rooms.get(room) else { return };
        let empty = {
            let mut members = local.members();
            if members.get(connection.id()) == Some(connection) {
                members.swap_remove(connection.id());
            }
            members.is_empty()
        };
        if empty {
            rooms.remove(room);
        }
    }

    pub(super) async fn check_member(&self, connection: &Connection, room: &str) -> Result<(), ActionError> {
        match connection.is_in(room) {
            true => Ok(()),
            false if self.exists(room).await? => Err(ActionError::forbidden("the connection is not in this room")),
            false => Err(no_room()),
        }
    }
}

/// What a connection that was listed as a member takes along into the delivery set.
struct Membership {
    joined_at: u64,
    life: u64,
    subscription: Subscription,
}

/// How often a join starts over because rooms are destroyed beside it.
const ENTER_ATTEMPTS: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entered {
    In,
    Ended,
    RoomsChanged,
}

fn tell(done: &mut Option<impl FnOnce(Result<(), ActionError>)>, result: Result<(), ActionError>) {
    if let Some(done) = done.take() {
        done(result);
    }
}
