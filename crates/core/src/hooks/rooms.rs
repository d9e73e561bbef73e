//! The arguments of the hooks of rooms.

use std::fmt;
use std::sync::Arc;

use super::LazyContext;
use crate::connection::Connection;
use crate::context::Context;
use crate::id::ConnectionId;
use crate::protocol::RoomMessage;
use crate::rooms::LeaveCause;

/// A connection that is about to join a room. Cheap to clone.
#[derive(Clone)]
pub struct Joining(RoomMove);

/// A connection that is about to leave a room, because that was requested. Cheap to clone.
#[derive(Clone)]
pub struct Leaving(RoomMove);

#[derive(Clone)]
struct RoomMove {
    context: LazyContext,
    room: Arc<str>,
    connection: Connection,
}

/// The methods that both have.
macro_rules! room_move {
    ($($name:ident),*) => {$(
        impl $name {
            pub(crate) const fn new(context: LazyContext, room: Arc<str>, connection: Connection) -> Self {
                Self(RoomMove { context, room, connection })
            }

            /// The context, whose caller is the connection.
            pub fn context(&self) -> &Context {
                self.0.context.get()
            }

            /// The room.
            pub fn room(&self) -> &str {
                &self.0.room
            }

            /// The connection.
            pub const fn connection(&self) -> &Connection {
                &self.0.connection
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut shown = f.debug_struct(stringify!($name));
                shown.field("room", &self.0.room).field("connection", &self.0.connection).finish_non_exhaustive()
            }
        }
    )*};
}

room_move!(Joining, Leaving);

/// A connection that has left a room. Cheap to clone.
#[derive(Clone)]
pub struct LeftRoom {
    context: LazyContext,
    room: Arc<str>,
    id: ConnectionId,
    cause: LeaveCause,
}

impl LeftRoom {
    pub(crate) const fn new(context: LazyContext, room: Arc<str>, id: ConnectionId, cause: LeaveCause) -> Self {
        Self { context, room, id, cause }
    }

    /// The context, whose caller is the connection; the application itself if the connection's node died.
    pub fn context(&self) -> &Context {
        self.context.get()
    }

    /// The room.
    pub fn room(&self) -> &str {
        &self.room
    }

    /// The id of the connection.
    pub const fn id(&self) -> &ConnectionId {
        &self.id
    }

    /// The connection; `None` if its node died.
    pub fn connection(&self) -> Option<&Connection> {
        self.context.connection()
    }

    /// Why it left.
    pub const fn cause(&self) -> LeaveCause {
        self.cause
    }
}

impl fmt::Debug for LeftRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("LeftRoom");
        shown.field("room", &self.room).field("id", &self.id).field("cause", &self.cause).finish_non_exhaustive()
    }
}

/// A message that is about to be published.
pub struct Publishing {
    context: LazyContext,
    message: RoomMessage,
}

impl Publishing {
    pub(crate) const fn new(context: LazyContext, message: RoomMessage) -> Self {
        Self { context, message }
    }

    /// The context, whose caller is the sender; the application itself for a message of the server.
    pub fn context(&self) -> &Context {
        self.context.get()
    }

    /// The room.
    pub fn room(&self) -> &str {
        &self.message.room
    }

    /// The connection that sends it; `None` for a message of the server.
    pub fn connection(&self) -> Option<&Connection> {
        self.context.connection()
    }

    /// The message.
    pub const fn message(&self) -> &RoomMessage {
        &self.message
    }

    /// Takes the message, to return it as it is or changed.
    pub fn into_message(self) -> RoomMessage {
        self.message
    }
}

impl fmt::Debug for Publishing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publishing").field("message", &self.message).finish_non_exhaustive()
    }
}

/// A message that is about to be delivered to one member of its room on this node.
#[derive(Clone, Copy, Debug)]
pub struct Delivering<'a> {
    to: &'a Connection,
    message: &'a RoomMessage,
}

impl<'a> Delivering<'a> {
    pub(crate) const fn new(to: &'a Connection, message: &'a RoomMessage) -> Self {
        Self { to, message }
    }

    /// The member.
    pub const fn connection(self) -> &'a Connection {
        self.to
    }

    /// The message. Its sender may be a connection of another node, of which only the id is known.
    pub const fn message(self) -> &'a RoomMessage {
        self.message
    }
}
