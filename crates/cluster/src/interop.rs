//! Exchanges messages with Actionhero nodes on their own channel, while a cluster migrates from Actionhero to Phalanx.
//!
//! An Actionhero node shuts down when a request from another node causes an error there. So nothing is sent that could
//! cause one: no method that Actionhero lacks, no attribute under the name of one of its fields, messages to clients
//! only as objects and only over a WebSocket, and no request to remove a member from a room: see `rooms`.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::Script;
use phalanx_core::backend::{BackendError, Incoming, Interop, InteropError};
use phalanx_core::operation::Operation;
use phalanx_core::protocol::RoomMessage;
use phalanx_core::{ActionError, ConnectionId, Detail, ErrorKind, bound_reached};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::client::RedisClient;
use crate::envelope::Refusal;
use crate::keys::Keys;
use crate::publisher::Publisher;
use crate::subscriber::Subscriber;

mod rooms;
mod wire;

use wire::{InteropCodec, InteropMessage};

/// The length of the queue of replies to publish. Beyond it they are dropped and counted, and the caller runs into its
/// timeout.
const REPLY_QUEUE: usize = 1024;

/// The most characters of a text that another node requests this one to log.
const MAX_LOGGED: usize = 1000;

/// The names of the fields of Actionhero's connections and of every JavaScript object. An attribute may not have them.
const RESERVED_FIELDS: [&str; 40] = [
    "id",
    "fingerprint",
    "type",
    "rooms",
    "canChat",
    "params",
    "pendingActions",
    "totalActions",
    "messageId",
    "connectedAt",
    "remoteIP",
    "remotePort",
    "rawConnection",
    "error",
    "extension",
    "destroyed",
    "response",
    "session",
    "messages",
    "setHeader",
    "setStatusCode",
    "matchedRoute",
    "pipe",
    "sendFile",
    "sendMessage",
    "generateID",
    "destroy",
    "set",
    "setup",
    "verbs",
    "constructor",
    "prototype",
    "__proto__",
    "toString",
    "toJSON",
    "valueOf",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
];

/// The settings for the exchange with Actionhero nodes.
#[derive(Clone)]
pub struct InteropSettings {
    /// The channel of Actionhero nodes.
    pub channel: String,
    /// The token of Actionhero nodes, which messages contain in the clear.
    pub token: String,
    /// The name of the cluster, whose nodes skip each other's messages on that channel.
    pub cluster: String,
    /// The most bytes of a room message.
    pub max_message: usize,
    /// The most bytes of the arguments of a call.
    pub max_call: usize,
    /// The most pending calls.
    pub max_calls: usize,
}

/// The channel of Actionhero nodes: encodes and decodes its messages, and completes pending calls.
pub(crate) struct InteropChannel {
    name: String,
    codec: InteropCodec,
    pending: Mutex<HashMap<String, oneshot::Sender<Value>>>,
    max_calls: usize,
    replies: mpsc::Sender<Vec<u8>>,
}

impl InteropChannel {
    /// Creates the channel, and the queue of the replies that are to be published.
    pub(crate) fn new(node: &str, settings: InteropSettings) -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (replies, to_publish) = mpsc::channel(REPLY_QUEUE);
        let codec =
            InteropCodec::new(&settings.cluster, node, &settings.token, settings.max_message, settings.max_call);
        let (name, max_calls) = (settings.channel, settings.max_calls);
        (Self { name, codec, pending: Mutex::default(), max_calls, replies }, to_publish)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Encodes a room message for Actionhero's members of the room.
    pub(crate) fn encode_chat(&self, message: &RoomMessage) -> Vec<u8> {
        self.codec.encode_chat(message)
    }

    /// Decodes a message. Replies and log lines are handled here; the rest is returned for the node.
    pub(crate) fn decode(&self, bytes: &[u8], now_ms: u64) -> Result<Option<Incoming>, Refusal> {
        match self.codec.decode(bytes, now_ms)? {
            InteropMessage::Chat(message) => return Ok(Some(Incoming::Publication(message))),
            InteropMessage::Call(call) => return Ok(Some(Incoming::InteropCall(call))),
            InteropMessage::Reply { to, value } => {
                if let Some(caller) = self.pending().remove(&to) {
                    let _ = caller.send(value); // a caller that no longer waits has reported its timeout
                }
            }
            InteropMessage::Log { by, severity, text, reply_to } => {
                log(&by, &severity, &text);
                self.replies.try_send(self.codec.encode_reply(&reply_to, None)).map_err(|_| {
                    bound_reached("interop_answers");
                    Refusal::QueueFull
                })?;
            }
            InteropMessage::Ignored => {}
        }
        Ok(None)
    }

