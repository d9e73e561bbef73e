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
pub enum LeaveCause<'a> {
    /// It requested to, or another caller did.
    Requested(&'a Connection),
    /// The connection closed.
    Closed(&'a Connection),
    /// The room was destroyed.
    RoomDestroyed(&'a Connection),
    /// Its node died: of the connection, only the id is known.
    NodeDied,
}

/// The same, for a future that owns it.
#[derive(Clone, Debug)]
pub(crate) enum LeftBy {
    Request(Connection),
    Close(Connection),
    Destruction(Connection),
    NodeDeath,
}

impl LeftBy {
    pub(crate) const fn cause(&self) -> LeaveCause<'_> {
        match self {
            Self::Request(connection) => LeaveCause::Requested(connection),
            Self::Close(connection) => LeaveCause::Closed(connection),
            Self::Destruction(connection) => LeaveCause::RoomDestroyed(connection),
            Self::NodeDeath => LeaveCause::NodeDied,
        }
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
    /// Whether there are room hooks: without them nothing is boxed and nothing waited for.
    fn has_room_hooks(&self) -> bool;

    /// Runs before a connection joins.
    async fn join(&self, room: &str, connection: &Connection) -> Result<(), ActionError>;

    /// Runs before a connection leaves because that was requested.
    async fn before_leave(&self, room: &str, connection: &Connection) -> Result<(), ActionError>;

    /// Runs when a connection has left, at most for `general.action_deadline`. The future owns what it needs: hooks run to
    /// their end, also if the call that requested the leave is dropped.
    fn left(self: Arc<Self>, room: Arc<str>, id: ConnectionId, by: LeftBy) -> BoxFuture<'static, ()>;

    /// Runs once for each message, at its origin; `None` drops the message.
    async fn before_publish(&self, message: RoomMessage) -> Result<Option<RoomMessage>, ActionError>;

    /// Whether there are deliver hooks: without them a message is never decoded again.
    fn has_deliver_hooks(&self) -> bool;

    /// Runs for each recipient of a message on this node.
    fn deliver(&self, to: &Connection, message: &RoomMessage) -> Delivery;
}
