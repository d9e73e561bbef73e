//! Remote calls: methods that run on a connection, or on a node, wherever it is.
//!
//! [`Connections::apply`] runs a method of a local connection in place ([`execute`]), and sends a call for any other
//! ([`pending`], the caller's side); the owner executes it the same way and replies ([`serve`]).

mod apply;
pub(crate) mod built_in;
pub(crate) mod error;
pub(crate) mod execute;
pub(crate) mod gather;
pub(crate) mod pending;
pub(crate) mod serve;
pub(crate) mod wire;

pub use apply::Connections;
pub use error::ApplyError;
pub(crate) use execute::{ApplicationMethods, Executor, invalid_args};
pub(crate) use pending::{LONGEST, RemoteCallParts, RemoteCalls};
pub(crate) use serve::CallServer;
