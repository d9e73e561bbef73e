//! Hooks of an application: connections, rooms and their messages, enqueues.
//!
//! A hook that panics refuses, with `internal`; where it cannot refuse, the panic is counted.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderMap;

use crate::connection::{Attributes, Connection};
use crate::cookie::Cookies;
use crate::error::ActionError;
use crate::id::ConnectionId;
use crate::node::Node;
use crate::params::Params;
use crate::protocol::CloseReason;

pub use crate::protocol::RoomMessage;
pub use crate::rooms::{Delivery, LeaveCause};
pub use crate::task::JobDraft;

/// Hooks of sockets.
#[async_trait]
pub trait ConnectionHook: Send + Sync + 'static {
    /// Runs before the upgrade: sees headers, query and cookies; may set attributes and tags, give an id, or refuse.
    ///
    /// # Errors
    ///
    /// `unauthenticated` and `forbidden` are answered as 401 and 403 instead of the upgrade, others by their status.
    async fn connect(&self, node: &Node, handshake: &mut Handshake) -> Result<(), ActionError> {
        let _ = (node, handshake);
        Ok(())
    }

    /// Runs after the connection is registered; frames sent from here on follow its welcome.
    async fn created(&self, node: &Node, connection: &Connection) {
        let _ = (node, connection);
    }

    /// Runs after the connection has left its rooms.
    async fn destroyed(&self, node: &Node, connection: &Connection, reason: CloseReason) {
        let _ = (node, connection, reason);
    }
}

/// A client before its upgrade, and the decisions of the connect hook about it.
#[non_exhaustive]
pub struct Handshake {
    /// The headers of the upgrade request.
    pub headers: HeaderMap,
    /// Its query.
    pub query: Params,
    /// The client's address.
    pub remote: SocketAddr,
    /// Ties the calls and sockets of one browser together.
    pub fingerprint: Arc<str>,
    /// The attributes of the connection.
    pub attributes: Attributes,
    /// The tags of the connection, as [`Connection::tag`] gives them: they stand before the upgrade is answered, and it is
    /// refused with the error of one that cannot.
    pub tags: Vec<String>,
    /// An id of the application's own; a call to such a connection goes to every node. The server's, `"0"`, and ids in the
    /// form of a node's own are refused as `invalid_input`.
    pub id: Option<ConnectionId>,
}

impl Handshake {
    /// A client that was not decided on yet.
    pub const fn new(
        headers: HeaderMap,
        query: Params,
        remote: SocketAddr,
        fingerprint: Arc<str>,
        attributes: Attributes,
    ) -> Self {
        Self { headers, query, remote, fingerprint, attributes, tags: Vec::new(), id: None }
    }

    /// The cookies of the upgrade request.
    pub fn cookies(&self) -> Cookies<'_> {
        Cookies::of(&self.headers)
    }
}

