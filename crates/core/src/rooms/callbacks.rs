//! The application's hooks, as rooms call them. The engine implements this with the hooks that authors write.

use std::sync::Arc;

use async_trait::async_trait;

use crate::connection::Connection;
use crate::error::ActionError;
use crate::future::BoxFuture;
use crate::id::ConnectionId;
use crate::protocol::RoomMessage;

/// Why a connection left a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaveCause {
    /// It requested to, or another caller did.
    Requested,
    /// The connection closed.
    Closed,
    /// The room was destroyed.
    RoomDestroyed,
    /// Its node died: of the connection, only the id is known.
    NodeDied,
}

/// The points at which rooms call hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoomPoint {
    Join,
    Leave,
    Left,
    Publish,
    Deliver,
}

/// A connection that has left a room.
#[derive(Clone, Debug)]
pub(crate) struct Leaver {
    pub(crate) id: ConnectionId,
    /// `None` if its node died.
    pub(crate) connection: Option<Connection>,
    pub(crate) cause: LeaveCause,
}

impl Leaver {
    pub(crate) fn of(connection: &Connection, cause: LeaveCause) -> Self {
        Self { id: connection.id().clone(), connection: Some(connection.clone()), cause }
    }

    /// A connection whose node died.
    pub(crate) const fn of_dead_node(id: ConnectionId) -> Self {
        Self { id, connection: None, cause: LeaveCause::NodeDied }
    }
}

/// The decision about one recipient of a message.
#[derive(Debug)]
pub enum Delivery {
    /// Deliver the message as it is.
    Unchanged,
    /// Deliver another message instead.
    Replace(RoomMessage),
    /// Deliver nothing.
    Drop,
}

/// Runs an application's hooks. A panic in a hook that can refuse is its refusal, `internal`.
#[async_trait]
pub(crate) trait RoomCallbacks: Send + Sync {
    /// Whether there are hooks at that point: without them nothing is boxed and nothing waited for, and a message is not decoded
    /// where it is delivered.
    fn has(&self, point: RoomPoint) -> bool;

    /// Runs before a connection joins.
    async fn before_join(&self, room: &Arc<str>, connection: &Connection) -> Result<(), ActionError>;

    /// Runs before a connection leaves because that was requested.
    async fn before_leave(&self, room: &Arc<str>, connection: &Connection) -> Result<(), ActionError>;

    /// Runs when a connection has left, at most for `general.action_deadline`. The future owns what it needs: hooks run to
    /// their end, also if the call that requested the leave is dropped.
    fn after_leave(self: Arc<Self>, room: Arc<str>, leaver: Leaver) -> BoxFuture<'static, ()>;

    /// Runs once for each message, at its origin; `None` drops the message.
    async fn before_publish(
        &self,
        sender: Option<&Connection>,
        message: RoomMessage,
    ) -> Result<Option<RoomMessage>, ActionError>;

    /// Runs for each recipient of a message on this node.
    fn before_deliver(&self, to: &Connection, message: &RoomMessage) -> Delivery;
}
