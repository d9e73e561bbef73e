//! The seam for rooms: their names and their members, in the whole cluster.

use async_trait::async_trait;

use super::error::BackendError;
use crate::id::{ConnectionId, Generation, Incarnation, MembersCursor};

/// One member of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The connection.
    pub id: ConnectionId,
    /// When it joined, Unix time in milliseconds.
    pub joined_at: u64,
}

/// The outcome of creating a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateOutcome {
    /// It was created.
    New,
    /// It existed before.
    Existing,
    /// The cluster has as many rooms as the settings allow.
    Full,
}

/// The outcome of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinOutcome {
    /// It is a member now, in this incarnation of the room.
    New(Incarnation),
    /// The same, instead of an entry without an owner: of a node that was reaped, or of its own node.
    Replaced(Incarnation),
    /// A connection of that id is a member on another node with a lease, in this incarnation; nothing has changed.
    Elsewhere(Incarnation),
    /// There is no such room.
    NoRoom,
    /// Nothing has changed: an undo came first that was for this join, or for one with a higher number.
    Late,
}

/// The outcome of a leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveOutcome {
    /// It was a member until now.
    Removed,
    /// It was not a member; with the room's present incarnation, if the room exists. If that is the incarnation that was
    /// joined, the node was reaped, and its reaper announces the leave.
    NotAMember(Option<Incarnation>),
}

/// A page of a room's members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Some or all of them.
    pub listed: Vec<Member>,
    /// How many there are.
    pub count: usize,
    /// The start of the next page, if there may be more members.
    pub next: Option<MembersCursor>,
}

/// Knows the rooms of the cluster and their members.
#[async_trait]
pub trait RoomStore: Send + Sync + 'static {
    /// Creates a room, unless there are `max` already.
    async fn create(&self, room: &str, max: usize) -> Result<CreateOutcome, BackendError>;

    /// Whether there is such a room.
    async fn exists(&self, room: &str) -> Result<bool, BackendError>;

    /// The names of all rooms, in no order.
    async fn list(&self) -> Result<Vec<String>, BackendError>;

    /// Closes a room: it no longer exists, and joins are refused. Returns its incarnation, also when repeated, until it is
    /// forgotten or created again; `None` if there is no such room.
    async fn close(&self, room: &str) -> Result<Option<Incarnation>, BackendError>;

    /// Forgets a room that was closed, and its members.
    async fn forget(&self, room: &str, incarnation: Incarnation) -> Result<(), BackendError>;

    /// Makes a connection of the node `of` a member; removed when that generation is reaped. The node gives each call a
    /// higher `number` than those before.
    ///
    /// # Errors
    ///
    /// `Unavailable` as well if `of` was reaped.
    async fn join(&self, room: &str, member: &Member, of: Generation, number: u64)
    -> Result<JoinOutcome, BackendError>;

    /// Undoes a join with an unknown outcome. From here on it is [`JoinOutcome::Late`] if it arrives after all, as are those
    /// of the same node with lower numbers. A later membership of the same connection stays. May be repeated.
    async fn undo_join(&self, room: &str, member: &Member, of: Generation, number: u64) -> Result<(), BackendError>;

    /// Ends a membership of the node `of`. A later one of the same connection stays.
    async fn leave(&self, room: &str, member: &Member, of: Generation) -> Result<LeaveOutcome, BackendError>;

    /// Lists at most `max` members, from the start or from the `next` of a page; `None` if there is no such room.
    ///
    /// Of one page after the other, until there is no `next`, each member that stays is on one at least. A page may have
    /// fewer members than `max` and a `next` all the same.
    async fn members_page(
        &self,
        room: &str,
        after: Option<&MembersCursor>,
        max: usize,
    ) -> Result<Option<Members>, BackendError>;

    /// Lists at most `max` members, on the first page.
    async fn members(&self, room: &str, max: usize) -> Result<Option<Members>, BackendError> {
        self.members_page(room, None, max).await
    }
}
