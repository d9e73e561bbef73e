//! Calls to a connection by its id: local or remote.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::error::ApplyError;
use super::execute::{Executor, Started};
use super::pending::RemoteCalls;
use crate::connection::Connection;
use crate::id::ConnectionId;
use crate::tags::{TaggedConnections, Tags};

/// The connections of the cluster: those of this node by their handles, all others by [`Connections::apply`]. Cheap to
/// clone.
///
/// ```
/// use phalanx_core::config::Config;
/// use phalanx_core::{ApplyError, ConnectionId, Engine, NodeSetup};
/// use serde_json::json;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::start(NodeSetup::new("docs", Config::default())).await?;
/// let id = ConnectionId::parse("user-ada")?;
/// // Sends the client a message, wherever it is connected.
/// match engine.node().connections().apply(&id, "sendMessage", json!({ "text": "hello" })).await {
///     Ok(_) => println!("it is queued"),
///     Err(ApplyError::NotFound) => println!("ada is not connected"),
///     Err(error) => return Err(error.into()),
/// }
/// # engine.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connections {
    executor: Executor,
    calls: Arc<RemoteCalls>,
    tags: Tags,
}

impl Connections {
    pub(crate) fn new(executor: Executor, calls: Arc<RemoteCalls>, tags: Tags) -> Self {
        Self { executor, calls, tags }
    }

    /// The handle of a connection of this node.
    pub fn local(&self, id: &ConnectionId) -> Option<Connection> {
        self.executor.registry.find(id)
    }

    /// The number of connections of this node.
    pub fn count(&self) -> usize {
        self.executor.registry.len()
    }

    /// Handles of all connections of this node.
    pub fn all(&self) -> Vec<Connection> {
        self.executor.registry.all()
    }

    /// All connections of the cluster with that tag: see [`Connection::tag`].
    pub fn tagged(&self, tag: &str) -> TaggedConnections {
        TaggedConnections::of_application(&self.tags, tag)
    }

    /// All connections of the cluster whose session is that user's.
    pub fn user(&self, user: &str) -> TaggedConnections {
        TaggedConnections::of_user(&self.tags, user)
    }

    /// Runs `method` on a connection, wherever it is, and returns its result.
    ///
    /// Looks in this node's registry first, and otherwise calls the node that owns the connection, and no other: an id
    /// names its owner, unless the application gave it; then all nodes are called. Built in are `details` (also the
    /// empty name), `set` `[key, value]`, `get` `[key]`, `sendMessage` the message, `sendFile` the path, `roomAdd` and
    /// `roomLeave` `[room]`, `destroy` with a close code from 4500 to 4999, or none; an application adds its own by
    /// `#[remote]`. Waits at most `general.rpc_timeout`, or as long as the method's own deadline says. Cancel safe:
    /// dropping the future drops a call that runs here; one that was sent to another node runs on there.
    ///
    /// # Errors
    ///
    /// [`ApplyError::NotFound`] if no connection has `id`; [`ApplyError::UnknownMethod`] if `method` is neither built
    /// in nor registered; [`ApplyError::Unreachable`] if its node does not receive, so that nothing ran;
    /// [`ApplyError::Late`] if no reply came in time, or its node was reaped meanwhile; [`ApplyError::Refused`] with the
    /// method's own error, or `unavailable` if the backend does not answer.
    pub async fn apply(&self, id: &ConnectionId, method: &str, args: Value) -> Result<Value, ApplyError> {
        self.apply_within(id, method, args, None).await
    }

    /// Does the same with a deadline of the caller's own.
    ///
    /// # Errors
    ///
    /// Those of [`Connections::apply`].
    pub async fn apply_within(
        &self,
        id: &ConnectionId,
        method: &str,
        args: Value,
        limit: Option<Duration>,
    ) -> Result<Value, ApplyError> {
        if let Some(connection) = self.local(id) {
            return match self.executor.start_on(connection, method, args) {
                Started::Done(result) => result,
                // In a box of its own: a call that is over at once is cheap to move.
                Started::Pending(pending) => Box::pin(self.executor.finish(pending, method, limit)).await,
            };
        }
        self.calls.call_connection(id, method, args, limit).await
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connections({})", self.count())
    }
}
