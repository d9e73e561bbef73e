//! Speaks with Actionhero nodes on their own channel, for as long as a cluster moves from them to ours.
//!
//! They shut down where one of them meets an error in what another asks. So nothing is sent that could be one: no
//! method they lack, no attribute in the place of a field of theirs, no message to a client but an object and over a
//! WebSocket, and nobody is taken out of a room by them: see `rooms`.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::Script;
use phalanx_core::backend::{Arrival, BackendError, Foreign, Message};
use phalanx_core::hooks::Said;
use phalanx_core::{ActionError, ApplyError, BuiltIn, ConnectionId, Detail, ErrorKind, bound_reached};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::client::Client;
use crate::envelope::Refusal;
use crate::keys::Keys;
use crate::publisher::Publisher;
use crate::subscriber::Subscriber;

mod rooms;
mod wire;

use wire::{Heard, Wire};

/// Answers that wait to be published; beyond, they are dropped and counted, and who asked waits in vain.
const ANSWERS: usize = 1024;

/// Most characters of what others have us log.
const LOGGED: usize = 1000;

/// What a field of their connections is called, or of every object there: never the name of an attribute.
const THEIR_FIELDS: [&str; 40] = [
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

/// What a node needs to be heard there.
#[derive(Clone)]
pub struct InteropSettings {
    /// Their channel.
    pub channel: String,
    /// What they know of each other, in the clear.
    pub token: String,
    /// The cluster's name: its nodes pass over what they write there.
    pub cluster: String,
    /// Most bytes of what is said in a room.
    pub max_message: usize,
    /// Most bytes of a call's arguments.
    pub max_call: usize,
    /// Most calls that wait for an answer.
    pub max_calls: usize,
}

/// The ear on their channel.
pub(crate) struct Ear {
    channel: String,
    wire: Wire,
    waiting: Mutex<HashMap<String, oneshot::Sender<Value>>>,
    max_calls: usize,
    answers: mpsc::Sender<Vec<u8>>,
}

impl Ear {
    /// An ear, and the answers that are to be published.
    pub(crate) fn new(node: &str, settings: InteropSettings) -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (answers, to_publish) = mpsc::channel(ANSWERS);
        let wire = Wire::new(&settings.cluster, node, &settings.token, settings.max_message, settings.max_call);
        let (channel, max_calls) = (settings.channel, settings.max_calls);
        (Self { channel, wire, waiting: Mutex::default(), max_calls, answers }, to_publish)
    }

    pub(crate) fn channel(&self) -> &str {
        &self.channel
    }

    /// What their members of a room are told beside ours.
    pub(crate) fn said(&self, message: &Message) -> Option<Vec<u8>> {
        Said::from_payload(&message.payload).map(|said| self.wire.said(&said))
    }

    /// Reads what came, and says what of it concerns the node.
    pub(crate) fn open(&self, bytes: &[u8], now_ms: u64) -> Result<Option<Arrival>, Refusal> {
        match self.wire.read(bytes, now_ms)? {
            Heard::Said(message) => return Ok(Some(Arrival::Message(message))),
            Heard::Asked(asked) => return Ok(Some(Arrival::Asked(asked))),
            Heard::Answer { to, answer } => {
                if let Some(waiting) = self.waiting().remove(&to) {
                    let _ = waiting.send(answer); // who no longer waits was told
                }
            }
            Heard::Log { by, severity, text, reply_to } => {
                log(&by, &severity, &text);
                self.answers.try_send(self.wire.answer(&reply_to, None)).map_err(|_| {
                    bound_reached("interop_answers");
                    Refusal::QueueFull
                })?;
            }
            Heard::Nothing => {}
        }
        Ok(None)
    }

    /// Ends the wait of all calls: their answers may have been missed.
    pub(crate) fn missed(&self) {
        self.waiting().clear();
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Value>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As theirs, but never more than a line, and none that breaks out of it.
fn log(by: &str, severity: &str, text: &str) {
    let text: String = text.chars().take(LOGGED).collect();
    match severity {
        "alert" | "crit" | "emerg" | "error" | "warning" => warn!(by, severity, ?text, "a foreign node says"),
        _ => info!(by, severity, ?text, "a foreign node says"),
    }
}

/// Publishes answers, one after the other, for as long as the ear is there.
pub(crate) async fn publish_answers(ear: Arc<Ear>, publisher: Publisher, mut answers: mpsc::Receiver<Vec<u8>>) {
    while let Some(answer) = answers.recv().await {
        if let Err(error) = publisher.publish_in_clear(ear.channel.clone(), answer).await {
            warn!(%error, "an answer to a foreign node was not sent");
        }
    }
}

/// Actionhero nodes, as ours reach them.
pub struct Interop {
    ear: Arc<Ear>,
    client: Client,
    keys: Keys,
    publisher: Publisher,
    subscriber: Subscriber,
    calls: AtomicU64,
    listed: Script,
    leave: Script,
}

/// A call that waits; dropped, it waits no more.
struct Waiting<'a> {
    ear: &'a Ear,
    id: String,
    answer: oneshot::Receiver<Value>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.ear.waiting().remove(&self.id);
    }
}

