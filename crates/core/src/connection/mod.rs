//! One connected client: a cheap handle over an outbox, attributes and flags.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Waker;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use serde_json::Value;
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

use crate::error::{ActionError, ErrorKind};
use crate::id::ConnectionId;
use crate::protocol::{CloseReason, ConnectionDetails};

mod action_permit;
mod attributes;
pub(crate) mod broadcast;
mod joined_rooms;
mod outbox;
mod send_slots;
mod session;
mod tags;

pub use action_permit::ActionPermit;
pub use attributes::Attributes;
pub(crate) use joined_rooms::{JoinedRoom, JoinedRooms};
pub use outbox::{Frame, OutboxItem, OutboxLimit};
use outbox::{Outbox, Queued};
pub(crate) use send_slots::InFlight;
pub use session::SocketSession;
pub(crate) use tags::ConnectionTags;

/// The initial state of a connection.
#[derive(Debug)]
pub struct NewConnection {
    /// Its id.
    pub id: ConnectionId,
    /// Ties the calls and sockets of one browser together.
    pub fingerprint: Arc<str>,
    /// The client's address.
    pub remote: SocketAddr,
    /// The attributes that the connect hook set.
    pub attributes: Attributes,
    /// Unix time in milliseconds.
    pub connected_at: u64,
    /// The bound of its outbox.
    pub outbox: OutboxLimit,
}

/// Most frames that wait for a task which was not woken for them.
const MOST_UNTOLD: usize = 64;

/// One connected client. Cheap to clone; every clone is the same connection.
///
/// Pushing, evicting and stopping are one queue, some flags and one wake-up; no task ever waits for a client.
///
/// Actions get it as `ctx.connection()`, or as a guard that refuses other transports:
///
/// ```
/// use phalanx_core::connection::{Attributes, Connection, NewConnection, OutboxLimit};
/// use phalanx_core::protocol::CloseReason;
/// use phalanx_core::{ActionError, ConnectionId};
///
/// /// The body of an action that takes `connection: Connection` before its input.
/// fn strike(connection: &Connection) -> Result<(), ActionError> {
///     let strikes = connection.get("strikes").and_then(|strikes| strikes.as_u64()).unwrap_or(0) + 1;
///     connection.set("strikes", strikes)?;
///     if strikes == 3 {
///         connection.close(CloseReason::NotAllowed); // 4501: its client does not reconnect
///     }
///     Ok(())
/// }
///
/// # let connection = Connection::new(NewConnection {
/// #     id: ConnectionId::parse("user-ada")?,
/// #     fingerprint: "f".into(),
/// #     remote: ([127, 0, 0, 1], 1).into(),
/// #     attributes: Attributes::limited(1024),
/// #     connected_at: 0,
/// #     outbox: OutboxLimit { frames: 8, bytes: 1024 },
/// # });
/// strike(&connection)?;
/// strike(&connection)?;
/// assert!(!connection.is_closing());
/// strike(&connection)?;
/// assert_eq!(connection.closing(), Some(CloseReason::NotAllowed));
/// # Ok::<(), ActionError>(())
/// ```
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

/// Laid out as declared: the fields that a broadcast touches come first, since every member's are cold in the cache.
#[repr(C)]
struct Shared {
    outbox: Mutex<Outbox>,
    wake: AtomicWaker,
    limit: OutboxLimit,
    closing: AtomicBool,
    alive: AtomicBool,
    pending: AtomicU32,
    id: ConnectionId,
    fingerprint: Arc<str>,
    remote: SocketAddr,
    connected_at: u64,
    attributes: Mutex<Attributes>,
    rooms: Mutex<JoinedRooms>,
    /// Locked while a membership changes, so that joins, leaves and the end of a connection happen one after the other.
    membership: Arc<tokio::sync::Mutex<()>>,
    total: AtomicU64,
    in_flight: AtomicU32,
    delivered: Notify,
    closed: OnceLock<CancellationToken>,
    session: Option<Box<SocketSession>>,
    tags: Mutex<ConnectionTags>,
    tag_host: OnceLock<Weak<dyn TagHost>>,
}

/// The part of a node that gives tags to its connections.
#[async_trait]
pub(crate) trait TagHost: Send + Sync {
    async fn tag(&self, connection: &Connection, name: &str) -> Result<(), ActionError>;

    fn untag(&self, connection: &Connection, name: &str) -> bool;
}

impl Connection {
    /// Creates a connection that no registry knows yet.
    pub fn new(new: NewConnection) -> Self {
        Self::of_session(new, None)
    }

