//! The seam for rooms: which exist, and who is in them, in the whole cluster.

use async_trait::async_trait;

use super::BackendError;
use crate::connection::ConnectionId;
use crate::node::Generation;

/// One member of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The connection.
    pub id: ConnectionId,
    /// When it joined, Unix time in milliseconds.
    pub joined_at: u64,
}

/// How adding a room ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It exists now.
    New,
    /// It existed before.
    Existing,
    /// There are as many rooms as there may be.
    Full,
}

/// How joining ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It is a member now, in this life of the room.
    New(u64),
    /// The same, in place of a membership that nobody holds any more: of a node that died, or of its own node.
    Anew(u64),
    /// A connection of that id is a member on another node that lives, in this life of the room; nothing has changed.
    Already(u64),
    /// There is no such room.
    NoRoom,
}

/// How leaving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It was a member until now.
    Now,
    /// It was none any more; and which life the room has, if there is one. If that is the life that was joined, the node
    /// was found dead, and who cleaned up after it tells the leave.
    Before(Option<u64>),
}

/// A room's members, as many as were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Some or all of them.
    pub listed: Vec<Member>,
    /// How many there are.
    pub count: usize,
}

/// Knows the rooms of the cluster and their members.
#[async_trait]
pub trait RoomStore: Send + Sync + 'static {
    /// Makes a room, unless there are `max` already.
    async fn add(&self, room: &str, max: usize) -> Result<Added, BackendError>;

    /// Whether there is such a room.
    async fn exists(&self, room: &str) -> Result<bool, BackendError>;

    /// The names of all rooms, in no order.
    async fn list(&self) -> Result<Vec<String>, BackendError>;

    /// Closes a room: it exists no more, and nobody joins it. Answers its life, also again, until it is forgotten or made
    /// again; `None` if there is no such room. Rooms of one name have one life after the other.
    async fn close(&self, room: &str) -> Result<Option<u64>, BackendError>;

    /// Forgets a room that was closed, and who was in it.
    async fn forget(&self, room: &str, life: u64) -> Result<(), BackendError>;

    /// Makes a connection of the node `of` a member; to be cleaned up after that generation.
    ///
    /// # Errors
    ///
    /// `Unavailable` as well if `of` was reaped.
    async fn join(&self, room: &str, member: &Member, of: Generation) -> Result<Joined, BackendError>;

    /// Ends a membership of the node `of`. A later one of the same connection stays.
    async fn leave(&self, room: &str, member: &Member, of: Generation) -> Result<Left, BackendError>;

    /// Lists at most `max` members; `None` if there is no such room.
    async fn members(&self, room: &str, max: usize) -> Result<Option<Members>, BackendError>;
}