impl Interop {
    pub(crate) fn new(ear: Arc<Ear>, client: Client, keys: Keys, publisher: Publisher, subscriber: Subscriber) -> Self {
        let listed = Script::new(include_str!("lua/rooms/interop_memberships.lua"));
        let leave = Script::new(include_str!("lua/rooms/interop_leave.lua"));
        Self { ear, client, keys, publisher, subscriber, calls: AtomicU64::new(0), listed, leave }
    }

    /// Begins to wait for an answer.
    fn wait(&self) -> Result<Waiting<'_>, ActionError> {
        // Unlike that of any other node, even one of the same name that lived before.
        let id = format!("{:016x}-{}", rand::random::<u64>(), self.calls.fetch_add(1, Relaxed));
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.ear.waiting();
        // Asked while nobody else ends the wait of all: who begins later sees that it is away.
        if !self.subscriber.is_up() {
            let away = "an answer would not arrive: the subscription to redis is away";
            return Err(BackendError::unavailable(away).into());
        }
        if waiting.len() >= self.ear.max_calls {
            bound_reached("cluster.max_calls");
            return Err(ActionError::of(ErrorKind::Unavailable, "the node waits for as many calls as it may")
                .with_retry_after(Duration::from_secs(1)));
        }
        waiting.insert(id.clone(), sender);
        Ok(Waiting { ear: &self.ear, id, answer })
    }

    /// Runs a method there, or none, and answers what is known of the connection then; `None` if nobody answered.
    async fn ask(&self, id: &str, method: &str, args: Value, by: Instant) -> Result<Option<Value>, ApplyError> {
        let mut waiting = self.wait()?;
        let args = if method.is_empty() { json!([id, null, null]) } else { json!([id, method, args]) };
        let call = self.ear.wire.call(&waiting.id, "api.connections.applyResponder", id, &args);
        let sent = timeout_at(by, self.publisher.publish_in_clear(self.ear.channel.clone(), call)).await;
        sent.map_err(|_| ApplyError::Late)?.map_err(ActionError::from)?;
        match timeout_at(by, &mut waiting.answer).await {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(_)) => Err(BackendError::unavailable("the subscription to redis broke off").into()),
            Err(_) => Ok(None),
        }
    }

    async fn details(&self, id: &str, by: Instant) -> Result<Value, ApplyError> {
        self.ask(id, "", Value::Null, by).await?.ok_or(ApplyError::Late)
    }

    /// Their other connections do not survive to be sent anything: an HTTP response may be written already.
    async fn check_websocket(&self, id: &str, by: Instant) -> Result<(), ApplyError> {
        match self.details(id, by).await?["type"].as_str() {
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

impl fmt::Debug for Interop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interop")
    }
}

#[async_trait]
impl Foreign for Interop {
    async fn apply(&self, id: &ConnectionId, call: BuiltIn, limit: Duration) -> Result<Value, ApplyError> {
        let (id, by) = (id.as_str(), Instant::now() + limit);
        let (method, args) = match call {
            BuiltIn::Details => return self.details(id, by).await,
            BuiltIn::Get(key) => {
                let mut details = self.details(id, by).await?;
                return Ok(details.get_mut(&key).map(Value::take).unwrap_or_default());
            }
            BuiltIn::RoomLeave(room) => return self.leave(&room, id, by).await.map(|()| Value::Bool(true)),
            BuiltIn::RoomAdd(_) => return Err(ApplyError::UnknownMethod), // they have it, and cannot run it
            BuiltIn::Set(key, _) if THEIR_FIELDS.contains(&key.as_str()) => {
                let detail = Detail::new("key", "reserved", "is a field of connections of foreign nodes");
                return Err(ActionError::invalid_input(vec![detail]).into());
            }
            BuiltIn::Set(key, value) => ("set", json!([key, value])),
            BuiltIn::SendMessage(message) => {
                self.check_websocket(id, by).await?;
                ("sendMessage", Value::Object(message))
            }
            BuiltIn::SendFile(path) if path.is_empty() || path.contains(char::is_control) => {
                return Err(ActionError::not_found("there is no such file").into());
            }
            BuiltIn::SendFile(path) => {
                self.check_websocket(id, by).await?;
                ("sendFile", Value::String(path))
            }
            BuiltIn::Destroy(_) => {
                // Theirs has no codes. It leaves all its rooms, which it must still be in.
                self.settle(id, None, by).await?;
                ("destroy", json!([]))
            }
        };
        self.ask(id, method, args, by).await?.map(|_| Value::Bool(true)).ok_or(ApplyError::Late)
    }

    async fn dismiss(&self, farewell: &Message) -> Result<(), BackendError> {
        self.empty(farewell).await
    }

    async fn reply(&self, reply_to: &str, answer: Value) -> Result<(), BackendError> {
        let answer = self.ear.wire.answer(reply_to, Some(answer));
        self.publisher.publish_in_clear(self.ear.channel.clone(), answer).await
    }
}
