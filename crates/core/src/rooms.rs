//! Rooms: which there are, and who is in them on this node.
//!
//! One order for everybody: `say` publishes, and every node, the sender's too, delivers what it receives, in the order
//! in which it receives it. A connection is in the delivery set from the step that queues its `OK` on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use indexmap::IndexMap;

use crate::backend::{Added, Member, Members, Message, Subscription};
use crate::connection::{Connection, ConnectionId};
use crate::error::{ActionError, Detail, ErrorKind};
use crate::event::Event;
use crate::metrics::bound_reached;
use crate::node::Node;

mod farewell;
mod listing;
mod membership;
mod payload;
mod repair;
mod speech;
mod stays;

use repair::Told;

pub(crate) use payload::ENVELOPE;
pub(crate) use stays::Stays;

/// Members of rooms on this node.
#[derive(Default)]
pub(crate) struct Table {
    rooms: RwLock<HashMap<Arc<str>, Arc<Local>>>,
    /// Counts destroyed rooms, so that a join that ran meanwhile notices.
    destroyed: AtomicU64,
    /// Leaves that members heard of lately.
    told: Told,
    /// Leaves that were not written, because the backend was away.
    unwritten: Mutex<Vec<Unwritten>>,
    /// The last messages of rooms, which could not be told when they were destroyed.
    untold: Mutex<Vec<Message>>,
    /// Messages were missed: rooms may have been destroyed.
    missed: AtomicBool,
}

/// A leave that the backend does not know of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unwritten {
    room: Arc<str>,
    member: Member,
    /// The life of the room that may have heard of its join, and is to hear of its leave.
    heard: Option<u64>,
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
    /// `invalid_input` if the name cannot be one, `conflict` if the room exists, by the code `too_many_rooms` if there are
    /// `rooms.max_rooms`.
    pub async fn add(&self, room: &str) -> Result<(), ActionError> {
        check_name(room)?;
        match self.node.room_store().add(room, self.node.config().rooms.max_rooms).await? {
            Added::New => {
                self.node.tell(&Event::RoomAdded(room.into()));
                Ok(())
            }
            Added::Existing => Err(ActionError::conflict("the room exists")),
            Added::Full => {
                bound_reached("rooms.max_rooms");
                Err(ActionError::new(ErrorKind::Conflict, "too_many_rooms", "there are as many rooms as there may be"))
            }
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

    /// Checks that a connection may look at a room: it must be a member.
    pub(crate) async fn status_for(&self, connection: &Connection, room: &str) -> Result<RoomStatus, ActionError> {
        self.check_member(connection, room).await?;
        self.status(room).await
    }

    fn local(&self, room: &Arc<str>) -> Option<Arc<Local>> {
        self.table().rooms.read().unwrap_or_else(PoisonError::into_inner).get(room).cloned()
    }

    fn table(&self) -> &Table {
        self.node.room_table()
    }
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
