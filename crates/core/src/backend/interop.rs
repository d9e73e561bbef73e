//! The seam to Actionhero nodes, which share rooms and connections with ours while a cluster moves from one to the other.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::error::BackendError;
use crate::error::ActionError;
use crate::id::ConnectionId;
use crate::operation::Operation;
use crate::protocol::RoomMessage;

/// A call of an Actionhero node to a connection.
#[derive(Clone, Debug)]
pub struct InteropCall {
    /// The connection; the call goes to every node, and only its owner replies.
    pub connection: ConnectionId,
    /// Methods and their arguments, run one after the other until one fails; the reply is the last one's result.
    pub methods: Vec<(String, Value)>,
    /// Ties the reply to the call.
    pub reply_to: Box<str>,
}

/// Why a call to an Actionhero node has no result.
#[derive(Debug, thiserror::Error)]
pub enum InteropError {
    /// Their connections have no such method; nothing was sent.
    #[error("connections of Actionhero have no such method")]
    UnknownMethod,
    /// None of them answered in time that the connection is theirs.
    #[error("no Actionhero node answered in time")]
    Late,
    /// The call would have shut them down, or could not be sent.
    #[error(transparent)]
    Refused(ActionError),
}

impl From<ActionError> for InteropError {
    fn from(error: ActionError) -> Self {
        Self::Refused(error)
    }
}

impl From<BackendError> for InteropError {
    fn from(error: BackendError) -> Self {
        Self::Refused(error.into())
    }
}

/// Reaches Actionhero nodes.
#[async_trait]
pub trait Interop: Send + Sync + 'static {
    /// Runs an operation on a connection of theirs. Cancel safe: a call that was sent runs on there.
    async fn apply(
        &self,
        connection: &ConnectionId,
        operation: Operation,
        limit: Duration,
    ) -> Result<Value, InteropError>;

    /// Delivers a room's last message to their members, and takes them out of it.
    ///
    /// # Errors
    ///
    /// `Unavailable` if some may still be members: their nodes do not survive a room that disappears under them.
    async fn evict_members(&self, last: &RoomMessage) -> Result<(), BackendError>;

    /// Replies to a call of theirs. They know no errors: a call that failed gets no reply.
    async fn reply(&self, reply_to: &str, result: Value) -> Result<(), BackendError>;
}