    /// Fails all pending calls: their replies may have been missed.
    pub(crate) fn fail_pending_calls(&self) {
        self.pending().clear();
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Value>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs a text of an Actionhero node under its severity. The text is escaped and cut, so that it cannot start a new
/// line or flood the log.
fn log(by: &str, severity: &str, text: &str) {
    let text: String = text.chars().take(MAX_LOGGED).collect();
    match severity {
        "alert" | "crit" | "emerg" | "error" | "warning" => {
            warn!(by, severity, ?text, "log line of an Actionhero node")
        }
        _ => info!(by, severity, ?text, "log line of an Actionhero node"),
    }
}

/// Publishes the queued replies, one after the other, until the channel is dropped.
pub(crate) async fn publish_replies(
    channel: Arc<InteropChannel>,
    publisher: Publisher,
    mut replies: mpsc::Receiver<Vec<u8>>,
) {
    while let Some(reply) = replies.recv().await {
        if let Err(error) = publisher.publish_interop(channel.name.clone(), reply).await {
            warn!(%error, "a reply to an Actionhero node was not sent");
        }
    }
}

/// The seam to Actionhero nodes, over their channel and the shared rooms in Redis.
pub struct RedisInterop {
    channel: Arc<InteropChannel>,
    client: RedisClient,
    keys: Keys,
    publisher: Publisher,
    subscriber: Subscriber,
    /// The number of calls so far.
    calls: AtomicU64,
    memberships: Script,
    leave: Script,
}

/// A pending call, which is forgotten when this is dropped.
struct PendingInteropCall<'a> {
    channel: &'a InteropChannel,
    id: String,
    reply: oneshot::Receiver<Value>,
}

impl Drop for PendingInteropCall<'_> {
    fn drop(&mut self) {
        self.channel.pending().remove(&self.id);
    }
}

impl RedisInterop {
    pub(crate) fn new(
        channel: Arc<InteropChannel>,
        client: RedisClient,
        keys: Keys,
        publisher: Publisher,
        subscriber: Subscriber,
    ) -> Self {
        let memberships = Script::new(include_str!("lua/rooms/interop_memberships.lua"));
        let leave = Script::new(include_str!("lua/rooms/interop_leave.lua"));
        Self { channel, client, keys, publisher, subscriber, calls: AtomicU64::new(0), memberships, leave }
    }

    pub(crate) fn channel(&self) -> &InteropChannel {
        &self.channel
    }

