//! Who comes into a room, and who goes.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use super::listing::{Listing, Unlisted};
use super::stays::{Stay, Stays};
use super::{Rooms, check_name, no_room};
use crate::backend::{Joined, Member, Subscription};
use crate::connection::{Connection, ConnectionId};
use crate::error::ActionError;
use crate::event::Event;
use crate::hooks::Leaving;
use crate::metrics::bound_reached;

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
            let Membership { stay, subscription, listing } = membership;
            match self.enter(connection, &stay, subscription, epoch, &mut done) {
                Entered::In => {
                    listing.settled();
                    self.node.tell(&Event::Joined(room, connection.clone()));
                    return self.tell_join(&stay, connection.id()).await;
                }
                Entered::Ended => return listing.end(stay.life).await,
                Entered::RoomsChanged => listing.end(stay.life).await,
            }
        }
        tell(&mut done, Err(ActionError::conflict("rooms are being destroyed, try again")));
    }

    /// Takes a connection of this node out of a room because somebody asked for it.
    ///
    /// From the hooks' consent on it is out, also if the backend is away or the call is dropped: then it is taken off the
    /// list, and the room told, later.
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
        let listing = Listing::of(self, connection.id(), &stay);
        self.exit(connection, &stay);
        self.node.tell(&Event::Left(room, connection.clone()));
        listing.end(stay.life).await;
        Ok(())
    }

    /// Takes a connection that ends out of all its rooms.
    ///
    /// Hooks are asked before it is off the list, so that a node that dies meanwhile leaves them to who cleans up. Only
    /// where this node may have been found dead, what comes off the list decides: who cleaned up has asked them.
    pub(crate) async fn leave_all(&self, connection: &Connection) {
        let _alone = connection.membership().lock().await;
        connection.joined().ended = true;
        loop {
            let Some(stay) = connection.joined().first() else { return };
            let listing = Listing::of(self, connection.id(), &stay);
            let early = match self.node.may_be_found_dead() {
                true => Some(listing.unlist(stay.life).await),
                false => None,
            };
            if early != Some(Unlisted::ByReaper) {
                self.ask_leave_hooks(connection.id(), &stay.room, Leaving::Ended(connection)).await;
            }
            let unlisted = match early {
                Some(unlisted) => unlisted,
                None => listing.unlist(stay.life).await,
            };
            self.exit(connection, &stay);
            self.node.tell(&Event::Left(stay.room.clone(), connection.clone()));
            listing.tell(unlisted).await;
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
            bound_reached("websocket.max_rooms");
            return Err(ActionError::conflict("the connection is in as many rooms as it may be"));
        }
        Ok(())
    }

    /// Subscribes to the room and lists the connection as its member.
    async fn become_member(&self, connection: &Connection, room: &Arc<str>) -> Result<Membership<'_>, ActionError> {
        let subscription = self.node.bus().subscribe(room).await?;
        let joined_at = connection.joined().next_joined_at(self.node.now_ms());
        let member = Member { id: connection.id().clone(), joined_at };
        let listing = Listing::unheard(self, room, member.clone());
        match self.node.room_store().join(room, &member, self.node.generation()).await? {
            Joined::New(life) | Joined::Anew(life) => {
                Ok(Membership { stay: Stay::new(room.clone(), joined_at, life), subscription, listing })
            }
            Joined::Already(_) => {
                listing.settled();
                Err(ActionError::conflict("the connection is already in this room"))
            }
            Joined::NoRoom => {
                listing.settled();
                Err(no_room())
            }
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
        stay: &Stay,
        subscription: Subscription,
        epoch: u64,
        done: &mut Option<impl FnOnce(Result<(), ActionError>)>,
    ) -> Entered {
        let mut joined = connection.joined();
        if joined.ended {
            tell(done, Err(ActionError::conflict("the connection has ended")));
            return Entered::Ended;
        }
        let mut rooms = self.table().rooms.write().unwrap_or_else(PoisonError::into_inner);
        let local = rooms.entry(stay.room.clone()).or_default().clone();
        let mut members = local.members();
        members.insert(connection.id().clone(), connection.clone());
        if self.table().destroyed.load(Relaxed) != epoch {
            members.swap_remove(connection.id());
            let empty = members.is_empty();
            drop(members);
            if empty {
                rooms.remove(&stay.room);
            }
            return Entered::RoomsChanged;
        }
        // Where there is one already, it does for this member too.
        let _ = local.subscription.set(subscription);
        joined.begin(stay.clone());
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
struct Membership<'a> {
    stay: Stay,
    subscription: Subscription,
    listing: Listing<'a>,
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
