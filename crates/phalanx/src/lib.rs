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
//! async fn greet(_ctx: Context, input: Greet) -> Result<Greeting, ActionError> {
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

pub use std::process::ExitCode;

pub use app::{App, RunningApp};

pub use axum;
pub use phalanx_core::*;
pub use phalanx_macros::{action, input, output, remote};

/// The imports that most files of an application need.
pub mod prelude {
    pub use crate::App;
    pub use phalanx_core::connection::CloseReason;
    pub use phalanx_core::hooks::{ConnectionHook, Handshake, Heard, Leaving, RecipientHook, RoomHook, Said};
    pub use phalanx_core::initializer::{Boot, Initializer};
    pub use phalanx_core::layer::{Call, Layer, Next};
    pub use phalanx_core::params::Upload;
    pub use phalanx_core::{
        ActionError, Body, Connection, ConnectionId, Context, Cookie, Detail, ErrorKind, FromContext, NoInput, Node,
        Outcome, Reply, Requirements, State, actions, remotes,
    };
    pub use phalanx_macros::{action, input, output, remote};

    pub use async_trait::async_trait;
    pub use phalanx_core::http::StatusCode;
}
