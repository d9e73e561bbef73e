//! An application server for HTTP and WebSocket, made to run as a cluster.
//!
//! An author writes **actions** as plain functions; the same action answers `curl`, a browser over WebSocket, and other
//! actions. An application has this one dependency. The [`guide`] explains how to write one and how to run it, from an
//! empty folder on ([`guide::getting_started`]).
//!
//! ```no_run
//! use phalanx::prelude::*;
//!
//! #[input]
//! struct Greet {
//!     #[validate(length(min = 1, max = 80))]
//!     name: String,
//! }
//!
//! #[output]
//! struct Greeting {
//!     text: String,
//! }
//!
//! /// Greets a person.
//! #[action(get = "/greet/{name}")]
//! async fn greet(input: Greet) -> Result<Greeting, ActionError> {
//!     Ok(Greeting { text: format!("Hello, {}!", input.name) })
//! }
//!
//! fn main() -> phalanx::ExitCode {
//!     App::new("hello").actions(actions![greet]).run()
//! }
//! ```

// The attributes expand to paths of the facade, `::phalanx::…`, in its own tests too.
#[cfg(test)]
extern crate self as phalanx;

mod app;
mod command;
mod logging;
mod process;
mod rlimit;
mod settings;
mod telemetry;

pub mod guide;
#[cfg(feature = "testing")]
pub mod testing;

// Write: actions, and everything that they use.
pub use phalanx_core::answer::{Answer, Body, Content, IntoAnswer, Outcome, Reply};
pub use phalanx_core::backend::{Member, Members, MembersCursor, NodeRecord};
pub use phalanx_core::connection::{Attributes, Frame};
pub use phalanx_core::context::{CallHead, Context};
pub use phalanx_core::cookie::{Cookie, CookieError, Cookies, SameSite};
pub use phalanx_core::error::{ActionError, BoxError, Detail, ErrorKind, OrInternal, OrNotFound};
pub use phalanx_core::hooks;
pub use phalanx_core::id::{ConnectionId, Generation, RequestId};
pub use phalanx_core::params::{Input, NoInput, Params, Upload};
pub use phalanx_core::protocol::CloseReason;
pub use phalanx_core::{
    Action, ActionDef, ActionGroup, ActionSet, ApplyError, Cache, Caller, Cluster, Connection, Connections, DAY, Entry,
    FromContext, HOUR, InputRole, LastParameter, Limit, LockGuard, Locks, MINUTE, NamedLimit, Node, NodeReplies,
    Origin, RawBody, Remote, RemoteDef, Requirements, RoomStatus, Rooms, SECOND, Session, SessionData, Sessions, State,
    TagCount, TagList, TagResults, TaggedConnections, Task, TaskContext, TaskDef, Tasks, TopicSubscription, Topics,
    UserSession, actions, ensure, group, remotes, tasks,
};
/// Jobs: what an enqueue and a look at the task queue name, beside the handle [`Tasks`].
pub mod jobs {
    pub use phalanx_core::backend::{BatchStage, DeleteOutcome, JobCounters, JobState, ResultMissing, TaskStats};
    pub use phalanx_core::job::{AttemptOutcome, FailedJob};
    pub use phalanx_core::protocol::{AcceptedJob, JobView};
    pub use phalanx_core::task::{
        ActiveAttempt, BATCH_DEADLINE, BatchOptions, BatchStatus, CatchUp, EnqueueOptions, Enqueued, JobBatch, JobRate,
        JobStatus, MAX_BATCH_DEADLINE, MAX_CHECKPOINT_BYTES, MAX_DELAY, MAX_FOLLOW_UP_BYTES, MAX_FOLLOW_UPS,
        MAX_JOB_BYTES, MAX_MANY, MAX_META_BYTES, MAX_PROGRESS_BYTES, MAX_RESULT_BYTES, MAX_WAITERS, MIN_INTERVAL,
        Overlap, QueueLimits, RetryPolicy, RunAction, Schedule, TaskFailure, TaskSeries, TickRule, UniqueKey,
        UniquePolicy, UniqueScope, UniqueUntil,
    };
}

