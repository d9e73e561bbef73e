//! One connected client, as the rest of the world holds it: a cheap handle over an outbox, attributes and flags.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::error::{ActionError, ErrorKind};
use crate::hooks::Said;
use crate::metrics::bound_reached;
use crate::node::Generation;
use crate::rooms::Stays;

mod attributes;
mod close;
mod outbox;
mod place;

pub use attributes::Attributes;
pub use close::{ApplicationCode, CloseReason};
pub use outbox::{Frame, Next, OutboxLimit};
use outbox::{Outbox, Queued};
pub use place::ActionPlace;

/// How long a speaker waits for the next of its own messages that are on their way.
const UNDELIVERED: Duration = Duration::from_secs(5);

/// Names one connection in the whole cluster: `<generation of its node>-<22 random characters>`. Opaque to clients.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(Arc<str>);

impl ConnectionId {
    /// Most bytes of an id that an application gives.
    pub const MAX_BYTES: usize = 128;

    /// Takes an id from outside.
    ///
    /// # Errors
    ///
    /// `invalid_input` if it is empty, longer than [`ConnectionId::MAX_BYTES`] or not printable ASCII.
    pub fn parse(text: &str) -> Result<Self, ActionError> {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > Self::MAX_BYTES || !printable {
            let message = "a connection id is 1 to 128 printable ASCII characters";
            return Err(ActionError::of(ErrorKind::InvalidInput, message));
        }
        Ok(Self(text.into()))
    }

    pub(crate) fn ours(text: String) -> Self {
        Self(text.into())
    }

    /// The generation of the node that owns it, if the id says so.
    pub fn owner(&self) -> Option<Generation> {
        let (generation, rest) = self.0.split_once('-')?;
        Generation::parse(generation).filter(|_| rest.len() == 22)
    }

