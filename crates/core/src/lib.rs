//! The domain of Phalanx: actions, connections, rooms, and the seams to a backend.

pub mod action;
pub mod answer;
pub mod backend;
mod cache;
mod calls;
mod cluster;
pub mod config;
pub mod connection;
mod connections;
pub mod context;
pub mod dispatch;
mod error;
pub mod event;
pub mod files;
pub mod hooks;
pub mod initializer;
pub mod layer;
mod lease;
mod locks;
pub mod memory;
mod metrics;
mod node;
pub mod params;
pub mod registry;
mod rooms;
mod rpc;
mod shutdown;
pub mod transport;
pub mod verb;

pub use action::{
    Action, ActionDef, BoxFuture, Deadline, Exposure, IntoActionError, Method, OnDisconnect, Returned, Route,
    input_schema,
};
pub use answer::{Answer, Body, Content, Cookie, IntoAnswer, Outcome, Reply, answering};
pub use cache::{Cache, Entry};
pub use cluster::{Answers, Cluster, Listener};
pub use connection::{Connection, ConnectionId};
pub use connections::{ApplyError, BuiltIn, Connections, Seat};
pub use context::{Caller, Context, FromContext, Origin, RequestId, Requirements, State};
pub use error::{ActionError, Detail, ErrorKind};
pub use locks::{LockGuard, Locks};
pub use metrics::bound_reached;
pub use node::{Generation, Node, Setup, StartError, Stopped};
pub use params::{Input, NoInput, Params};
pub use rooms::{RoomStatus, Rooms};
pub use rpc::{Remote, RemoteDef};
pub use shutdown::Shutdown;

// What the attributes write refers to these through the facade.
pub use {http, schemars, serde, validator};
