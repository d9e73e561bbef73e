//! The link between the parent and one worker: a pair of sockets, one of which is the worker's stdin.
//!
//! The sockets keep packets apart (`SOCK_SEQPACKET`), so each message is one line of JSON, sent whole or not at all.
//! The first packet is the [`Handover`], and carries the bound sockets as file descriptors. Afterwards the worker
//! sends [`WorkerMessage`]s, and the parent [`ParentMessage`]s. Each end learns of the other's death by the end of
//! the stream, so neither passes its descriptor on.
//!
//! No variable of the environment and no numbered descriptor takes part: a child of the worker inherits nothing of it.

use std::io;

mod message;
mod packet;
mod parent_end;
mod worker_end;

pub use message::{Handover, ParentMessage, WorkerMessage};
pub use parent_end::{ParentLink, Reception};
pub use worker_end::WorkerLink;

/// The version of this protocol. Parent and worker must have the same one.
pub const PROTOCOL: u32 = 1;

/// The most sockets that a parent hands over.
pub const MAX_SOCKETS: usize = 8;

/// The longest message, in bytes. A longer one is refused by its sender and its receiver.
pub const MAX_MESSAGE: usize = 16 * 1024;

/// The reason why a message was not sent or received.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket failed, such as `BrokenPipe` when the other end is gone, or `WouldBlock` when its queue is full.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The packet is longer than [`MAX_MESSAGE`].
    #[error("a message of more than {MAX_MESSAGE} bytes")]
    TooLong,
    /// The packet is no such message.
    #[error("no message of the protocol: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The handover names other sockets than came with it.
    #[error("the handover names {named} sockets, and {received} came with it")]
    Sockets {
        /// The number of names.
        named: usize,
        /// The number of file descriptors.
        received: usize,
    },
    /// The parent closed the link before it had sent a handover.
    #[error("the parent closed the link before the handover")]
    NoHandover,
    /// The parent speaks another version of the protocol.
    #[error("the running parent is {parent}: restart it")]
    Protocol {
        /// The version of the parent's program.
        parent: String,
    },
}
