//! The seam to nodes of another make, which share rooms and connections with ours while a cluster moves from one to the
//! other.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::{BackendError, Message};
use crate::connection::ConnectionId;
use crate::connections::{ApplyError, BuiltIn};

/// What a node of another make asks of a connection.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The connection; every node is asked, and only its owner answers.
    pub connection: ConnectionId,
    /// Methods and their arguments, one after the other until one fails; what the last one answers is the answer.
    pub methods: Vec<(String, Value)>,
    /// Ties the answer to the question.
    pub reply_to: Box<str>,
}

/// Reaches nodes of another make.
#[async_trait]
pub trait Foreign: Send + Sync + 'static {
    /// Calls a method on a connection of theirs. Cancel safe: what was sent runs on there.
    ///
    /// # Errors
    ///
    /// `UnknownMethod` if theirs have none of that name, so that nothing was sent; `Late` if none of them said in time
    /// that the connection is theirs; `Refused` where they would not survive the call.
    async fn apply(&self, connection: &ConnectionId, call: BuiltIn, limit: Duration) -> Result<Value, ApplyError>;

    /// Tells their members of a room the last that it hears, and takes them out of it.
    ///
    /// # Errors
    ///
    /// `Unavailable` if some may still be in it: they do not survive a room that goes away under them.
    async fn dismiss(&self, farewell: &Message) -> Result<(), BackendError>;

    /// Answers what one of them asked. They know no errors: to them, what was refused is not answered.
    async fn reply(&self, reply_to: &str, answer: Value) -> Result<(), BackendError>;
}
