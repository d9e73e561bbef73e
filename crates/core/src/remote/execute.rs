//! Executes a method where its connection is: built-in operations here, an application's methods through the engine.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout};

use super::built_in::{ParsedCall, in_context, parse};
use super::error::ApplyError;
use crate::connection::{Connection, Frame};
use crate::connections::ConnectionRegistry;
use crate::error::{ActionError, Detail, ErrorKind};
use crate::files::PublicFiles;
use crate::future::Deadline;
use crate::id::ConnectionId;
use crate::metrics::bound_reached;
use crate::operation::Operation;
use crate::protocol::{FileMessage, FilePush, encode};
use crate::rooms::Rooms;

/// The remote methods of the application. The engine implements this.
#[async_trait]
pub(crate) trait ApplicationMethods: Send + Sync {
    /// The deadline of a method; the default one also for a method that does not exist.
    fn deadline(&self, method: &str) -> Deadline;

    /// Runs a method on a connection, or on the node.
    async fn run(
        &self,
        connection: Option<Connection>,
        method: &str,
        args: Value,
        deadline: Option<Instant>,
    ) -> Result<Value, ApplyError>;
}

/// Executes methods on this node's connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) registry: Arc<ConnectionRegistry>,
    pub(crate) rooms: Rooms,
    pub(crate) files: Arc<PublicFiles>,
    pub(crate) application: Arc<dyn ApplicationMethods>,
    /// The largest file for a socket, in bytes.
    pub(crate) max_file: u64,
    /// The deadline of a method without one of its own.
    pub(crate) rpc_timeout: Duration,
}

/// A call that was started.
pub(crate) enum Started {
    /// It is over.
    Done(Result<Value, ApplyError>),
    /// It has something to wait for: see [`Executor::finish`].
    Pending(PendingMethod),
}

/// The rest of a call that waits.
pub(crate) enum PendingMethod {
    RoomAdd(Connection, String),
    RoomLeave(Connection, String),
    SendFile(Connection, String),
    /// A method of the application, on a connection or on the node.
    Application(Option<Connection>, Value),
}

impl Executor {
    /// Executes a call on a connection of this node, or on the node itself.
    pub(crate) async fn execute(
        &self,
        id: Option<&ConnectionId>,
        method: &str,
        args: Value,
        limit: Option<Duration>,
    ) -> Result<Value, ApplyError> {
        match self.start(id, method, args) {
            Started::Done(result) => result,
            // In a box of its own: a call that is over at once is cheap to move.
            Started::Pending(pending) => Box::pin(self.finish(pending, method, limit)).await,
        }
    }

    /// Starts a call: completes it if it has nothing to wait for.
    pub(crate) fn start(&self, id: Option<&ConnectionId>, method: &str, args: Value) -> Started {
        match id {
            Some(id) => match self.registry.find(id) {
                Some(connection) => self.start_on(connection, method, args),
                None => Started::Done(Err(ApplyError::NotFound)),
            },
            None => Started::Pending(PendingMethod::Application(None, args)),
        }
    }

    /// Starts a call on a connection of this node.
    pub(crate) fn start_on(&self, connection: Connection, method: &str, args: Value) -> Started {
        if connection.is_cut_off() {
            return Started::Done(Err(ApplyError::NotFound));
        }
        let operation = match parse(method, args) {
            Ok(ParsedCall::BuiltIn(operation)) => operation,
            Ok(ParsedCall::Application(args)) => {
                return Started::Pending(PendingMethod::Application(Some(connection), args));
            }
            Err(refused) => return Started::Done(Err(refused.into())),
        };
        let done = |done: Result<(), ApplyError>| Started::Done(done.map(|()| Value::Bool(true)));
        match operation {
            Operation::Details => Started::Done(details(&connection)),
            Operation::Get(key) => Started::Done(Ok(connection.get(&key).unwrap_or_default())),
            Operation::Set(key, value) => done(connection.set(key, value).map(drop).map_err(ApplyError::from)),
            Operation::SendMessage(message) => done(send_json(&connection, &message)),
            Operation::Destroy(reason) => {
                connection.close(reason);
                done(Ok(()))
            }
            Operation::File(path) => Started::Pending(PendingMethod::SendFile(connection, path)),
            Operation::RoomAdd(room) => Started::Pending(PendingMethod::RoomAdd(connection, room)),
            Operation::RoomLeave(room) => Started::Pending(PendingMethod::RoomLeave(connection, room)),
            Operation::RoomView(..) | Operation::Say(..) | Operation::Quit => {
                Started::Done(Err(ApplyError::UnknownMethod))
            }
        }
    }

