//! The seam for rooms: their names and their members, in the whole cluster.

use std::sync::Arc;

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
    /// It was not, because its node was reaped. The reaper announces the leave.
    Reaped,
    /// It was not, because the incarnation of the room that it had joined was destroyed.
    Destroyed,
    /// It was not, and neither is the reason: the backend has lost the entry.
    Lost,
}

/// A membership, as the node of the connection holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldMember {
    /// The room.
    pub room: Arc<str>,
    /// The connection.
    pub member: Member,
    /// The incarnation that it joined.
    pub incarnation: Incarnation,
}

/// How a node lists its members again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relisting {
    /// The node.
    pub of: Generation,
    /// As for a join.
    pub number: u64,
    /// When the node took this generation because it was reaped, Unix time in milliseconds: a member that is not listed was
    /// removed by the reaper, and joins anew, no earlier than then. 0 if it was not reaped.
    pub renamed_ms: u64,
    /// Whether a room that is missing is created again, unless it is known to have been destroyed.
    pub creates_rooms: bool,
}

/// The outcome of listing a member again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelistOutcome {
    /// It was listed as it should be, in this incarnation of its room.
    Kept(Incarnation),
    /// It was not, and is now.
    Listed(Incarnation),
    /// The same, and it joined anew: a reaper had removed it.
    Rejoined(Incarnation),
    /// A connection of that id is a member on another node with a lease; nothing has changed.
    Elsewhere,
    /// Its room was closed a moment ago, and the last message takes the member out; nothing has changed.
    Closing,
    /// Its room was destroyed; nothing has changed.
    Destroyed,
    /// The room cannot be read; nothing has changed.
    Unreadable,
}

/// A membership, as it is stored under a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoredMember {
    /// The room.
    pub room: String,
    /// The connection.
    pub id: ConnectionId,
    /// When it joined, Unix time in milliseconds.
    pub joined_at: u64,
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
    ///
    /// # Errors
    ///
    /// `Refused`, as for joins and pages of members, while rooms are restored after a loss of data and this one is missing.
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

    /// Ends a membership of the node `of` in that incarnation of a room. A later one of the same connection stays.
    async fn leave(
        &self,
        room: &str,
        member: &Member,
        incarnation: Incarnation,
        of: Generation,
    ) -> Result<LeaveOutcome, BackendError>;

    /// Lists members of a node as it holds them, each with an outcome, in their order. One that is listed as it should be
    /// costs no write.
    ///
    /// # Errors
    ///
    /// `Unavailable` as well if the node was reaped, or if a [`RoomStore::remove_stored`] came first that raised the floor
    /// to this number.
    async fn relist(&self, how: &Relisting, members: &[HeldMember]) -> Result<Vec<RelistOutcome>, BackendError>;

    /// Reads a step of the memberships that are stored under a node, and the start of the next step; 0 is the first start,
    /// and the end. One that is there from the first step to the last is returned at least once.
    async fn stored(&self, of: Generation, start: u64) -> Result<(Vec<StoredMember>, u64), BackendError>;

    /// Removes memberships that are stored under a node, and from the rooms where the entry is the node's and has that time
    /// of joining. Joins of the node up to the number `floor` are late from here on. Returns how many were there, at least:
    /// those of a call that was repeated may not be counted.
    async fn remove_stored(&self, of: Generation, floor: u64, members: &[StoredMember]) -> Result<u64, BackendError>;

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
