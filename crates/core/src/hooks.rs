//! Where an application is asked: connections that come, rooms that are joined, left and spoken in.
//!
//! A hook that panics refuses what it was asked for, as `internal`; where it cannot refuse, the panic is counted.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::connection::{Attributes, CloseReason, Connection, ConnectionId};
use crate::error::ActionError;
use crate::node::Node;
use crate::params::Params;

/// Asked when sockets come and go.
#[async_trait]
pub trait ConnectionHook: Send + Sync + 'static {
    /// Before the upgrade: looks at headers, query and cookies; may note attributes, give an id, or refuse.
    ///
    /// # Errors
    ///
    /// `unauthenticated` and `forbidden` are answered as 401 and 403 in place of the upgrade, others by their status.
    async fn connect(&self, node: &Node, handshake: &mut Handshake) -> Result<(), ActionError> {
        let _ = (node, handshake);
        Ok(())
    }

    /// After the connection is registered; what it is sent from here on follows its welcome.
    async fn created(&self, node: &Node, connection: &Connection) {
        let _ = (node, connection);
    }

    /// After it has left its rooms.
    async fn destroyed(&self, node: &Node, connection: &Connection, reason: CloseReason) {
        let _ = (node, connection, reason);
    }
}

/// What is known of a client before its upgrade, and what the connect hook decides of it.
#[derive(Debug)]
pub struct Handshake {
    /// The headers of the upgrade request.
    pub headers: HeaderMap,
    /// Its query.
    pub query: Params,
    /// Where the client is.
    pub remote: SocketAddr,
    /// Ties the calls and sockets of one browser together.
    pub fingerprint: Arc<str>,
    /// What to note of the connection.
    pub attributes: Attributes,
    /// An id of the application's own; such connections are found by asking every node. The server's, `"0"`, and those
    /// in the form of a node's own are refused as `invalid_input`.
    pub id: Option<ConnectionId>,
}

/// Asked when rooms are joined, left and spoken in.
#[async_trait]
pub trait RoomHook: Send + Sync + 'static {
    /// Before a connection joins.
    ///
    /// # Errors
    ///
    /// What the client is told instead; it does not join.
    async fn join(&self, node: &Node, room: &str, connection: &Connection) -> Result<(), ActionError> {
        let _ = (node, room, connection);
        Ok(())
    }

    /// When a connection leaves, once; until it is decided, no other join or leave of that connection goes on, so the
    /// hook must not wait for one.
    ///
    /// After the death of a node it runs on the one that cleans up; if that dies meanwhile, up to 200 may run again. So may
    /// the hook of a leave that was under way when its node died, and of one that ended while its node was cut off from the
    /// backend for so long that it was found dead.
    ///
    /// # Errors
    ///
    /// Refuses a leave that was asked for; has no effect otherwise.
    async fn leave(&self, node: &Node, room: &str, id: &ConnectionId, why: Leaving<'_>) -> Result<(), ActionError> {
        let _ = (node, room, id, why);
        Ok(())
    }

    /// Once per message, where it is spoken: may wait, change it, or drop it by `None`. Holds up its own speaker only.
    ///
    /// # Errors
    ///
    /// What the speaker is told instead of `OK`.
    async fn on_say(&self, node: &Node, said: Said) -> Result<Option<Said>, ActionError> {
        let _ = node;
        Ok(Some(said))
    }
}

/// Why a connection leaves a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving<'a> {
    /// It asked to, or another asked for it.
    Asked(&'a Connection),
    /// The connection ends.
    Ended(&'a Connection),
    /// The room is destroyed.
    RoomDestroyed(&'a Connection),
    /// Its node died: of the connection, nothing but the id is left.
    NodeDied,
}

/// Asked for each recipient of a message on this node. The only reason to encode a message more than once.
pub trait RecipientHook: Send + Sync + 'static {
    /// Decides what `to` hears. Must not block: it holds up the room.
    fn say(&self, to: &Connection, said: &Said) -> Heard;
}

/// What one recipient hears of a message.
#[derive(Debug)]
pub enum Heard {
    /// The message as it is.
    Unchanged,
    /// Another message in its place.
    Instead(Said),
    /// Nothing.
    Nothing,
}

/// A message of a room.
#[derive(Clone, Debug)]
pub struct Said {
    /// Where it is said.
    pub room: Arc<str>,
    /// Who says it: a connection's id, or `"0"` for the server.
    pub from: Arc<str>,
    /// Unix time in milliseconds.
    pub sent_at: u64,
    /// What is said: any JSON, as it came.
    pub message: Box<RawValue>,
}

impl Said {
    /// Who speaks for the server.
    pub const SERVER: &'static str = "0";

    /// Reads the message.
    ///
    /// # Errors
    ///
    /// `invalid_input` if it is not of that type.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ActionError> {
        serde_json::from_str(self.message.get())
            .map_err(|_| ActionError::of(crate::error::ErrorKind::InvalidInput, "the message has another shape"))
    }

    /// Replaces the message.
    ///
    /// # Errors
    ///
    /// `internal` if the value refuses to be encoded.
    pub fn with_message<T: Serialize + ?Sized>(mut self, message: &T) -> Result<Self, ActionError> {
        self.message = serde_json::value::to_raw_value(message).map_err(ActionError::internal)?;
        Ok(self)
    }
}