    /// Registers a call whose reply is waited for.
    fn register_call(&self) -> Result<PendingInteropCall<'_>, ActionError> {
        // Random, so that it differs from the ids of all other nodes, and of an earlier run of this node.
        let id = format!("{:016x}-{}", rand::random::<u64>(), self.calls.fetch_add(1, Relaxed));
        let (sender, reply) = oneshot::channel();
        let mut pending = self.channel.pending();
        // Checked under the lock that `fail_pending_calls` takes, which runs after `is_up` turned false: a call that
        // is registered too late for it sees here that the subscription is down.
        if !self.subscriber.is_up() {
            let down = "a reply would not arrive: the subscription to redis is down";
            return Err(BackendError::unavailable(down).into());
        }
        if pending.len() >= self.channel.max_calls {
            bound_reached("cluster.max_calls");
            return Err(ActionError::of(ErrorKind::Unavailable, "the node waits for as many calls as it may")
                .with_retry_after(Duration::from_secs(1)));
        }
        pending.insert(id.clone(), sender);
        Ok(PendingInteropCall { channel: &self.channel, id, reply })
    }

    /// Runs a method on an Actionhero connection, or none if `method` is empty, and returns the details of the
    /// connection after it; `None` if no node replied before `deadline`.
    async fn call(
        &self,
        id: &str,
        method: &str,
        args: Value,
        deadline: Instant,
    ) -> Result<Option<Value>, InteropError> {
        let mut pending = self.register_call()?;
        let args = if method.is_empty() { json!([id, null, null]) } else { json!([id, method, args]) };
        let call = self.channel.codec.encode_call(&pending.id, "api.connections.applyResponder", id, &args);
        let sent = timeout_at(deadline, self.publisher.publish_interop(self.channel.name.clone(), call)).await;
        sent.map_err(|_| InteropError::Late)?.map_err(ActionError::from)?;
        match timeout_at(deadline, &mut pending.reply).await {
            Ok(Ok(reply)) => Ok(Some(reply)),
            Ok(Err(_)) => Err(BackendError::unavailable("the subscription to redis broke off").into()),
            Err(_) => Ok(None),
        }
    }

    async fn details(&self, id: &str, deadline: Instant) -> Result<Value, InteropError> {
        self.call(id, "", Value::Null, deadline).await?.ok_or(InteropError::Late)
    }

    /// Refuses any connection but a WebSocket. A message to another one may shut its node down: an HTTP response, for
    /// instance, may already be written.
    async fn require_websocket(&self, id: &str, deadline: Instant) -> Result<(), InteropError> {
        match self.details(id, deadline).await?["type"].as_str() {
            Some("websocket") => Ok(()),
            _ => Err(ActionError::of(ErrorKind::Forbidden, "only a websocket can be sent anything").into()),
        }
    }
}

impl fmt::Debug for InteropSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InteropSettings")
    }
}

impl fmt::Debug for RedisInterop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisInterop")
    }
}

#[async_trait]
impl Interop for RedisInterop {
    async fn apply(&self, id: &ConnectionId, operation: Operation, limit: Duration) -> Result<Value, InteropError> {
        let (id, deadline) = (id.as_str(), Instant::now() + limit);
        let (method, args) = match operation {
            Operation::Details => return self.details(id, deadline).await,
            Operation::Get(key) => {
                let mut details = self.details(id, deadline).await?;
                return Ok(details.get_mut(&key).map(Value::take).unwrap_or_default());
            }
            Operation::RoomLeave(room) => return self.leave(&room, id, deadline).await.map(|()| Value::Bool(true)),
            // Actionhero has this method, and fails when another node calls it.
            Operation::RoomAdd(_) => return Err(InteropError::UnknownMethod),
            // Verbs of a client, which no remote caller has.
            Operation::RoomView(..) | Operation::Say(..) | Operation::Quit => return Err(InteropError::UnknownMethod),
            Operation::Set(key, _) if RESERVED_FIELDS.contains(&key.as_str()) => {
                let detail = Detail::new("key", "reserved", "is a field of connections of foreign nodes");
                return Err(ActionError::invalid_input(vec![detail]).into());
            }
            Operation::Set(key, value) => ("set", json!([key, value])),
            Operation::SendMessage(message) => {
                self.require_websocket(id, deadline).await?;
                ("sendMessage", Value::Object(message))
            }
            Operation::File(path) if path.is_empty() || path.contains(char::is_control) => {
                return Err(ActionError::not_found("there is no such file").into());
            }
            Operation::File(path) => {
                self.require_websocket(id, deadline).await?;
                ("sendFile", Value::String(path))
            }
            Operation::Destroy(_) => {
                // Actionhero's `destroy` takes no close code. It leaves all rooms of the connection, so the connection
                // must still be a member of each of them.
                self.settle_rooms(id, None, deadline).await?;
                ("destroy", json!([]))
            }
        };
        self.call(id, method, args, deadline).await?.map(|_| Value::Bool(true)).ok_or(InteropError::Late)
    }

    async fn evict_members(&self, destroy_message: &RoomMessage) -> Result<(), BackendError> {
        self.evict_members_of(destroy_message).await
    }

    async fn reply(&self, reply_to: &str, value: Value) -> Result<(), BackendError> {
        let reply = self.channel.codec.encode_reply(reply_to, Some(value));
        self.publisher.publish_interop(self.channel.name.clone(), reply).await
    }
}
