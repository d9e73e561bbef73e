//! The seam for messages between nodes: publications to rooms, messages to one node or to all.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::error::BackendError;
use super::interop::InteropCall;
use crate::future::BoxFuture;
use crate::id::{ConnectionId, Generation, Incarnation, TagId};

/// A message to a room, as every node with members there delivers it.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The room.
    pub room: Arc<str>,
    /// The effect of the message beside its delivery.
    pub kind: PublicationKind,
    /// The connection that sent the message, joined or left.
    pub connection: Option<ConnectionId>,
    /// One encoded JSON object, handed on as it is; for several joins or leaves a list that core reads and writes.
    pub payload: Bytes,
}

/// The effect of a publication beside its delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicationKind {
    /// A message of a client or of the application: `before_deliver` hooks run.
    Message,
    /// A join at that time, in Unix milliseconds: delivered unless a later change of the same connection was.
    Joined(u64),
    /// The leave of a connection that joined at that time: delivered once, however often it is announced, and not after
    /// a later join.
    Left(u64),
    /// The joins of several connections, which the payload lists: each as by [`PublicationKind::Joined`].
    Joins,
    /// The leaves of several connections, in the same way.
    Leaves,
    /// The last message of a room: members that joined it in that incarnation are out of it then.
    Destroyed(Incarnation),
}

/// A message to one node, or to all.
#[derive(Clone, Debug)]
pub struct NodeMessage {
    /// Its kind.
    pub kind: NodeMessageKind,
    /// Ties a reply to its call.
    pub id: u64,
    /// When it expires, Unix time in milliseconds by the backend's clock.
    pub deadline_ms: Option<u64>,
    /// Its JSON.
    pub payload: Bytes,
}

/// The kind of a message to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeMessageKind {
    /// Calls a method; wants a reply.
    Call,
    /// Replies to a call.
    Reply,
    /// A message of the application under a topic.
    Topic,
}

/// A message to the nodes that have connections with a tag.
#[derive(Clone, Debug)]
pub struct TagMessage {
    /// The tag.
    pub tag: TagId,
    /// Its kind.
    pub kind: TagMessageKind,
    /// Ties the replies to a call.
    pub id: u64,
    /// When a call expires, Unix time in milliseconds by the backend's clock.
    pub deadline_ms: Option<u64>,
    /// Its JSON.
    pub payload: Bytes,
}

/// The kind of a message to a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagMessageKind {
    /// A frame for each of the connections, handed on as it is.
    Frame,
    /// A call of all of them; each node that receives it replies.
    Call,
}

/// The nodes that receive a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// The node that is, or was, this generation.
    Node(Generation),
    /// Every node, the sender too.
    Everyone,
}

/// The fate of a message to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Whether a node was subscribed to the channel.
    pub received: bool,
    /// Whether the recipient is known and was not reaped.
    pub on_record: bool,
}

/// An item that the bus delivers to this node.
#[derive(Clone, Debug)]
pub enum Incoming {
    /// A message to a room.
    Publication(Publication),
    /// A message to this node or to all, and the generation that sent it.
    NodeMessage(Generation, NodeMessage),
    /// A message to a tag, and the generation that sent it.
    TagMessage(Generation, TagMessage),
    /// It is said that the session with this tag has ended or has a new id: it is to be read again.
    SessionChanged(TagId),
    /// A call of an Actionhero node.
    InteropCall(InteropCall),
    /// The bus is away: replies that calls wait for will not come.
    Away,
    /// The bus has been away for so long that members should know: messages of rooms do not arrive.
    StillAway,
    /// Messages to this room may have been missed: between the last one before this item and the first one after it, and
    /// nowhere else. Without a room: messages to nodes.
    Gap(Option<Arc<str>>, GapCause),
    /// Messages to this tag may have been missed, in the same way.
    TagGap(TagId, GapCause),
}

/// Why messages may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapCause {
    /// The bus was away.
    Away,
    /// The node did not take them: the queue was full, they were too old or too long, or their sender is not known.
    Overflow,
}

/// A value that is dropped when a message was sent, or will never be.
pub type SendGuard = Box<dyn Any + Send>;

/// Keeps the messages of a room or a tag coming; they may stop some time after it is dropped.
pub struct Subscription(#[expect(dead_code, reason = "kept for its drop")] Option<Box<dyn Any + Send + Sync>>);

impl Subscription {
    /// Ends when `guard` is dropped.
    pub fn new(guard: impl Any + Send + Sync) -> Self {
        Self(Some(Box::new(guard)))
    }

    /// A subscription to a bus that delivers every room's messages anyway.
    pub const fn none() -> Self {
        Self(None)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}

/// Carries publications to every node that has members in a room, the sender's too, in one order per room; and messages
/// between nodes.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Makes this node `generation` from now on: messages to it arrive, beside those to its earlier ones.
    async fn open_inbox(&self, generation: Generation) -> Result<(), BackendError>;

    /// Publishes to a room; waits while the bus is full.
    ///
    /// Cancel safe: a publish that was dropped has either happened or has not.
    ///
    /// # Errors
    ///
    /// `Unavailable` if it is unknown whether the message will arrive.
    async fn publish(&self, publication: Publication) -> Result<(), BackendError>;

    /// Whether every node reads [`PublicationKind::Joins`] and [`PublicationKind::Leaves`]. Those of the last release do not.
    fn all_read_lists(&self) -> bool {
        true
    }

    /// Sends a message to a node, or to all. Cancel safe in the same way.
    ///
    /// # Errors
    ///
    /// `Unavailable` if it is unknown whether it will arrive.
    async fn post(&self, to: Recipient, message: NodeMessage) -> Result<Posted, BackendError>;

    /// Sends a message without waiting for its fate, if the bus can take it at once; gives everything back otherwise.
    /// Drops `guard` when the message is sent or dropped.
    fn try_post(&self, to: Recipient, message: NodeMessage, guard: SendGuard) -> Result<(), (NodeMessage, SendGuard)>;

    /// Starts to receive a room's messages; completes when every later message arrives.
    async fn subscribe(&self, room: &Arc<str>) -> Result<Subscription, BackendError>;

    /// Publishes to a tag, and returns how many nodes receive it: those that have connections with it, or had until a
    /// moment ago, the sender too. Cancel safe in the same way.
    ///
    /// # Errors
    ///
    /// `Unavailable` if it is unknown whether it will arrive.
    async fn publish_to_tag(&self, message: TagMessage) -> Result<usize, BackendError>;

    /// Starts to receive a tag's messages. The future completes when every later message arrives, or fails because the bus
    /// is away; the subscription is made when it is back all the same, unless it was dropped before.
    fn subscribe_to_tag(&self, tag: TagId) -> (Subscription, BoxFuture<'static, Result<(), BackendError>>);

    /// Takes the receiving end of the bus. The first call gets it, later ones `None`.
    fn receiver(&self) -> Option<mpsc::Receiver<Incoming>>;
}
