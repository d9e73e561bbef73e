//! The seam for messages between nodes: to rooms, to one node, to all of them.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Asked, BackendError};
use crate::connection::ConnectionId;
use crate::node::Generation;

/// A message to a room, as every node with members there delivers it.
#[derive(Clone, Debug)]
pub struct Message {
    /// The room.
    pub room: Arc<str>,
    /// What the message does beside being heard.
    pub kind: MessageKind,
    /// The connection that speaks, or that left.
    pub who: Option<ConnectionId>,
    /// One encoded JSON object, handed on as it is.
    pub payload: Bytes,
}

/// What a message does beside being heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// Somebody speaks: recipient hooks are asked.
    Said,
    /// Somebody joined at that time, in Unix milliseconds: heard unless something later of the same connection was.
    Joined(u64),
    /// Somebody left who joined at that time: heard once, however often it is told, and not after a later join.
    Left(u64),
    /// The last thing a room hears: those who joined it in that life are out of it then.
    Destroyed(u64),
}

/// A message to one node, or to all.
#[derive(Clone, Debug)]
pub struct Letter {
    /// What it is.
    pub kind: LetterKind,
    /// Ties an answer to its call.
    pub id: u64,
    /// When it is no longer worth anything, Unix time in milliseconds by the backend's clock.
    pub deadline_ms: Option<u64>,
    /// What it says: JSON.
    pub payload: Bytes,
}

/// What a letter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterKind {
    /// Asks for an answer.
    Call,
    /// Answers a call.
    Answer,
    /// Something the application tells whoever listens.
    Event,
}

/// Whom a letter goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// The node that is, or was, this generation.
    Node(Generation),
    /// Every node, the sender too.
    Everyone,
}

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Whether somebody listened.
    pub received: bool,
    /// Whether the recipient is known and was not reaped.
    pub on_record: bool,
}

/// What the bus brings to this node.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// A message to a room.
    Message(Message),
    /// A letter, and the generation that wrote it.
    Letter(Generation, Letter),
    /// What a node of another make asks.
    Asked(Asked),
    /// The bus is away: answers that are waited for will not come.
    Away,
    /// Messages may have been missed.
    Gap(Missed),
}

/// Why messages may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// The bus was away.
    Away,
    /// They were not taken off in time: they found no room, or were too old by then.
    Overflow,
}

/// What lasts until a letter is sent.
pub type KeptAlive = Box<dyn Any + Send>;

/// Holds a room's messages coming; they may stop some time after it is dropped.
pub struct Subscription(#[expect(dead_code, reason = "held for its end")] Option<Box<dyn Any + Send + Sync>>);

impl Subscription {
    /// Ends when `held` is dropped.
    pub fn new(held: impl Any + Send + Sync) -> Self {
        Self(Some(Box::new(held)))
    }

    /// Of a bus that brings everything.
    pub const fn none() -> Self {
        Self(None)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}

/// Carries messages to every node that has members in a room, the sender's too, in one order per room; and letters.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// From now on this node is `generation`: letters to it arrive, beside those to its earlier ones.
    async fn appear_as(&self, generation: Generation) -> Result<(), BackendError>;

    /// Publishes a message; waits while the bus is full.
    ///
    /// Cancel safe: a publish that was dropped has either happened or has not.
    ///
    /// # Errors
    ///
    /// `Unavailable` if it is unknown whether the message will arrive.
    async fn publish(&self, message: Message) -> Result<(), BackendError>;

    /// Sends a letter. Cancel safe in the same way.
    ///
    /// # Errors
    ///
    /// `Unavailable` if it is unknown whether it will arrive.
    async fn post(&self, to: Recipient, letter: Letter) -> Result<Posted, BackendError>;

    /// Sends a letter whose fate nobody asks about, if it can be taken at once; gives everything back otherwise. Drops
    /// `alive` when the letter is sent or given up.
    fn try_post(&self, to: Recipient, letter: Letter, alive: KeptAlive) -> Result<(), (Letter, KeptAlive)>;

    /// Begins to receive a room's messages; completes when every later message arrives.
    async fn subscribe(&self, room: &Arc<str>) -> Result<Subscription, BackendError>;

    /// Takes the end at which everything arrives. The first call gets it, later ones `None`.
    fn receiver(&self) -> Option<mpsc::Receiver<Arrival>>;
}
