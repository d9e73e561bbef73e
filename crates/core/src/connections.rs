//! This node's registry of connections, and calls to a connection wherever it lives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use dashmap::DashMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::action::Deadline;
use crate::answer::{Answer, Content};
use crate::connection::{CloseReason, Connection, ConnectionId, Frame};
use crate::context::{Caller, Context};
use crate::error::{ActionError, ErrorKind};
use crate::metrics::bound_reached;
use crate::node::Node;
use crate::params::Params;
use crate::rpc::{Remote, RemoteDef};

mod built_in;
mod seat;

pub use built_in::BuiltIn;
use built_in::wrong;
pub use seat::Seat;

/// The sockets of this node, by id. No guard of the map leaves it.
#[derive(Debug, Default)]
pub(crate) struct Table {
    map: DashMap<ConnectionId, Connection>,
    count: AtomicUsize,
}

impl Table {
    pub(crate) fn find(&self, id: &ConnectionId) -> Option<Connection> {
        self.map.get(id).map(|entry| entry.value().clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    pub(crate) fn all(&self) -> Vec<Connection> {
        self.map.iter().map(|entry| entry.value().clone()).collect()
    }
}

/// Why a call to a connection has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// No connection has that id.
    #[error("there is no such connection")]
    NotFound,
    /// The connection has no such method; nothing ran.
    #[error("connections have no such method")]
    UnknownMethod,
    /// Nobody listens at its node: nothing ran, it is safe to try again.
    #[error("the node of the connection cannot be reached")]
    Unreachable,
    /// No answer came in time; whether the method ran is unknown.
    #[error("the connection did not answer in time")]
    Late,
    /// The method's own error.
    #[error(transparent)]
    Refused(ActionError),
}

impl From<ApplyError> for ActionError {
    fn from(error: ApplyError) -> Self {
        let message = error.to_string();
        match error {
            ApplyError::NotFound => Self::not_found(message),
            ApplyError::UnknownMethod => Self::new(ErrorKind::NotFound, "unknown_method", message),
            ApplyError::Unreachable => {
                Self::new(ErrorKind::Unavailable, "unreachable", message).with_retry_after(Duration::from_secs(1))
            }
            ApplyError::Late => Self::new(ErrorKind::Timeout, "late", message),
            ApplyError::Refused(error) => error,
        }
    }
}

impl From<ActionError> for ApplyError {
    fn from(error: ActionError) -> Self {
        Self::Refused(error)
    }
}

/// The connections of the cluster: those of this node by their handles, all others by [`Connections::apply`].
#[derive(Clone, Debug)]
pub struct Connections {
    node: Node,
}

impl Connections {
    pub(crate) fn new(node: Node) -> Self {
        Self { node }
    }

    /// The handle of a connection of this node.
    pub fn local(&self, id: &ConnectionId) -> Option<Connection> {
        self.table().find(id)
    }

    /// How many connections this node has.
    pub fn count(&self) -> usize {
        self.table().len()
    }

    /// Handles of all connections of this node.
    pub fn all(&self) -> Vec<Connection> {
        self.table().all()
    }

