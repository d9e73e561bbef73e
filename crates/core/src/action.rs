//! Actions: plain functions, each described once by data that every transport reads.

use std::fmt;
use std::time::Duration;

use schemars::Schema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::answer::{IntoAnswer, Outcome};
use crate::call::body::CallBody;
use crate::config::Config;
use crate::context::Context;
use crate::error::ActionError;
use crate::future::{BoxFuture, Deadline};
use crate::guard::Requirements;
use crate::limit::Limit;
use crate::params::Params;

/// The type that `#[action]` makes beside a function, so that `ctx.call::<name>(..)` knows its input and output.
pub trait Action: Send + Sync + 'static {
    /// The function's input. That it is an [`Input`](crate::params::Input) is required once, where [`ActionDef::input`]
    /// reads its schema: a bound here would hide that error behind three of serde, schemars and validator.
    type Input: 'static;
    /// The function's value on success.
    type Output: IntoAnswer;
    /// Its definition.
    const DEF: ActionDef;
}

/// An action as data, for the registry to list, sort, print and run.
#[derive(Clone, Copy)]
pub struct ActionDef {
    /// Its name, the same on every transport.
    pub name: &'static str,
    /// Its version; a request without one gets the newest.
    pub version: u32,
    /// The doc comment of the function.
    pub description: &'static str,
    /// Its HTTP routes; empty means that HTTP does not reach it.
    pub routes: &'static [Route],
    /// The transports that reach it by name.
    pub exposure: Exposure,
    /// Whether pages of any other site may send requests with unsafe methods to its routes.
    pub cross_site: bool,
    /// How long it may run.
    pub deadline: Deadline,
    /// Its fate when its client leaves. A body that names another version does not change it.
    pub on_disconnect: OnDisconnect,
    /// Whether its streams run to their end while the node stops, within `general.grace`.
    pub finish_stream: bool,
    /// Its limits, beside those of its groups.
    pub limits: fn() -> Vec<Limit>,
    /// The bounds and the form of its HTTP body.
    pub body: BodyRules,
    /// The schema of its input.
    pub input: fn() -> Schema,
    /// The schema of its output.
    pub output: fn() -> Schema,
    /// Names the needs of its guards, for the check at boot.
    pub require: fn(&mut Requirements),
    /// Extracts guards, reads the body, decodes the input, runs the function and encodes its value.
    ///
    /// Limits by session and by user count when it reads the body. If it drops the body at once they count before it runs; if
    /// it keeps the body without reading it, they count when it has answered, and replace the answer of a call beyond them.
    pub run: fn(Context, CallBody) -> BoxFuture<'static, Outcome>,
}

impl ActionDef {
    /// How long it may run; `None` without a limit.
    pub(crate) fn limit(&self, config: &Config) -> Option<Duration> {
        self.deadline.limit(config.general.action_deadline).filter(|limit| !limit.is_zero())
    }
}

/// The bounds and the form of an action's HTTP body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyRules {
    /// Most bytes, files excluded; `None` means `web.max_body`.
    pub max_body: Option<u64>,
    /// Most bytes with files; `None` means `web.max_upload`.
    pub max_upload: Option<u64>,
    /// Whether the bytes are kept as they came instead of being read into params.
    pub is_raw: bool,
}

impl BodyRules {
    /// Those of the settings, read into params.
    pub const DEFAULT: Self = Self { max_body: None, max_upload: None, is_raw: false };
}

impl fmt::Debug for ActionDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{}", self.name, self.version)
    }
}

/// A method and a path under the prefix of actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The method of the request.
    pub method: Method,
    /// The path, axum's syntax: `/users/{id}`, `/files/{*rest}`; empty means the action's name.
    pub path: &'static str,
}

/// The methods of routes. `GET` answers `HEAD` as well; `OPTIONS` belongs to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// Reads.
    Get,
    /// Creates, or has any other effect.
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

/// The transports that reach an action by its name, beside its HTTP routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// WebSocket clients by name, HTTP by its routes.
    Public,
    /// HTTP by its routes; sockets get `forbidden`.
    HttpOnly,
    /// `ctx.call`, tasks and the command line; for clients it does not exist.
    Internal,
}

/// The fate of a running action when its client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It runs to its end; its answer is dropped.
    Finish,
    /// Its future is dropped.
    Cancel,
}

/// The return type of an action: a `Result` whose value converts into an answer, and whose error into an [`ActionError`].
#[diagnostic::on_unimplemented(
    message = "an action returns a `Result`, not `{Self}`",
    label = "this must be `Result<T, E>`",
    note = "the value needs `#[output]`, or to be a `Reply` or a `Body`; the error needs `impl From<E> for ActionError`"
)]
pub trait ActionResult {
    /// The value on success.
    type Value: IntoAnswer;
    /// The value encoded, or the error that clients get.
    ///
    /// # Errors
    ///
    /// The function's own error, converted; `internal` if the value cannot be encoded.
    fn outcome(self) -> Outcome;
}

impl<T: IntoAnswer, E: IntoActionError> ActionResult for Result<T, E> {
    type Value = T;

    fn outcome(self) -> Outcome {
        self.map_err(E::into_action_error)?.into_answer()
    }
}

/// An error of an action: any type that converts into an [`ActionError`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of an action",
    label = "this error does not convert into `ActionError`",
    note = "put `#[derive(ActionError)]` on an enum of errors, or write `impl From<{Self}> for ActionError`",
    note = "an error of another crate that is the server's own fault: `.or_internal()?`"
)]
pub trait IntoActionError {
    /// The error that clients get.
    fn into_action_error(self) -> ActionError;
}

#[diagnostic::do_not_recommend]
impl<E: Into<ActionError>> IntoActionError for E {
    fn into_action_error(self) -> ActionError {
        self.into()
    }
}

impl Context {
    /// Calls another action of this application, through the same layers, guards and validation as any client.
    ///
    /// It has its own deadline, and ends with this call in any case; it is counted under its own name.
    ///
    /// Cancel safe: dropping the future drops the call.
    ///
    /// # Errors
    ///
    /// The other action's own; `timeout` at its deadline; `internal` if calls nest deeper than [`Context::MAX_DEPTH`].
    pub async fn call<A>(&self, input: A::Input) -> Result<A::Output, ActionError>
    where
        A: Action,
        A::Input: Serialize,
        A::Output: DeserializeOwned,
    {
        self.call_encoded::<A>(&input).await?.decode()
    }

    /// Calls another action and returns its answer as it is: for answers with a status, and for bodies.
    ///
    /// # Errors
    ///
    /// Those of [`Context::call`].
    pub async fn call_encoded<A>(&self, input: &A::Input) -> Outcome
    where
        A: Action,
        A::Input: Serialize,
    {
        let input = serde_json::value::to_raw_value(input).map_err(ActionError::internal)?;
        self.call_action((A::DEF.name, Some(A::DEF.version)), Params::from_raw_json(input)?).await
    }
}

/// Lists actions for `App::actions`: `actions![greet, users::create]`.
#[macro_export]
macro_rules! actions {
    ($($action:path),* $(,)?) => {
        [$(<$action as $crate::Action>::DEF),*]
    };
}