/// Without the values of headers, which may be credentials.
impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { headers, remote, tags, id, .. } = self;
        let mut shown = f.debug_struct("Handshake");
        shown.field("remote", remote).field("id", id).field("tags", tags);
        shown.field("headers", &headers.keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

/// Hooks of rooms.
///
/// ```
/// use phalanx_core::hooks::{RoomHook, RoomMessage};
/// use phalanx_core::{ActionError, Connection, Node};
///
/// /// Only members of staff enter `staff`; empty messages are dropped.
/// struct Manners;
///
/// #[async_trait::async_trait]
/// impl RoomHook for Manners {
///     async fn join(&self, _: &Node, room: &str, connection: &Connection) -> Result<(), ActionError> {
///         if room != "staff" || connection.get("staff").is_some() {
///             return Ok(());
///         }
///         Err(ActionError::forbidden("staff only"))
///     }
///
///     async fn before_publish(&self, _: &Node, message: RoomMessage) -> Result<Option<RoomMessage>, ActionError> {
///         let is_empty = message.read::<String>().is_ok_and(|text| text.is_empty());
///         Ok((!is_empty).then_some(message))
///     }
/// }
///
/// # use std::sync::Arc;
/// # use phalanx_core::config::Config;
/// # use phalanx_core::{Engine, NodeSetup};
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mut setup = NodeSetup::new("docs", Config::default());
/// # setup.definitions.room_hooks.push(Arc::new(Manners));
/// # let engine = Engine::start(setup).await?;
/// # engine.node().rooms().create("staff").await?;
/// # engine.node().rooms().say("staff", "").await?;
/// # engine.stop().await;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait RoomHook: Send + Sync + 'static {
    /// Runs before a connection joins.
    ///
    /// # Errors
    ///
    /// Refuses the join; the client gets the error.
    async fn join(&self, node: &Node, room: &str, connection: &Connection) -> Result<(), ActionError> {
        let _ = (node, room, connection);
        Ok(())
    }

    /// Runs before a connection leaves because it, or another caller, requested that. Until it returns, no other join or
    /// leave of that connection proceeds, so the hook must not wait for one.
    ///
    /// # Errors
    ///
    /// Refuses the leave; the caller gets the error.
    async fn before_leave(&self, node: &Node, room: &str, connection: &Connection) -> Result<(), ActionError> {
        let _ = (node, room, connection);
        Ok(())
    }

    /// Runs when a connection has left, whatever the cause, at most for `general.action_deadline`. Until it returns, no
    /// other join or leave of that connection proceeds, so the hook must not wait for one.
    ///
    /// Runs once, also if the call that requested the leave is dropped. After the death of a node it runs on the node that
    /// reaps it; if that one dies meanwhile, up to 200 may run again. So may the hook of a leave that was in progress when its
    /// node died, and of one that ended while its node was cut off from the backend for so long that it was reaped. A connection
    /// that stays on such a node is a member again once the node is back, without another [`RoomHook::join`], and `left` runs
    /// once more when it leaves.
    async fn left(&self, node: &Node, room: &str, id: &ConnectionId, cause: LeaveCause<'_>) {
        let _ = (node, room, id, cause);
    }

    /// Runs once for each message, at its origin: may wait, change the message, or drop it by `None`. Delays its own sender
    /// only.
    ///
    /// # Errors
    ///
    /// Refuses the message; the sender gets the error instead of `OK`.
    async fn before_publish(&self, node: &Node, message: RoomMessage) -> Result<Option<RoomMessage>, ActionError> {
        let _ = node;
        Ok(Some(message))
    }
}

/// Runs for each recipient of a message on this node. The only reason to encode a message more than once, which is why it
/// is a trait of its own: rooms without such a hook hand on the bytes that they receive.
pub trait DeliverHook: Send + Sync + 'static {
    /// Decides about one recipient. Must not block: it delays the room.
    fn deliver(&self, to: &Connection, message: &RoomMessage) -> Delivery;
}

/// Hooks around enqueues.
///
/// ```
/// use phalanx_core::hooks::{JobDraft, TaskHook};
/// use phalanx_core::{ActionError, Node};
///
/// /// Jobs of tenants on trial wait behind those of others; a tenant that was closed has none.
/// struct Tenants;
///
/// #[async_trait::async_trait]
/// impl TaskHook for Tenants {
///     async fn before_enqueue(&self, _: &Node, job: &mut JobDraft<'_>) -> Result<(), ActionError> {
///         match job.meta("tenant") {
///             Some("closed") => return Err(ActionError::forbidden("the tenant was closed")),
///             Some("trial") => job.set_queue("low"),
///             _ => {}
///         }
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait TaskHook: Send + Sync + 'static {
    /// Runs on the node that enqueues, once for each job, also of [`enqueue_many`](crate::task::Tasks::enqueue_many), after
    /// its input was checked and before it is stored. May wait, and change the queue and the meta of the job. That it returns
    /// does not mean that the job will be stored: its id may be there already, or the backend may refuse.
    ///
    /// Does not run for ticks of periodic tasks, for jobs of other programs, and for a failed job that runs again, which it
    /// has seen. A job that the hook itself enqueues comes to the hook as well, eight deep at most: then
    /// it is refused with the code `hook_recursion`, kind `conflict`.
    ///
    /// All hooks of one call have `general.action_deadline` together, or 30 s without that.
    ///
    /// # Errors
    ///
    /// Refuses the job: the caller gets the error, and nothing is stored, of a call with many jobs none of them.
    async fn before_enqueue(&self, node: &Node, job: &mut JobDraft<'_>) -> Result<(), ActionError>;
}