    /// Runs `method` on a connection, wherever it lives, and answers what it answers.
    ///
    /// Looks in this node's registry first, and otherwise asks the node that owns the connection, and no other: an id
    /// names its owner, unless the application made it up; then all nodes are asked. Built in are `details` (also the
    /// empty name), `set` `[key, value]`, `get` `[key]`, `sendMessage` the message, `sendFile` the path, `roomAdd` and
    /// `roomLeave` `[room]`, `destroy` with a close code from 4500 to 4999, or none; an application adds its own by
    /// `#[remote]`. Waits at most `general.rpc_timeout`, or as long as the method's own deadline says. Cancel safe:
    /// dropping the future drops a call that runs here; one that went to another node runs on there.
    ///
    /// # Errors
    ///
    /// [`ApplyError::NotFound`] if no connection has `id`; [`ApplyError::UnknownMethod`] if `method` is neither built
    /// in nor registered; [`ApplyError::Unreachable`] if nobody listens at its node, so that nothing ran;
    /// [`ApplyError::Late`] if it did not answer in time, or its node was found dead meanwhile;
    /// [`ApplyError::Refused`] with the method's own error, or `unavailable` if the backend does not answer.
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
            return self.apply_here(&connection, method, args, limit).await;
        }
        let calls = self.node.calls();
        match id.owner() {
            Some(owner) if self.node.is_called(owner) => Err(ApplyError::NotFound),
            Some(owner) => calls.to_node(&self.node, owner, Some(id), method, args, limit).await,
            None => Box::pin(calls.to_owner(&self.node, id, method, args, limit)).await,
        }
    }

    /// Answers a call from anywhere: on a connection of this node, or on the node itself.
    pub(crate) async fn answer(
        &self,
        id: Option<&ConnectionId>,
        method: &str,
        args: Value,
        limit: Option<Duration>,
    ) -> Result<Value, ApplyError> {
        match id {
            Some(id) => {
                let connection = self.local(id).ok_or(ApplyError::NotFound)?;
                self.apply_here(&connection, method, args, limit).await
            }
            None => {
                let def = self.node.registry().remote(method).ok_or(ApplyError::UnknownMethod)?;
                Box::pin(self.in_time(limit, self.run_remote(None, def, args), method)).await
            }
        }
    }

    async fn apply_here(
        &self,
        connection: &Connection,
        method: &str,
        args: Value,
        limit: Option<Duration>,
    ) -> Result<Value, ApplyError> {
        if connection.has_left() {
            return Err(ApplyError::NotFound);
        }
        match BuiltIn::read(method, args)? {
            Ok(BuiltIn::Details) => Ok(details(connection)),
            Ok(BuiltIn::Get(key)) => Ok(connection.get(&key).unwrap_or_default()),
            Ok(BuiltIn::Set(key, value)) => {
                connection.set(key, value)?;
                Ok(Value::Bool(true))
            }
            Ok(BuiltIn::Destroy(reason)) => {
                connection.close(reason);
                Ok(Value::Bool(true))
            }
            Ok(BuiltIn::SendMessage(message)) => {
                send(connection, serde_json::to_vec(&message).map_err(ActionError::internal)?)?;
                Ok(Value::Bool(true))
            }
            // In a box of its own: what answers at once is cheap to move.
            slow => Box::pin(self.in_time(limit, self.apply_slow(connection, method, slow), method)).await,
        }
    }

    /// Runs a typed remote method on a connection, wherever it lives.
    ///
    /// # Errors
    ///
    /// Those of [`Connections::apply`].
    pub async fn call<R>(&self, id: &ConnectionId, input: R::Input) -> Result<R::Output, ApplyError>
    where
        R: Remote,
        R::Input: Serialize,
        R::Output: DeserializeOwned,
    {
        let input = serde_json::to_value(input).map_err(ActionError::internal)?;
        let answer = self.apply(id, R::DEF.name, input).await?;
        serde_json::from_value(answer).map_err(|error| ActionError::internal(error).into())
    }

    /// Pings every connection, and closes those that were not heard since the last ping.
    pub(crate) async fn sweep(&self) {
        // Who ends is not listened to any more, so that its silence means nothing.
        let listened_to = self.all().into_iter().filter(|connection| !connection.is_closing());
        for (n, connection) in listened_to.enumerate() {
            if connection.was_heard() {
                connection.ping()
            } else {
                connection.close(CloseReason::HeartbeatLost)
            }
            if n % 256 == 255 {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn apply_slow(
        &self,
        connection: &Connection,
        method: &str,
        call: Result<BuiltIn, Value>,
    ) -> Result<Value, ApplyError> {
        let rooms = self.node.rooms();
        match call {
            Ok(BuiltIn::RoomAdd(room)) => rooms.join(connection, &room).await?,
            Ok(BuiltIn::RoomLeave(room)) => rooms.leave(connection, &room).await?,
            Ok(BuiltIn::SendFile(path)) => {
                let most = self.node.config().websocket.max_file.as_u64();
                let file = self.node.files().read_for_socket(&path, most).await?;
                let text = serde_json::to_vec(&file_message(&file)).map_err(ActionError::internal)?;
                send(connection, text)?;
            }
            Ok(_) => {} // what does not wait is done by then
            Err(args) => {
                let def = self.node.registry().remote(method).ok_or(ApplyError::UnknownMethod)?;
                return self.run_remote(Some(connection), def, args).await;
            }
        }
        Ok(Value::Bool(true))
    }

    async fn run_remote(
        &self,
        connection: Option<&Connection>,
        def: &'static RemoteDef,
        args: Value,
    ) -> Result<Value, ApplyError> {
        let args = match args {
            Value::Null => Value::Object(Map::new()),
            Value::Object(_) => args,
            _ => return Err(wrong("", "object", "the arguments must be an object").into()),
        };
        let text = serde_json::value::to_raw_value(&args).map_err(ActionError::internal)?;
        let caller = Arc::new(connection.cloned().map_or_else(Caller::internal, Caller::socket));
        let context = Context::new(self.node.clone(), def.name, caller, self.node.next_request(), None);
        let answer = self.node.caught((def.run)(context, Params::from_raw_json(text)?)).await??;
        match answer {
            Answer { content: Content::Json(_), .. } => Ok(answer.decode()?),
            Answer { content: Content::Body(_), .. } => {
                Err(ActionError::internal("a remote method cannot answer a body").into())
            }
        }
    }

    async fn in_time(
        &self,
        limit: Option<Duration>,
        call: impl Future<Output = Result<Value, ApplyError>>,
        method: &str,
    ) -> Result<Value, ApplyError> {
        let own = self.node.registry().remote(method).map_or(Deadline::Default, |def| def.deadline);
        let limit = match (limit, own) {
            (Some(limit), _) | (None, Deadline::After(limit)) => limit,
            (None, Deadline::Default) => self.node.config().general.rpc_timeout,
            (None, Deadline::Never) => return call.await,
        };
        tokio::time::timeout(limit, call).await.unwrap_or(Err(ApplyError::Late))
    }

    fn table(&self) -> &Table {
        self.node.connection_table()
    }
}

/// Queues a message for a client. One that ends takes no more: it is as if it had gone before.
fn send(connection: &Connection, text: Vec<u8>) -> Result<(), ApplyError> {
    let frame = Frame::Text(text.into());
    if !connection.could_hold(&frame) {
        bound_reached("websocket.outbox_bytes");
        let message = "the message is larger than websocket.outbox_bytes";
        return Err(ActionError::of(ErrorKind::PayloadTooLarge, message).into());
    }
    if connection.push(frame) { Ok(()) } else { Err(ApplyError::NotFound) }
}

/// A connection as a caller from anywhere sees it: its attributes, and over them what the server knows.
fn details(connection: &Connection) -> Value {
    let attributes: BTreeMap<String, Value> = connection.all_attributes();
    let mut details: Map<String, Value> = attributes.into_iter().collect();
    let known = json!({
        "type": "websocket",
        "id": connection.id().as_str(),
        "fingerprint": connection.fingerprint(),
        "remoteIP": connection.remote().ip().to_string(),
        "remotePort": connection.remote().port(),
        "connectedAt": connection.connected_at(),
        "rooms": connection.rooms().iter().map(|room| &**room).collect::<Vec<_>>(),
        "pendingActions": connection.pending_actions(),
        "totalActions": connection.total_actions(),
        "destroyed": connection.closing().is_some(),
    });
    if let Value::Object(known) = known {
        details.extend(known);
    }
    Value::Object(details)
}

fn file_message(file: &crate::files::FileMessage) -> Value {
    let mut message = json!({
        "content": file.content,
        "mime": file.mime,
        "length": file.length,
        "lastModified": file.last_modified,
        "context": "response",
    });
    if let Some(encoding) = file.encoding {
        message["encoding"] = encoding.into();
    }
    message
}

#[cfg(test)]
mod tests;