    /// Creates a connection whose upgrade named a session.
    pub fn of_session(new: NewConnection, session: Option<Box<SocketSession>>) -> Self {
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
            membership: Arc::default(),
            alive: AtomicBool::new(true),
            closing: AtomicBool::new(false),
            pending: AtomicU32::new(0),
            total: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            delivered: Notify::new(),
            closed: OnceLock::new(),
            session,
            tags: Mutex::default(),
            tag_host: OnceLock::new(),
        }))
    }

    /// Its id in the cluster.
    pub fn id(&self) -> &ConnectionId {
        &self.0.id
    }

    /// Ties the calls and sockets of one browser together.
    pub fn fingerprint(&self) -> &str {
        &self.0.fingerprint
    }

    /// The client's address.
    pub fn remote(&self) -> SocketAddr {
        self.0.remote
    }

    /// When it connected, Unix time in milliseconds.
    pub fn connected_at(&self) -> u64 {
        self.0.connected_at
    }

    /// The session that its upgrade named. It may have ended since.
    pub(crate) fn session(&self) -> Option<&SocketSession> {
        self.0.session.as_deref()
    }

    /// Records that its client sent a frame other than a ping, which is a use of its session.
    pub fn mark_spoken(&self) {
        if let Some(session) = self.session() {
            session.mark_used();
        }
    }

    /// Closes the connection if its own action, or a hook, has ended its session: by now the reply to that is queued.
    pub fn close_if_signed_out(&self) {
        if self.session().is_some_and(SocketSession::has_ended) {
            self.close(CloseReason::NotAllowed);
        }
    }

    /// Queues a frame. A client whose outbox is full is closed as slow, never waited for.
    ///
    /// Returns whether the frame was queued.
    pub fn push(&self, frame: Frame) -> bool {
        let queued = self.queue(frame);
        self.wake();
        queued
    }

    /// Whether this very text, and not a copy of it, waits to be written.
    pub(crate) fn has_queued(&self, text: &Bytes) -> bool {
        self.outbox().has(text)
    }

    /// Whether a frame fits into an empty outbox: pushing a larger one closes the connection as slow.
    pub fn fits_outbox(&self, frame: &Frame) -> bool {
        frame.len() <= self.0.limit.bytes
    }

    /// Queues a frame without waking the connection's task: for use by that task.
    pub fn queue(&self, frame: Frame) -> bool {
        let queued = self.outbox().push(frame, self.0.limit);
        if queued == Queued::Overflow {
            self.on_closing();
        }
        queued == Queued::Yes
    }

    /// Queues a frame without waking the connection's task. Returns whether that is left to the caller: a task whose outbox has
    /// other frames has been woken, or is about to be. One whose outbox fills up is woken here.
    pub(crate) fn queue_and_check_idle(&self, frame: Frame) -> bool {
        let limit = self.0.limit;
        let (waiting, queued) = {
            let mut outbox = self.outbox();
            (outbox.len(), outbox.push(frame, limit))
        };
        if queued == Queued::Overflow {
            self.on_closing();
        }
        if queued == Queued::Overflow || waiting == MOST_UNTOLD.min(limit.frames / 2) {
            self.wake();
            return false;
        }
        waiting == 0 && queued == Queued::Yes
    }

    /// Has the connection's task look at its outbox.
    pub(crate) fn wake(&self) {
        self.0.wake.wake();
    }

    /// Closes the connection. The first reason stands, except that of a node that stops: such a node finishes the calls it
    /// accepted, and any other reason ends that wait. Queued frames are written first where possible.
    pub fn close(&self, reason: CloseReason) {
        {
            let mut outbox = self.outbox();
            if outbox.is_cut_off() || outbox.closing == Some(reason) {
                return;
            }
            outbox.close(reason);
        }
        self.on_closing();
        self.wake();
    }

    /// Breaks the connection at once, whatever the reason it closes for.
    pub(crate) fn abort(&self) {
        self.outbox().closing = Some(CloseReason::Broken);
        self.on_closing();
        self.wake();
    }

    /// Whether it is closing.
    pub fn is_closing(&self) -> bool {
        self.0.closing.load(Relaxed)
    }

    /// Whether nothing reaches its client any more. A node that stops still answers the calls it accepted.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.outbox().is_cut_off()
    }

    /// The reason for which it closes, once it does.
    pub fn closing(&self) -> Option<CloseReason> {
        self.outbox().closing
    }

    /// Completes when nothing reaches its client any more. Cancel safe.
    pub async fn closed(&self) {
        let token = self.0.closed.get_or_init(CancellationToken::new);
        if !self.is_cut_off() {
            token.cancelled().await;
        }
    }

    fn on_closing(&self) {
        self.0.closing.store(true, Relaxed);
        if let Some(token) = self.0.closed.get()
            && self.is_cut_off()
        {
            token.cancel();
        }
        self.0.delivered.notify_waiters();
    }

    /// Has the connection's task write a protocol ping.
    pub(crate) fn ping(&self) {
        self.outbox().ping = true;
        self.wake();
    }

    /// Takes the next item for its task.
    pub fn next(&self) -> OutboxItem {
        self.outbox().next()
    }

    /// Has the connection's task polled again when there is something to do. The task registers first and looks then,
    /// so no wake-up is lost; only one task may.
    pub fn register(&self, task: &Waker) {
        self.0.wake.register(task);
    }

    /// Records that bytes of the client arrived.
    pub fn mark_alive(&self) {
        self.0.alive.store(true, Relaxed);
    }

    /// Whether bytes of the client arrived since the last call of this function. A client whose ping is still queued
    /// behind other frames counts as alive: it had nothing to answer yet.
    pub(crate) fn take_alive(&self) -> bool {
        self.0.alive.swap(false, Relaxed) || self.outbox().ping
    }

    /// The names of the rooms it is in.
    pub fn rooms(&self) -> Vec<Arc<str>> {
        self.joined_rooms().names().cloned().collect()
    }

    /// Whether it is in that room.
    pub fn is_in(&self, room: &str) -> bool {
        self.joined_rooms().find(room).is_some()
    }

    /// Reads an attribute.
    pub fn get(&self, key: &str) -> Option<Value> {
        self.attributes().map.get(key).cloned()
    }

    /// Sets an attribute and returns the one it replaces; `null` removes it.
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

    /// Gives the connection a tag: [`tagged`](crate::Connections::tagged) finds it by that, on every node, until
    /// [`untag`](Self::untag) or its end.
    ///
    /// When this returns, the connection receives everything that is sent to the tag from then on, by any node. A tag that
    /// it has already is given again, and counted once. Cancel safe: a call that was dropped has given the tag.
    ///
    /// ```
    /// use phalanx_core::{ActionError, Connection, Context};
    /// use serde_json::json;
    ///
    /// /// The body of an action that takes `connection: Connection`: the client follows a ticket.
    /// async fn follow(connection: &Connection, ticket: u32) -> Result<(), ActionError> {
    ///     connection.tag(&format!("ticket:{ticket}")).await
    /// }
    ///
    /// /// Sends those who follow it the news.
    /// async fn closed(ctx: &Context, ticket: u32) -> Result<(), ActionError> {
    ///     ctx.connections().tagged(&format!("ticket:{ticket}")).send(&json!({ "closed": ticket })).await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// `invalid_input` if it is not 1 to 100 of `A-Z a-z 0-9 : . _ -`; `conflict` if the connection has ended, and with the
    /// code `too_many_tags` beyond `websocket.max_tags`. `unavailable` if the backend does not answer: the connection has
    /// the tag all the same, and receives what is sent to it on this node; what others send, as soon as the backend is back.
    pub async fn tag(&self, tag: &str) -> Result<(), ActionError> {
        self.tag_host()?.tag(self, tag).await
    }

    /// Takes a tag from the connection; returns whether it had it.
    pub fn untag(&self, tag: &str) -> bool {
        self.tag_host().is_ok_and(|host| host.untag(self, tag))
    }

    /// The tags that the application gave it.
    pub fn tags(&self) -> Vec<Arc<str>> {
        self.own_tags().of_application().map(|tag| tag.name.clone()).collect()
    }

    /// Has the connection's tags given by that node, which has it registered.
    pub(crate) fn set_tag_host(&self, host: Weak<dyn TagHost>) {
        let _ = self.0.tag_host.set(host); // a connection is registered once
    }

    fn tag_host(&self) -> Result<Arc<dyn TagHost>, ActionError> {
        let host = self.0.tag_host.get().ok_or_else(|| ActionError::conflict("the connection is not registered"))?;
        host.upgrade().ok_or_else(|| ActionError::of(ErrorKind::Unavailable, "the node has stopped"))
    }

    pub(crate) fn own_tags(&self) -> MutexGuard<'_, ConnectionTags> {
        self.0.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn joined_rooms(&self) -> MutexGuard<'_, JoinedRooms> {
        self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The details that the client itself may see.
    pub fn details(&self) -> ConnectionDetails<'_> {
        ConnectionDetails {
            transport: None,
            id: self.id().as_str(),
            fingerprint: self.fingerprint(),
            remote_ip: self.remote().ip().to_string(),
            remote_port: self.remote().port(),
            params: Some(BTreeMap::new()),
            connected_at: self.connected_at(),
            rooms: self.rooms(),
            total_actions: self.total_actions(),
            pending_actions: self.pending_actions(),
            destroyed: None,
        }
    }

    /// The details that a remote caller sees, beside the attributes.
    pub(crate) fn remote_details(&self) -> ConnectionDetails<'_> {
        let destroyed = Some(self.closing().is_some());
        ConnectionDetails { transport: Some("websocket"), params: None, destroyed, ..self.details() }
    }

    /// Waits for the joins and leaves of this connection that are in progress, and keeps others from starting.
    pub(crate) async fn lock_membership(&self) -> OwnedMutexGuard<()> {
        // Mostly there are none, and a wait costs more than the attempt, which overtakes no task that waits.
        match self.try_lock_membership() {
            Some(lock) => lock,
            None => self.0.membership.clone().lock_owned().await,
        }
    }

    /// The same, if none is in progress.
    pub(crate) fn try_lock_membership(&self) -> Option<OwnedMutexGuard<()>> {
        self.0.membership.clone().try_lock_owned().ok()
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.0.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attributes(&self) -> MutexGuard<'_, Attributes> {
        self.0.attributes.lock().unwrap_or_else(PoisonError::into_inner)
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
pub(crate) mod testing;
#[cfg(test)]
mod tests;