pub use phalanx_core::{event, initializer, layer};
pub use phalanx_macros::{ActionError, action, input, output, remote, session, task};

// Run: the application, its settings, and how it starts and stops.
pub use std::process::ExitCode;

pub use app::{App, IntoRoutes, RunningApp};
pub use phalanx_core::config;
pub use phalanx_core::{StartError, StopReport};
pub use phalanx_server::{Guard, Refused};

// The crates whose types stand in the interfaces above.
pub use phalanx_core::{http, schemars, serde, validator};
pub use {async_trait, axum, bytes, clap, serde_json};

/// For those who extend the server itself: backends and transports of their own, beside the embedded backend and Redis,
/// HTTP and WebSocket.
pub mod extend {
    pub use phalanx_tasks::TaskWorker;

    pub use phalanx_core::{
        Deadline, Engine, NodeSetup, Registration, SessionSign, Shutdown, action, backend, bound_reached, call,
        connection, dispatch, engine, files, memory, operation, params, protocol, registry, transport, verb,
    };
}

/// The items that the attributes' expansions name. Not for applications: they change without notice.
#[doc(hidden)]
pub mod __private {
    pub use phalanx_core::action::{
        Action, ActionDef, ActionResult, BodyRules, Exposure, IntoActionError, Method, OnDisconnect, Route,
    };
    pub use phalanx_core::answer::{IntoAnswer, answering};
    pub use phalanx_core::error::{ActionError, Detail, ErrorKind};
    pub use phalanx_core::params::input_schema;
    pub use phalanx_core::task::{
        CatchUp, JobRate, Overlap, QueueLimits, RetryPolicy, Schedule, Task, TaskContext, TaskDef, TickRule, UniqueKey,
        UniquePolicy, UniqueScope, UniqueUntil, check_input, computed_key, decode_input,
    };
    pub use phalanx_core::{
        CallBody, Deadline, FromContext, InputRole, LastParameter, Limit, NoInput, ParameterRole, Params, Remote,
        RemoteDef, schemars, serde, validator,
    };
}

/// The imports that most files of an application need.
pub mod prelude {
    pub use crate::App;
    pub use phalanx_core::hooks::{
        Connecting, Delivering, Delivery, JobDraft, Joining, LeaveCause, Leaving, LeftRoom, Publishing, RoomMessage,
    };
    pub use phalanx_core::initializer::{Boot, Initializer};
    pub use phalanx_core::layer::{Call, Layer, Next};
    pub use phalanx_core::params::Upload;
    pub use phalanx_core::protocol::CloseReason;
    pub use phalanx_core::task::{EnqueueOptions, TaskContext, TaskFailure};
    pub use phalanx_core::{
        ActionError, Body, Connection, ConnectionId, Context, Cookie, DAY, Detail, ErrorKind, FromContext, HOUR, Limit,
        MINUTE, NoInput, Node, OrInternal, OrNotFound, Outcome, RawBody, Reply, Requirements, SECOND, SameSite,
        Session, SessionData, State, actions, ensure, group, remotes, tasks,
    };
    pub use phalanx_macros::{ActionError, action, input, output, remote, session, task};

    pub use async_trait::async_trait;
    pub use phalanx_core::http::StatusCode;
}

/// Tests the examples in the docs of the attributes, whose crate cannot without a second build of this one.
#[cfg(doctest)]
mod attribute_docs {
    #[doc = include_str!("../../macros/docs/action.md")]
    struct Action;
    #[doc = include_str!("../../macros/docs/action_error.md")]
    struct ActionErrorDerive;
    #[doc = include_str!("../../macros/docs/input.md")]
    struct Input;
    #[doc = include_str!("../../macros/docs/output.md")]
    struct Output;
    #[doc = include_str!("../../macros/docs/remote.md")]
    struct Remote;
    #[doc = include_str!("../../macros/docs/session.md")]
    struct Session;
    #[doc = include_str!("../../macros/docs/task.md")]
    struct Task;
}
