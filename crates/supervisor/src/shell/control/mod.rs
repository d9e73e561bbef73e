//! The control socket, by which the commands of `cluster` reach the parent.
//!
//! A client sends one line of JSON, a [`ControlRequest`], and reads lines, each a [`ControlReply`], until one that
//! ends the request. The socket's file has the mode 0600, and the peer must have the parent's user id or be root.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::status::ClusterStatus;

mod client;
mod server;

pub use client::{ControlClient, ControlError};
pub(super) use server::{ControlServer, ControlWait};

/// The refusal of a request whose client could not wait for its end.
pub(super) const TOO_MANY_WAIT: &str = "64 commands wait for the workers already";

/// The longest path that a socket can have.
pub const MAX_PATH: usize = 107;

/// The longest line of a request.
const MAX_REQUEST: usize = 1024;

/// The most bytes that wait for a client; beyond, it is disconnected.
const MAX_OUTPUT: usize = 1024 * 1024;

/// The most clients at a time, besides those that wait for workers; the next ones wait to be accepted.
const MAX_CLIENTS: usize = 16;

/// The most clients that wait for workers. A further `roll` or `scale` is refused; a further `stop` is done, and not waited for.
pub const MAX_COMMANDS: usize = 64;

/// The name of that bound in the metric of bounds.
pub(super) const COMMANDS: &str = "cluster.commands";

/// The time for a client to send its request, and for the parent to begin its reply.
const SOON: Duration = Duration::from_secs(5);

/// A request to the parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "request")]
pub enum ControlRequest {
    /// The state of parent and workers.
    Status,
    /// To replace all workers one by one.
    Roll,
    /// To change the number of workers.
    Scale {
        /// How many there shall be.
        workers: u32,
    },
    /// To stop all.
    Stop,
    /// To reopen all logs.
    Reopen,
}

/// A line of the parent's reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reply")]
pub enum ControlReply {
    /// A step, for people.
    Progress {
        /// The line.
        text: String,
    },
    /// The end: it is done.
    Done {
        /// The result, for people.
        text: String,
    },
    /// The end: it is not done.
    Failed {
        /// The reason.
        reason: String,
    },
    /// The end: the state.
    Status(Box<ClusterStatus>),
}
