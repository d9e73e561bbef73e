//! What an action is: a plain function, described once by data that every transport reads.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use schemars::Schema;

use crate::answer::{IntoAnswer, Outcome};
use crate::context::{Context, Requirements};
use crate::error::ActionError;
use crate::params::{Input, Params};

/// A future that owns or borrows what it needs, behind one pointer.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The type that `#[action]` makes beside a function, so that `ctx.call::<name>(..)` knows its input and output.
pub trait Action: Send + Sync + 'static {
    /// What the function takes. That it is an [`Input`] is asked once, where [`ActionDef::input`] reads its schema: a
    /// bound here would hide what that error says behind three of serde, schemars and validator.
    type Input: 'static;
    /// What the function returns when all goes well.
    type Output: IntoAnswer;
    /// Everything else about it.
    const DEF: ActionDef;
}

/// An action as data: what the registry lists, sorts, prints and runs.
#[derive(Clone, Copy)]
pub struct ActionDef {
    /// Its name, the same on every transport.
    pub name: &'static str,
    /// Its version; none asked for means the newest.
    pub version: u32,
    /// The doc comment of the function.
    pub description: &'static str,
    /// Where HTTP finds it; empty means nowhere.
    pub routes: &'static [Route],
    /// Who may reach it.
    pub exposure: Exposure,
    /// How long it may run.
    pub deadline: Deadline,
    /// What happens to it when its client leaves.
    pub on_disconnect: OnDisconnect,
    /// The schema of its input.
    pub input: fn() -> Schema,
    /// The schema of its output.
    pub output: fn() -> Schema,
    /// Names what its guards need, for the check at boot.
    pub require: fn(&mut Requirements),
    /// Extracts guards, decodes the input, runs the function and encodes what it returns.
    pub run: fn(Context, Params) -> BoxFuture<'static, Outcome>,
}

impl fmt::Debug for ActionDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{}", self.name, self.version)
    }
}

/// A method and a path under the prefix of actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The method that is asked for.
    pub method: Method,
    /// The path, axum's syntax: `/users/{id}`, `/files/{*rest}`; empty means the action's name.
    pub path: &'static str,
}

/// The methods an action may ask for. `GET` answers `HEAD` as well; `OPTIONS` belongs to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// Reads.
    Get,
    /// Creates, or anything else.
    Post,
    /// Replaces.
    Put,
    /// Changes.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    /// The method's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// Who may reach an action, beside the routes it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// WebSocket clients by name, HTTP by its routes.
    Public,
    /// HTTP by its routes; sockets are told `forbidden`.
    HttpOnly,
    /// `ctx.call`, tasks and the command line; to clients it does not exist.
    Internal,
}

/// How long an action may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// As long as `general.action_deadline` says.
    Default,
    /// This long; then its future is dropped and the caller gets `timeout`.
    After(Duration),
    /// As long as it likes.
    Never,
}

/// What happens to a running action when its client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It runs to its end; nobody hears the answer.
    Finish,
    /// Its future is dropped.
    Cancel,
}

/// What an action's function may return: a `Result` whose value can be an answer and whose error can be told.
#[diagnostic::on_unimplemented(
    message = "an action returns a `Result`, not `{Self}`",
    label = "this must be `Result<T, E>`",
    note = "the value needs `#[output]`, or to be a `Reply` or a `Body`; the error needs `impl From<E> for ActionError`"
)]
pub trait Returned {
    /// The value when all goes well.
    type Value: IntoAnswer;
    /// The value encoded, or the error as clients learn it.
    ///
    /// # Errors
    ///
    /// The function's own error, converted; `internal` if the value cannot be encoded.
    fn outcome(self) -> Outcome;
}

impl<T: IntoAnswer, E: IntoActionError> Returned for Result<T, E> {
    type Value = T;

    fn outcome(self) -> Outcome {
        self.map_err(E::into_action_error)?.into_answer()
    }
}

/// What an action's error must be: something that converts into an [`ActionError`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of an action",
    label = "this error does not convert into `ActionError`",
    note = "write `impl From<{Self}> for ActionError`: what clients are told is decided there"
)]
pub trait IntoActionError {
    /// The error as clients learn it.
    fn into_action_error(self) -> ActionError;
}

#[diagnostic::do_not_recommend]
impl<E: Into<ActionError>> IntoActionError for E {
    fn into_action_error(self) -> ActionError {
        self.into()
    }
}

/// Lists actions for `App::actions`: `actions![greet, users::create]`.
#[macro_export]
macro_rules! actions {
    ($($action:path),* $(,)?) => {
        [$(<$action as $crate::Action>::DEF),*]
    };
}

/// The schema of an input, as clients must send it.
pub fn input_schema<T: Input>() -> Schema {
    let settings = schemars::generate::SchemaSettings::draft2020_12().for_deserialize();
    settings.into_generator().into_root_schema_for::<T>()
}
