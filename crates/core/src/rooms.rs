//! Rooms: who is in them on this node, join, leave, say, deliver.
//!
//! One order for everybody: `say` publishes, and every node, the sender's too, delivers what it receives, in the order
//! in which it receives it. A connection is in the delivery set from the step that queues its `OK` on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::backend::{Added, Joined, Member, Members, Message, MessageKind, Subscription};
use crate::connection::{Connection, ConnectionId, Frame, Speaking};
use crate::error::{ActionError, Detail, ErrorKind};
use crate::event::Event;
use crate::hooks::{Heard, Leaving, Said};
use crate::node::Node;

mod payload;
mod repair;

use repair::Told;

pub(crate) use repair::Restoring;

/// Members of rooms on this node.
#[derive(Default)]
pub(crate) struct Table {
    rooms: RwLock<HashMap<Arc<str>, Arc<Local>>>,
    /// Counts destroyed rooms, so that a join that ran meanwhile notices.
    destroyed: AtomicU64,
    /// Leaves that members heard of lately.
    told: Told,
    /// Leaves that were not written, because the backend was away.
    unwritten: Mutex<Vec<(Arc<str>, Member)>>,
    /// Messages were missed: rooms may have been destroyed.
    missed: AtomicBool,
}

/// The members of one room on this node, in no order.
#[derive(Default)]
struct Local {
    members: Mutex<IndexMap<ConnectionId, Connection>>,
    /// Keeps the room's messages coming as long as there are members.
    subscription: OnceLock<Subscription>,
}

impl Local {
    fn members(&self) -> MutexGuard<'_, IndexMap<ConnectionId, Connection>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A room and who is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomStatus {
    /// Its name.
    pub room: String,
    /// Its members, at most [`Rooms::LISTED`] of them, and how many there are.
    pub members: Members,
}

/// The rooms of the cluster.
#[derive(Clone, Debug)]
pub struct Rooms {
    node: Node,
}

impl Rooms {
    /// Most members that [`Rooms::status`] lists; it counts them all.
    pub const LISTED: usize = 5000;

    pub(crate) fn new(node: Node) -> Self {
        Self { node }
    }

    /// Makes a room.
    ///
    /// # Errors
    ///
    /// `invalid_input` if the name cannot be one, `conflict` if the room exists or there are `rooms.max_rooms`.
    pub async fn add(&self, room: &str) -> Result<(), ActionError> {
        check_name(room)?;
        match self.node.room_store().add(room, self.node.config().rooms.max_rooms).await? {
            Added::New => {
                self.node.tell(&Event::RoomAdded(room.into()));
                Ok(())
            }
            Added::Existing => Err(ActionError::conflict("the room exists")),
            Added::Full => Err(ActionError::conflict("there are as many rooms as there may be")),
        }
    }