    /// Finishes a call that waits: for `limit`, else for the method's own deadline, else for `general.rpc_timeout`.
    pub(crate) async fn finish(
        &self,
        pending: PendingMethod,
        method: &str,
        limit: Option<Duration>,
    ) -> Result<Value, ApplyError> {
        let Some(limit) = self.limit_of(method, limit) else { return self.run(pending, method, None).await };
        let call = self.run(pending, method, Instant::now().checked_add(limit));
        timeout(limit, call).await.unwrap_or(Err(ApplyError::Late))
    }

    /// How long a call waits: the caller's limit, else the method's own, else the settings'.
    pub(crate) fn limit_of(&self, method: &str, limit: Option<Duration>) -> Option<Duration> {
        limit.or_else(|| self.application.deadline(method).limit(self.rpc_timeout))
    }

    async fn run(&self, pending: PendingMethod, method: &str, deadline: Option<Instant>) -> Result<Value, ApplyError> {
        match pending {
            PendingMethod::RoomAdd(connection, room) => self.rooms.join(&connection, &room).await?,
            PendingMethod::RoomLeave(connection, room) => self.rooms.leave(&connection, &room).await?,
            PendingMethod::SendFile(connection, path) => {
                let push = |file: &FileMessage| encode(&FilePush::new(file));
                send(&connection, self.files.read_for_socket(&path, self.max_file, push).await?)?;
            }
            PendingMethod::Application(connection, args) => {
                return self.application.run(connection, method, args, deadline).await;
            }
        }
        Ok(Value::Bool(true))
    }
}

impl Connection {
    /// Sends a message to the client of this connection, which is of this node. An object brings its own `context`, which is
    /// `response` if it has none; anything else travels as `message`. `Ok` means that it is queued.
    ///
    /// For a connection that is known by its id alone, see [`Connections::apply`](super::Connections::apply) with `sendMessage`;
    /// for all connections of a user, [`Connections::user`](super::Connections::user).
    ///
    /// # Errors
    ///
    /// `payload_too_large` beyond `websocket.outbox_bytes`; `not_found` if the connection closes.
    pub fn send<T: Serialize + ?Sized>(&self, message: &T) -> Result<(), ActionError> {
        let message = serde_json::to_value(message).map_err(ActionError::internal)?;
        Ok(send_json(self, &in_context(message))?)
    }
}

/// Queues a message for a client. A connection that closes takes no more: it counts as gone.
fn send_json(connection: &Connection, message: &impl Serialize) -> Result<(), ApplyError> {
    send(connection, serde_json::to_vec(message).map_err(ActionError::internal)?.into())
}

fn send(connection: &Connection, text: Bytes) -> Result<(), ApplyError> {
    let frame = Frame::Text(text);
    if !connection.fits_outbox(&frame) {
        bound_reached("websocket.outbox_bytes");
        let message = "the message is larger than websocket.outbox_bytes";
        return Err(ActionError::of(ErrorKind::PayloadTooLarge, message).into());
    }
    if connection.push(frame) { Ok(()) } else { Err(ApplyError::NotFound) }
}

/// The attributes of a connection, and over them the server's own fields.
fn details(connection: &Connection) -> Result<Value, ApplyError> {
    let mut details: Map<String, Value> = connection.all_attributes().into_iter().collect();
    let known = serde_json::to_value(connection.remote_details()).map_err(ActionError::internal)?;
    if let Value::Object(known) = known {
        details.extend(known);
    }
    Ok(Value::Object(details))
}

/// The error for arguments that do not fit a method.
pub(crate) fn invalid_args(path: &str, code: &'static str, message: &'static str) -> ActionError {
    ActionError::invalid_input(vec![Detail::new(path, code, message)])
}
