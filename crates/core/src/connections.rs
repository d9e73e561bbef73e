//! This node's registry of connections, and calls to a connection wherever it lives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use dashmap::DashMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout};

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

/// A call that was begun: its answer, or what has to be waited for.
pub(crate) type Begun = Result<Result<Value, ApplyError>, Slow>;

/// A call that has something to wait for.
pub(crate) enum Slow {
    RoomAdd(Connection, String),
    RoomLeave(Connection, String),
    SendFile(Connection, String),
    /// A method of the application, on a connection or on the node.
    Remote(Option<Connection>, Value),
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
            return match self.begin_on(connection, method, args) {
                Ok(answer) => answer,
                // In a box of its own: what answers at once is cheap to move.
                Err(slow) => Box::pin(self.finish(slow, method, limit)).await,
            };
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
        match self.begin(id, method, args) {
            Ok(answer) => answer,
            Err(slow) => Box::pin(self.finish(slow, method, limit)).await,
        }
    }

    /// Answers such a call if it has nothing to wait for; else [`Connections::finish`] does.
    pub(crate) fn begin(&self, id: Option<&ConnectionId>, method: &str, args: Value) -> Begun {
        match id {
            Some(id) => match self.local(id) {
                Some(connection) => self.begin_on(connection, method, args),
                None => Ok(Err(ApplyError::NotFound)),
            },
            None => Err(Slow::Remote(None, args)),
        }
    }

    fn begin_on(&self, connection: Connection, method: &str, args: Value) -> Begun {
        if connection.has_left() {
            return Ok(Err(ApplyError::NotFound));
        }
        let done = |done: Result<(), ApplyError>| Ok(done.map(|()| Value::Bool(true)));
        match BuiltIn::read(method, args) {
            Ok(Ok(BuiltIn::Details)) => Ok(Ok(details(&connection))),
            Ok(Ok(BuiltIn::Get(key))) => Ok(Ok(connection.get(&key).unwrap_or_default())),
            Ok(Ok(BuiltIn::Set(key, value))) => done(connection.set(key, value).map(drop).map_err(ApplyError::from)),
            Ok(Ok(BuiltIn::SendMessage(message))) => done(send_json(&connection, &message)),
            Ok(Ok(BuiltIn::Destroy(reason))) => {
                connection.close(reason);
                done(Ok(()))
            }
            Ok(Ok(BuiltIn::SendFile(path))) => Err(Slow::SendFile(connection, path)),
            Ok(Ok(BuiltIn::RoomAdd(room))) => Err(Slow::RoomAdd(connection, room)),
            Ok(Ok(BuiltIn::RoomLeave(room))) => Err(Slow::RoomLeave(connection, room)),
            Ok(Err(args)) => Err(Slow::Remote(Some(connection), args)),
            Err(refused) => Ok(Err(refused.into())),
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

    /// Waits for what a call has to wait for, as long as its caller or its method says.
    pub(crate) async fn finish(&self, slow: Slow, method: &str, limit: Option<Duration>) -> Result<Value, ApplyError> {
        let own = self.node.registry().remote(method).map_or(Deadline::Default, |def| def.deadline);
        let limit = match (limit, own) {
            (Some(limit), _) | (None, Deadline::After(limit)) => limit,
            (None, Deadline::Default) => self.node.config().general.rpc_timeout,
            (None, Deadline::Never) => return self.run(slow, method, None).await,
        };
        let call = self.run(slow, method, Instant::now().checked_add(limit));
        timeout(limit, call).await.unwrap_or(Err(ApplyError::Late))
    }

    async fn run(&self, slow: Slow, method: &str, deadline: Option<Instant>) -> Result<Value, ApplyError> {
        let rooms = self.node.rooms();
        match slow {
            Slow::RoomAdd(connection, room) => rooms.join(&connection, &room).await?,
            Slow::RoomLeave(connection, room) => rooms.leave(&connection, &room).await?,
            Slow::SendFile(connection, path) => {
                let most = self.node.config().websocket.max_file.as_u64();
                let file = self.node.files().read_for_socket(&path, most).await?;
                send_json(&connection, &file_message(&file))?;
            }
            Slow::Remote(connection, args) => {
                let def = self.node.registry().remote(method).ok_or(ApplyError::UnknownMethod)?;
                return self.run_remote(connection, def, args, deadline).await;
            }
        }
        Ok(Value::Bool(true))
    }

    async fn run_remote(
        &self,
        connection: Option<Connection>,
        def: &'static RemoteDef,
        args: Value,
        deadline: Option<Instant>,
    ) -> Result<Value, ApplyError> {
        let args = match args {
            Value::Null => Value::Object(Map::new()),
            Value::Object(_) => args,
            _ => return Err(wrong("", "object", "the arguments must be an object").into()),
        };
        let text = serde_json::value::to_raw_value(&args).map_err(ActionError::internal)?;
        let caller = Arc::new(connection.map_or_else(Caller::internal, Caller::socket));
        let context = Context::new(self.node.clone(), def.name, caller, self.node.next_request(), deadline);
        let answer = self.node.caught((def.run)(context, Params::from_raw_json(text)?)).await??;
        match answer {
            Answer { content: Content::Json(_), .. } => Ok(answer.decode()?),
            Answer { content: Content::Body(_), .. } => {
                Err(ActionError::internal("a remote method cannot answer a body").into())
            }
        }
    }

    fn table(&self) -> &Table {
        self.node.connection_table()
    }
}

/// Queues a message for a client. One that ends takes no more: it is as if it had gone before.
fn send_json(connection: &Connection, message: &impl Serialize) -> Result<(), ApplyError> {
    let frame = Frame::Text(serde_json::to_vec(message).map_err(ActionError::internal)?.into());
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
