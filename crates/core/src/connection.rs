//! One connected client, as the rest of the world holds it: a cheap handle over an outbox, attributes and flags.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::{ActionError, ErrorKind};

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

/// What goes out over a socket. Encoded once; a clone shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// UTF-8 text.
    Text(Bytes),
    /// Anything else.
    Binary(Bytes),
}

impl Frame {
    /// How many bytes the frame carries.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether it carries none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a connection ends; the close code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client left, or asked to by `quit` (1000).
    ClientLeft,
    /// The node stops (1001).
    NodeStops,
    /// A binary frame came in (1003).
    Binary,
    /// Too many malformed frames (1008).
    Policy,
    /// A frame was over the limit (1009).
    TooBig,
    /// The client reads slower than its rooms speak (4001).
    SlowReader,
    /// Nothing was heard of the client for a whole heartbeat (4002).
    HeartbeatLost,
    /// The client went on sending over its rate (4003).
    RateLimited,
    /// The application destroyed the connection (4500).
    Destroyed,
    /// The network or the client broke the connection off; no code can be sent.
    Broken,
}

impl CloseReason {
    /// The close code; 4000 to 4499 mean *reconnect*, 4500 to 4999 *do not*.
    pub const fn code(self) -> u16 {
        match self {
            Self::ClientLeft => 1000,
            Self::NodeStops => 1001,
            Self::Binary => 1003,
            Self::Policy => 1008,
            Self::TooBig => 1009,
            Self::SlowReader => 4001,
            Self::HeartbeatLost => 4002,
            Self::RateLimited => 4003,
            Self::Destroyed => 4500,
            Self::Broken => 1006,
        }
    }

    /// Its name in logs, metrics and close frames.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientLeft => "client_left",
            Self::NodeStops => "node_stops",
            Self::Binary => "binary",
            Self::Policy => "policy",
            Self::TooBig => "too_big",
            Self::SlowReader => "slow_reader",
            Self::HeartbeatLost => "heartbeat_lost",
            Self::RateLimited => "rate_limited",
            Self::Destroyed => "destroyed",
            Self::Broken => "broken",
        }
    }

    /// Whether what is still queued for the client is given up: it does not read, or is not there.
    pub const fn abandons_outbox(self) -> bool {
        matches!(self, Self::SlowReader | Self::HeartbeatLost | Self::Broken)
    }
}

/// What an outbox holds at most.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimit {
    /// Frames.
    pub frames: usize,
    /// Bytes of all frames together.
    pub bytes: usize,
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

struct Shared {
    id: ConnectionId,
    fingerprint: Arc<str>,
    remote: SocketAddr,
    connected_at: u64,
    limit: OutboxLimit,
    outbox: Mutex<Outbox>,
    wake: AtomicWaker,
    attributes: Mutex<Attributes>,
    rooms: Mutex<JoinedRooms>,
    /// Held while a membership changes, so that join, leave and the end of a connection happen one after the other.
    membership: tokio::sync::Mutex<()>,
    heard: AtomicBool,
    ending: AtomicBool,
    pending: AtomicU32,
    total: AtomicU64,
    undelivered: AtomicU32,
    delivered: Notify,
    gone: OnceLock<CancellationToken>,
}

#[derive(Default)]
struct Outbox {
    frames: VecDeque<Frame>,
    bytes: usize,
    closing: Option<CloseReason>,
    ping: bool,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queued {
    Yes,
    /// The connection ends, for another reason.
    Closed,
    /// There was no room: the connection ends as slow.
    Overflow,
}

impl Outbox {
    fn push(&mut self, frame: Frame, limit: OutboxLimit) -> Queued {
        // A node that stops still answers what it accepted.
        if self.closing.is_some_and(|reason| reason != CloseReason::NodeStops) {
            return Queued::Closed;
        }
        let bytes = self.bytes + frame.len();
        if self.frames.len() >= limit.frames || bytes > limit.bytes {
            self.end(CloseReason::SlowReader);
            return Queued::Overflow;
        }
        self.bytes = bytes;
        self.frames.push_back(frame);
        Queued::Yes
    }

    fn end(&mut self, reason: CloseReason) {
        self.closing = Some(reason);
        if reason.abandons_outbox() {
            self.frames = VecDeque::new();
            self.bytes = 0;
        }
    }
}

/// The rooms a connection is in, as its own node knows them.
#[derive(Debug, Default)]
pub(crate) struct JoinedRooms {
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) ended: bool,
}

/// What a connection's task does next.
#[derive(Debug)]
pub enum Next {
    /// Write this frame.
    Frame(Frame),
    /// Write a protocol ping.
    Ping,
    /// Close; nothing comes after it.
    Close(CloseReason),
    /// Wait: whoever queues something wakes the task that was [registered](Connection::register).
    Nothing,
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

    /// Queues a frame without waking the connection's task: for that task itself.
    pub fn queue(&self, frame: Frame) -> bool {
        let queued = self.outbox().push(frame, self.0.limit);
        if queued == Queued::Overflow {
            self.leave();
        }
        queued == Queued::Yes
    }

