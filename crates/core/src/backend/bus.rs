//! The seam for messages between nodes: rooms now, calls to other nodes beside them.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::BackendError;
use crate::connection::ConnectionId;

/// A message to a room, as every node with members there delivers it.
#[derive(Clone, Debug)]
pub struct Message {
    /// The room.
    pub room: Arc<str>,
    /// What the message does beside being heard.
    pub kind: MessageKind,
    /// The connection that speaks, if one does.
    pub speaker: Option<ConnectionId>,
    /// One encoded JSON object, handed on as it is.
    pub payload: Bytes,
}

/// What a message does beside being heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// Somebody speaks: recipient hooks are asked.
    Said,
    /// The server tells members something: who came, who went.
    Notice,
    /// The last thing a room hears: its members are out of it then.
    Destroyed,
}

/// Carries messages to every node that has members in a room, the sender's too, in one order per room.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Publishes a message; waits while the bus is full.
    ///
    /// Cancel safe: a publish that was dropped has either happened or has not.
    ///
    /// # Errors
    ///
    /// `Unavailable` if it is unknown whether the message will arrive.
    async fn publish(&self, message: Message) -> Result<(), BackendError>;

    /// Begins to receive a room's messages; completes when every later message arrives.
    async fn subscribe(&self, room: &Arc<str>) -> Result<(), BackendError>;

    /// Ends it; messages may go on arriving for a while.
    async fn unsubscribe(&self, room: &Arc<str>);

    /// Takes the end at which this node's messages arrive. The first call gets it, later ones `None`.
    fn receiver(&self) -> Option<mpsc::Receiver<Message>>;
}