    /// Whether there is such a room.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn exists(&self, room: &str) -> Result<bool, ActionError> {
        Ok(self.node.room_store().exists(room).await?)
    }

    /// The names of all rooms, sorted.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn list(&self) -> Result<Vec<String>, ActionError> {
        let mut rooms = self.node.room_store().list().await?;
        rooms.sort_unstable();
        Ok(rooms)
    }

    /// Who is in a room, in the whole cluster.
    ///
    /// # Errors
    ///
    /// `invalid_input` if the name cannot be one, `not_found` if there is no such room.
    pub async fn status(&self, room: &str) -> Result<RoomStatus, ActionError> {
        check_name(room)?;
        let members = self.node.room_store().members(room, Self::LISTED).await?.ok_or_else(no_room)?;
        Ok(RoomStatus { room: room.to_owned(), members })
    }

    /// Ends a room: its members hear a last message and are out of it.
    ///
    /// # Errors
    ///
    /// `not_found` if there is no such room.
    pub async fn destroy(&self, room: &str) -> Result<(), ActionError> {
        let said = self.said(room.into(), Said::SERVER.into(), to_raw("this room has been deleted")?);
        let payload = said.to_payload();
        let message = Message { room: said.room, kind: MessageKind::Destroyed, who: None, payload };
        if let Some(foreign) = self.node.foreign()
            && self.exists(room).await?
        {
            foreign.dismiss(&message).await?; // they do not survive a room that goes away under them
        }
        if !self.node.room_store().remove(room).await? {
            return Err(no_room());
        }
        self.node.bus().publish(message).await?;
        self.node.tell(&Event::RoomDestroyed(room.into()));
        Ok(())
    }

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
        let room: Arc<str> = room.into();
        for hook in &self.node.registry().room_hooks {
            self.node.caught(hook.leave(&self.node, &room, connection.id(), Leaving::Asked(connection))).await??;
        }
        let joined_at = connection.joined_at(&room).unwrap_or_default();
        let member = Member { id: connection.id().clone(), joined_at };
        self.node.room_store().leave(&room, &member, self.node.generation()).await?;
        self.exit(connection, &room);
        self.node.tell(&Event::Left(room.clone(), connection.clone()));
        self.tell_leave(&room, connection.id()).await;
        Ok(())
    }

    /// Says something in a room, for the server: it comes `from` `"0"`.
    ///
    /// `Ok` means published: every member hears it, in the one order of the room.
    ///
    /// # Errors
    ///
    /// `not_found` without such a room, `payload_too_large` beyond `rooms.max_message`, whatever an `on_say` hook
    /// refuses with, `unavailable` if it is unknown whether it was published.
    pub async fn say<T: Serialize + ?Sized>(&self, room: &str, message: &T) -> Result<(), ActionError> {
        check_name(room)?;
        if !self.exists(room).await? {
            return Err(no_room());
        }
        self.speak(None, self.said(room.into(), Said::SERVER.into(), to_raw(message)?)).await
    }

    /// Says something for a connection of this node.
    ///
    /// # Errors
    ///
    /// Those of [`Rooms::say`], and `forbidden` if the connection is no member.
    pub async fn say_from<T: Serialize + ?Sized>(
        &self,
        connection: &Connection,
        room: &str,
        message: &T,
    ) -> Result<(), ActionError> {
        self.say_raw(connection, room, to_raw(message)?).await
    }

    /// Says what a client sent, as it came.
    pub(crate) async fn say_raw(
        &self,
        connection: &Connection,
        room: &str,
        message: Box<RawValue>,
    ) -> Result<(), ActionError> {
        check_name(room)?;
        self.check_member(connection, room).await?;
        self.speak(Some(connection), self.said(room.into(), connection.id().as_str().into(), message)).await
    }

    /// Takes a connection that ends out of all its rooms.
    pub(crate) async fn leave_all(&self, connection: &Connection) {
        let _alone = connection.membership().lock().await;
        let rooms = {
            let mut joined = connection.joined();
            joined.ended = true;
            joined.names.clone()
        };
        for (room, joined_at) in rooms {
            self.ask_leave_hooks(connection.id(), &room, Leaving::Ended(connection)).await;
            self.exit(connection, &room);
            self.node.tell(&Event::Left(room.clone(), connection.clone()));
            self.write_leave(&room, Member { id: connection.id().clone(), joined_at }).await;
        }
    }

    /// Hands a message to its room's members on this node. Never waits.
    pub(crate) fn deliver(&self, message: &Message) {
        if message.kind == MessageKind::Destroyed {
            self.table().destroyed.fetch_add(1, Relaxed); // before the look-up below, see `enter`
        }
        if message.kind == MessageKind::Said
            && let Some(speaker) = &message.who
            && let Some(speaker) = self.node.connection_table().find(speaker)
        {
            speaker.spoken();
        }
        let Some(local) = self.local(&message.room) else { return };
        if let (MessageKind::Left(joined_at), Some(who)) = (message.kind, &message.who)
            && !self.table().told.is_new(&message.room, who, joined_at)
        {
            return;
        }
        let hooks = &self.node.registry().recipient_hooks;
        if message.kind == MessageKind::Said && !hooks.is_empty() {
            return self.deliver_one_by_one(&local, message);
        }
        let members = local.members();
        for member in members.values() {
            member.push(Frame::Text(message.payload.clone()));
        }
        self.node.metrics().room_deliveries.increment(members.len() as u64);
        drop(members);
        if message.kind == MessageKind::Destroyed {
            self.empty(&message.room, &local);
        }
    }

    /// The hooks run without any lock, so they may look at connections and rooms; who has left meanwhile is passed over.
    fn deliver_one_by_one(&self, local: &Local, message: &Message) {
        let Some(said) = Said::from_payload(&message.payload) else { return };
        let everybody: Vec<Connection> = local.members().values().cloned().collect();
        for member in &everybody {
            let mut own: Option<Said> = None;
            let mut heard = true;
            for hook in &self.node.registry().recipient_hooks {
                match self.node.caught_in_place(|| hook.say(member, own.as_ref().unwrap_or(&said))) {
                    Some(Heard::Unchanged) => {}
                    Some(Heard::Instead(other)) => own = Some(other),
                    Some(Heard::Nothing) | None => {
                        heard = false;
                        break;
                    }
                }
            }
            if heard {
                let payload = own.as_ref().map_or_else(|| message.payload.clone(), Said::to_payload);
                let members = local.members();
                if members.get(member.id()) == Some(member) {
                    member.push(Frame::Text(payload));
                    self.node.metrics().room_deliveries.increment(1);
                }
            }
        }
    }

    /// A destroyed room lets its members go, on a task of its own: their leave hooks may wait.
    fn empty(&self, room: &Arc<str>, local: &Local) {
        let members: Vec<Connection> = local.members().values().cloned().collect();
        for member in &members {
            self.exit(member, room);
        }
        let (rooms, room) = (self.clone(), room.clone());
        self.node.clone().shutdown().spawn(async move {
            for member in members {
                rooms.ask_leave_hooks(member.id(), &room, Leaving::RoomDestroyed(&member)).await;
                rooms.node.tell(&Event::Left(room.clone(), member));
            }
        });
    }

    async fn ask_leave_hooks(&self, id: &ConnectionId, room: &str, why: Leaving<'_>) {
        for hook in &self.node.registry().room_hooks {
            self.node.guarded("leave", async { drop(hook.leave(&self.node, room, id, why).await) }).await;
        }
    }

    async fn speak(&self, speaker: Option<&Connection>, said: Said) -> Result<(), ActionError> {
        let mut said = said;
        for hook in &self.node.registry().room_hooks {
            match self.node.caught(hook.on_say(&self.node, said)).await?? {
                Some(changed) => said = changed,
                None => {
                    self.node.metrics().room_dropped.increment(1);
                    return Ok(());
                }
            }
        }
        let payload = said.to_payload();
        if payload.len() as u64 > self.node.config().rooms.max_message.as_u64() + payload::ENVELOPE {
            return Err(ActionError::of(ErrorKind::PayloadTooLarge, "the message is too large for a room"));
        }
        let speaking = match speaker {
            Some(speaker) => Some(speaker.speak(self.node.config().rooms.max_undelivered as u32).await),
            None => None,
        };
        let id = speaker.map(|speaker| speaker.id().clone());
        let message = Message { room: said.room, kind: MessageKind::Said, who: id, payload };
        self.node.bus().publish(message).await?;
        speaking.into_iter().for_each(Speaking::published);
        self.node.metrics().room_messages.increment(1);
        Ok(())
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
        if connection.joined().names.len() >= self.node.config().websocket.max_rooms {
            return Err(ActionError::conflict("the connection is in as many rooms as it may be"));
        }
        Ok(())
    }

    /// Subscribes to the room and lists the connection as its member.
    async fn become_member(&self, connection: &Connection, room: &Arc<str>) -> Result<Membership, ActionError> {
        let subscription = self.node.bus().subscribe(room).await?;
        let joined_at = self.node.now_ms();
        let member = Member { id: connection.id().clone(), joined_at };
        match self.node.room_store().join(room, &member, self.node.generation()).await? {
            Joined::New => Ok(Membership { joined_at, subscription }),
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
        joined.names.push((room.clone(), membership.joined_at));
        tell(done, Ok(()));
        Entered::In
    }

    /// Takes a connection out of the delivery set.
    fn exit(&self, connection: &Connection, room: &Arc<str>) {
        connection.joined().names.retain(|(name, _)| name != room);
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

    async fn check_member(&self, connection: &Connection, room: &str) -> Result<(), ActionError> {
        match connection.is_in(room) {
            true => Ok(()),
            false if self.exists(room).await? => Err(ActionError::forbidden("the connection is not in this room")),
            false => Err(no_room()),
        }
    }

    /// Checks that a connection may look at a room: it must be a member.
    pub(crate) async fn status_for(&self, connection: &Connection, room: &str) -> Result<RoomStatus, ActionError> {
        self.check_member(connection, room).await?;
        self.status(room).await
    }

    fn said(&self, room: Arc<str>, from: Arc<str>, message: Box<RawValue>) -> Said {
        Said { room, from, sent_at: self.node.now_ms(), message }
    }

    fn local(&self, room: &Arc<str>) -> Option<Arc<Local>> {
        self.table().rooms.read().unwrap_or_else(PoisonError::into_inner).get(room).cloned()
    }

    fn table(&self) -> &Table {
        self.node.room_table()
    }
}

/// What a connection that was listed as a member takes along into the delivery set.
struct Membership {
    joined_at: u64,
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

fn to_raw<T: Serialize + ?Sized>(message: &T) -> Result<Box<RawValue>, ActionError> {
    serde_json::value::to_raw_value(message).map_err(ActionError::internal)
}

fn no_room() -> ActionError {
    ActionError::not_found("there is no such room")
}

/// A room's name is 1 to 100 of `A-Z a-z 0-9 : . _ -`.
pub(crate) fn check_name(room: &str) -> Result<(), ActionError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":._-".contains(&byte);
    if (1..=100).contains(&room.len()) && room.bytes().all(allowed) {
        return Ok(());
    }
    let detail = Detail::new("room", "pattern", "must be 1 to 100 characters of A-Z a-z 0-9 : . _ -");
    Err(ActionError::invalid_input(vec![detail]))
}

#[cfg(test)]
mod tests;
