//! The domain of Phalanx: actions, connections, rooms, remote calls, and the seams to a backend.
//!
//! An application depends on the facade, the crate `phalanx`, which re-exports what authors write with. This crate knows no
//! socket and no Redis: transports drive its [`Engine`], and a [`backend::Backend`] stores what nodes share.
//!
//! A complete action, as the attribute `#[action]` writes it:
//!
//! ```
//! use phalanx_core::action::{Action, ActionDef, ActionResult, BodyRules, Exposure, OnDisconnect};
//! use phalanx_core::answer::{IntoAnswer, answering};
//! use phalanx_core::params::input_schema;
//! use phalanx_core::{ActionError, Context, Deadline, NoInput, Reply};
//!
//! /// The number of connections of this node.
//! async fn sockets(ctx: Context, _: NoInput) -> Result<Reply<usize>, ActionError> {
//!     Ok(Reply::new(ctx.connections().count()))
//! }
//!
//! struct Sockets;
//!
//! impl Action for Sockets {
//!     type Input = NoInput;
//!     type Output = Reply<usize>;
//!     const DEF: ActionDef = ActionDef {
//!         name: "sockets",
//!         version: 1,
//!         description: "The number of connections of this node.",
//!         routes: &[],
//!         exposure: Exposure::Public,
//!         cross_site: false,
//!         deadline: Deadline::Default,
//!         on_disconnect: OnDisconnect::Finish,
//!         finish_stream: false,
//!         input: input_schema::<NoInput>,
//!         output: <Reply<usize> as IntoAnswer>::schema,
//!         limits: Vec::new,
//!         body: BodyRules::DEFAULT,
//!         require: |_| {},
//!         run: |ctx, body| {
//!             answering(async move {
//!                 let input = match body.params(&ctx).await {
//!                     Ok(params) => params.decode()?,
//!                     Err(outcome) => return outcome,
//!                 };
//!                 sockets(ctx, input).await.outcome()
//!             })
//!         },
//!     };
//! }
//! # assert_eq!(Sockets::DEF.name, "sockets");
//! ```
//!
//! Modules stand in floors, lowest first; a module imports from its own floor and those below it, never from above (a test
//! reads the imports).

// Ground: values and seams.
pub mod address_rate;
pub mod answer;
pub mod backend;
pub mod config;
pub mod cookie;
mod cut;
pub mod error;
pub mod files;
pub mod future;
mod gap_pace;
mod health;
pub mod id;
pub mod job;
mod lease_state;
pub mod memory;
pub mod metrics;
pub mod operation;
mod origin;
pub mod params;
pub mod protocol;
mod shutdown;
mod units;

// Clients: connections, rooms and calls between nodes.
mod cache;
pub mod connection;
mod connections;
pub mod event;
mod locks;
mod rate_limit;
mod remote;
mod rooms;
mod tags;
mod topics;

// Author: the handle and the definitions that an application is written with.
pub mod action;
pub mod call;
mod caller;
mod cluster;
pub mod context;
mod group;
mod guard;
pub mod hooks;
pub mod initializer;
pub mod layer;
mod limit;
mod node;
mod node_report;
mod parameter;
pub mod registry;
mod remote_method;
mod session;
mod state;
mod states;
pub mod task;

// Engine: runs a node.
pub mod dispatch;
pub mod engine;
mod lease;
pub mod transport;
pub mod verb;

pub use action::{Action, ActionDef, Exposure, Method, OnDisconnect, Route};
pub use answer::{Answer, Body, Content, IntoAnswer, Outcome, Reply};
pub use cache::{Cache, Entry};
pub use call::body::{BodyRead, CallBody};
pub use call::raw_body::RawBody;
pub use caller::Caller;
pub use cluster::{Cluster, NodeReplies};
pub use connection::Connection;
pub use context::{CallHead, Context};
pub use cookie::{Cookie, CookieError, Cookies, SameSite};
pub use cut::UnfinishedWork;
pub use engine::Engine;
pub use engine::guest::Guest;
pub use engine::lifecycle::{StartError, StopReport};
pub use engine::registration::Registration;
pub use engine::setup::NodeSetup;
pub use error::{ActionError, BoxError, Detail, ErrorKind, OrInternal, OrNotFound};
pub use future::{BoxFuture, Deadline};
pub use group::{ActionGroup, ActionSet, group};
pub use guard::{FromContext, Requirements};
pub use id::{ConnectionId, Generation, Incarnation, RequestId, TagId};
pub use limit::{Limit, NamedLimit};
pub use locks::{LockGuard, Locks};
pub use metrics::bound_reached;
pub use node::Node;
pub use node_report::{ConnectionList, ListedConnection, NodeReport};
pub use origin::Origin;
pub use parameter::{GuardRole, InputRole, LastParameter, ParameterRole};
pub use params::{Input, NoInput, Params};
pub use remote::{ApplyError, Connections};
pub use remote_method::{Remote, RemoteDef};
pub use rooms::{RoomStatus, Rooms};
pub use session::Session;
pub use session::data::{SessionData, SessionType};
pub use session::handle::{Sessions, UserSession};
pub use shutdown::{Shutdown, StopRequest, Successor};
pub use state::State;
pub use states::States;
pub use tags::{SessionSign, TagCount, TagList, TagResults, TaggedConnections};
pub use task::{Task, TaskContext, TaskDef, Tasks};
pub use topics::{TopicSubscription, Topics};
pub use units::{DAY, HOUR, MINUTE, SECOND};

// The attributes refer to these through the facade.
pub use {http, schemars, serde, validator};