    /// Whether an application must not give it: it is the server's, or names a node as its owner.
    pub fn is_reserved(&self) -> bool {
        &*self.0 == Said::SERVER || self.owner().is_some()
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a new connection starts with.
#[derive(Debug)]
pub struct NewConnection {
    /// Its name.
    pub id: ConnectionId,
    /// Ties the calls and sockets of one browser together.
    pub fingerprint: Arc<str>,
    /// Where the client is.
    pub remote: SocketAddr,
    /// What the connect hook noted of it.
    pub attributes: Attributes,
    /// Unix time in milliseconds.
    pub connected_at: u64,
    /// What may wait for the client.
    pub outbox: OutboxLimit,
}

/// One connected client. Cheap to clone; every clone is the same connection.
///
/// Pushing, evicting and stopping are one queue, some flags and one wake-up; nobody ever waits for a client.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

/// Laid out as it is declared: what a broadcast touches comes first, for it meets every member's cold.
#[repr(C)]
struct Shared {
    outbox: Mutex<Outbox>,
    wake: AtomicWaker,
    limit: OutboxLimit,
    ending: AtomicBool,
    heard: AtomicBool,
    pending: AtomicU32,
    id: ConnectionId,
    fingerprint: Arc<str>,
    remote: SocketAddr,
    connected_at: u64,
    attributes: Mutex<Attributes>,
    rooms: Mutex<Stays>,
    /// Held while a membership changes, so that join, leave and the end of a connection happen one after the other.
    membership: tokio::sync::Mutex<()>,
    total: AtomicU64,
    undelivered: AtomicU32,
    delivered: Notify,
    gone: OnceLock<CancellationToken>,
}

impl Connection {
    /// Makes a connection that no registry knows yet.
    pub fn new(new: NewConnection) -> Self {
        Self(Arc::new(Shared {
            id: new.id,
            fingerprint: new.fingerprint,
            remote: new.remote,
            connected_at: new.connected_at,
            limit: new.outbox,
            outbox: Mutex::default(),
            wake: AtomicWaker::new(),
            attributes: Mutex::new(new.attributes),
            rooms: Mutex::default(),
            membership: tokio::sync::Mutex::new(()),
            heard: AtomicBool::new(true),
            ending: AtomicBool::new(false),
            pending: AtomicU32::new(0),
            total: AtomicU64::new(0),
            undelivered: AtomicU32::new(0),
            delivered: Notify::new(),
            gone: OnceLock::new(),
        }))
    }

    /// Its name in the cluster.
    pub fn id(&self) -> &ConnectionId {
        &self.0.id
    }

    /// Ties the calls and sockets of one browser together.
    pub fn fingerprint(&self) -> &str {
        &self.0.fingerprint
    }

    /// Where the client is.
    pub fn remote(&self) -> SocketAddr {
        self.0.remote
    }

    /// When it came, Unix time in milliseconds.
    pub fn connected_at(&self) -> u64 {
        self.0.connected_at
    }

    /// Queues a frame. A client whose outbox is full is closed as slow, never waited for.
    ///
    /// Says whether the frame was queued.
    pub fn push(&self, frame: Frame) -> bool {
        let queued = self.queue(frame);
        self.0.wake.wake();
        queued
    }

    /// Whether a frame could be queued if nothing else were: to push one that could not ends the connection as slow.
    pub fn could_hold(&self, frame: &Frame) -> bool {
        frame.len() <= self.0.limit.bytes
    }

    /// Queues a frame without waking the connection's task: for that task itself.
    pub fn queue(&self, frame: Frame) -> bool {
        let queued = self.outbox().push(frame, self.0.limit);
        if queued == Queued::Overflow {
            self.leave();
        }
        queued == Queued::Yes
    }

    /// Asks the connection to end. The first reason stands, but for a node that stops: it waits for what it accepted,
    /// and any other reason ends the waiting. What is queued goes out first where it can.
    pub fn close(&self, reason: CloseReason) {
        {
            let mut outbox = self.outbox();
            if outbox.is_cut_off() || outbox.closing == Some(reason) {
                return;
            }
            outbox.end(reason);
        }
        self.leave();
        self.0.wake.wake();
    }

    /// Breaks the connection off, whatever it was asked before.
    pub(crate) fn break_off(&self) {
        self.outbox().closing = Some(CloseReason::Broken);
        self.leave();
        self.0.wake.wake();
    }

    /// Whether it was asked to end.
    pub fn is_closing(&self) -> bool {
        self.0.ending.load(Relaxed)
    }

    /// Whether nothing can reach its client any more. A node that stops still answers what it accepted.
    pub fn has_left(&self) -> bool {
        self.outbox().is_cut_off()
    }

    /// Why it ends, once it does.
    pub fn closing(&self) -> Option<CloseReason> {
        self.outbox().closing
    }

    /// Completes when nothing can reach its client any more.
    pub async fn gone(&self) {
        let token = self.0.gone.get_or_init(CancellationToken::new);
        if !self.has_left() {
            token.cancelled().await;
        }
    }

    fn leave(&self) {
        self.0.ending.store(true, Relaxed);
        if let Some(token) = self.0.gone.get()
            && self.has_left()
        {
            token.cancel();
        }
        self.0.delivered.notify_waiters();
    }

    /// Asks the connection's task to write a protocol ping.
    pub fn ping(&self) {
        self.outbox().ping = true;
        self.0.wake.wake();
    }

    /// What its task does next.
    pub fn next(&self) -> Next {
        self.outbox().next()
    }

    /// Has the connection's task polled again when there is something to do. The task registers first and looks then,
    /// so no wake-up is lost; only one task may.
    pub fn register(&self, task: &Waker) {
        self.0.wake.register(task);
    }

    /// Notes that the client was heard.
    pub fn hear(&self) {
        self.0.heard.store(true, Relaxed);
    }

    /// Whether the client was heard since this was asked last. Who was not pinged yet, because frames are still on
    /// their way to it, counts as heard: it was not asked to speak.
    pub fn was_heard(&self) -> bool {
        self.0.heard.swap(false, Relaxed) || self.outbox().ping
    }

    /// The names of the rooms it is in.
    pub fn rooms(&self) -> Vec<Arc<str>> {
        self.joined().names().cloned().collect()
    }

    /// Whether it is in that room.
    pub fn is_in(&self, room: &str) -> bool {
        self.joined().find(room).is_some()
    }

    /// Reads an attribute.
    pub fn get(&self, key: &str) -> Option<Value> {
        self.attributes().map.get(key).cloned()
    }

    /// Sets an attribute and answers the one it replaces; `null` removes it.
    ///
    /// # Errors
    ///
    /// `payload_too_large` if all attributes together would be larger than `websocket.max_attributes`.
    pub fn set(&self, key: impl Into<String>, value: impl Into<Value>) -> Result<Option<Value>, ActionError> {
        self.attributes().set(key, value)
    }

    /// All attributes.
    pub fn all_attributes(&self) -> BTreeMap<String, Value> {
        self.attributes().map.clone()
    }

    pub(crate) fn joined(&self) -> MutexGuard<'_, Stays> {
        self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn membership(&self) -> &tokio::sync::Mutex<()> {
        &self.0.membership
    }

    /// Counts a message of its own that is on its way, once fewer than `limit` are. If none of them arrives for
    /// [`UNDELIVERED`], none will: they were lost, or went where nobody of this node listens.
    pub(crate) async fn speak(&self, limit: u32) -> Speaking<'_> {
        loop {
            let delivered = self.0.delivered.notified();
            let free = |n: u32| (n < limit).then_some(n + 1);
            if self.0.undelivered.fetch_update(Relaxed, Relaxed, free).is_ok() || self.closing().is_some() {
                return Speaking(self);
            }
            bound_reached("rooms.max_undelivered");
            if timeout(UNDELIVERED, delivered).await.is_err() {
                self.all_spoken();
            }
        }
    }

    /// A message of its own was delivered on this node, or never published.
    pub(crate) fn spoken(&self) {
        let before = self.0.undelivered.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
        if before.is_ok() {
            self.0.delivered.notify_waiters();
        }
    }

    /// None of its messages counts as on its way any more: they may have been missed.
    pub(crate) fn all_spoken(&self) {
        self.0.undelivered.store(0, Relaxed);
        self.0.delivered.notify_waiters();
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.0.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attributes(&self) -> MutexGuard<'_, Attributes> {
        self.0.attributes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message that counts as on its way; dropped before it is published, it no longer does.
#[derive(Debug)]
pub(crate) struct Speaking<'a>(&'a Connection);

impl Speaking<'_> {
    /// From here on its delivery ends the count.
    pub(crate) fn published(self) {
        std::mem::forget(self);
    }
}

impl Drop for Speaking<'_> {
    fn drop(&mut self) {
        self.0.spoken();
    }
}

impl PartialEq for Connection {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Connection {}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.0.id)
    }
}

#[cfg(test)]
mod tests;