    /// Queues the answer of a running action and gives its place back, in one step: a client that has the answer has
    /// the place, and a node that stops sees the answer before it sees that nothing runs.
    pub fn answer_action(&self, frame: Frame) {
        let queued = {
            let mut outbox = self.outbox();
            let queued = outbox.push(frame, self.0.limit);
            self.0.pending.fetch_sub(1, AcqRel);
            queued
        };
        if queued == Queued::Overflow {
            self.leave();
        }
        self.0.wake.wake();
    }

    /// Asks the connection to end. The first reason stands; what is queued goes out first where it can.
    pub fn close(&self, reason: CloseReason) {
        {
            let mut outbox = self.outbox();
            if outbox.closing.is_some() {
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
        self.closing().is_some_and(|reason| reason != CloseReason::NodeStops)
    }

    /// Why it ends, once it does.
    pub fn closing(&self) -> Option<CloseReason> {
        self.outbox().closing
    }

    /// Completes when the connection ends.
    pub async fn gone(&self) {
        let token = self.0.gone.get_or_init(CancellationToken::new);
        if self.closing().is_none() {
            token.cancelled().await;
        }
    }

    fn leave(&self) {
        self.0.ending.store(true, Relaxed);
        if let Some(token) = self.0.gone.get() {
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
        let mut outbox = self.outbox();
        if let Some(frame) = outbox.frames.pop_front() {
            outbox.bytes -= frame.len();
            return Next::Frame(frame);
        }
        if outbox.frames.capacity() > 64 {
            outbox.frames = VecDeque::new(); // a burst must not cost its memory for ever
        }
        if let Some(reason) = outbox.closing {
            return Next::Close(reason);
        }
        if std::mem::take(&mut outbox.ping) { Next::Ping } else { Next::Nothing }
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

    /// Whether the client was heard since this was asked last.
    pub fn was_heard(&self) -> bool {
        self.0.heard.swap(false, Relaxed)
    }

    /// Takes a place for a running action, if fewer than `limit` are taken.
    pub fn begin_action(&self, limit: usize) -> bool {
        self.0.total.fetch_add(1, Relaxed);
        let free = |pending: u32| ((pending as usize) < limit).then_some(pending + 1);
        self.0.pending.fetch_update(Relaxed, Relaxed, free).is_ok()
    }

    /// Gives the place of a running action back that has no answer to give.
    pub fn end_action(&self) {
        self.0.pending.fetch_sub(1, AcqRel);
        if self.is_closing() {
            self.0.wake.wake(); // a node that stops waits for the last of them
        }
    }

    /// How many of its actions run now.
    pub fn pending_actions(&self) -> u32 {
        self.0.pending.load(Acquire)
    }

    /// How many actions it ever asked for.
    pub fn total_actions(&self) -> u64 {
        self.0.total.load(Relaxed)
    }

    /// The names of the rooms it is in.
    pub fn rooms(&self) -> Vec<Arc<str>> {
        self.joined().names.clone()
    }

    /// Whether it is in that room.
    pub fn is_in(&self, room: &str) -> bool {
        self.joined().names.iter().any(|name| &**name == room)
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

    pub(crate) fn joined(&self) -> MutexGuard<'_, JoinedRooms> {
        self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn membership(&self) -> &tokio::sync::Mutex<()> {
        &self.0.membership
    }

    /// Counts a message of its own that is on its way, once fewer than `limit` are.
    pub(crate) async fn speak(&self, limit: u32) -> Speaking<'_> {
        loop {
            let delivered = self.0.delivered.notified();
            let free = |n: u32| (n < limit).then_some(n + 1);
            if self.0.undelivered.fetch_update(Relaxed, Relaxed, free).is_ok() || self.closing().is_some() {
                return Speaking(self);
            }
            delivered.await;
        }
    }

    /// A message of its own was delivered on this node, or never published.
    pub(crate) fn spoken(&self) {
        let before = self.0.undelivered.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
        if before.is_ok() {
            self.0.delivered.notify_waiters();
        }
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

/// What an application notes of a connection.
#[derive(Clone, Debug)]
pub struct Attributes {
    map: BTreeMap<String, Value>,
    bytes: usize,
    max_bytes: usize,
}

impl Attributes {
    /// None yet; all together may have `max_bytes` as JSON.
    pub fn limited(max_bytes: usize) -> Self {
        Self { map: BTreeMap::new(), bytes: 0, max_bytes }
    }

    /// Sets an attribute and answers the one it replaces; `null` removes it.
    ///
    /// # Errors
    ///
    /// `payload_too_large` if all together would be over their limit.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Result<Option<Value>, ActionError> {
        let (key, value) = (key.into(), value.into());
        let cost = |key: &str, value: &Value| key.len() + encoded_len(value);
        let before = self.map.get(&key).map_or(0, |old| cost(&key, old));
        let after = if value.is_null() { 0 } else { cost(&key, &value) };
        let bytes = self.bytes - before + after;
        if bytes > self.max_bytes && after > before {
            let message = "the attributes of a connection are over their limit";
            return Err(ActionError::of(ErrorKind::PayloadTooLarge, message));
        }
        self.bytes = bytes;
        Ok(if value.is_null() { self.map.remove(&key) } else { self.map.insert(key, value) })
    }
}

/// How long a value is as JSON, without writing it anywhere.
fn encoded_len(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).map_or(usize::MAX / 4, |()| count.0)
}

#[cfg(test)]
mod tests;
