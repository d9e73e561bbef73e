//! Guards: facts about a call that a function takes as parameters.

use std::any::{TypeId, type_name};
use std::future::Future;

use crate::connection::Connection;
use crate::context::Context;
use crate::error::ActionError;
use crate::states::States;

/// A guard: a fact about the call that a function takes as a parameter, and cannot run without.
///
/// ```
/// use phalanx_core::{ActionError, Context, FromContext};
///
/// /// The caller's user, by a header that a trusted proxy sets.
/// struct SignedIn(String);
///
/// impl FromContext for SignedIn {
///     async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
///         let user = ctx.caller().headers.get("x-user").and_then(|user| user.to_str().ok());
///         user.map(|user| Self(user.to_owned())).ok_or_else(|| ActionError::unauthenticated("sign in first"))
///     }
/// }
///
/// # use phalanx_core::action::{ActionDef, Exposure, OnDisconnect};
/// # use phalanx_core::answer::{Answer, answering};
/// # use phalanx_core::config::Config;
/// # use phalanx_core::dispatch::call_internal;
/// # use phalanx_core::params::{Params, input_schema};
/// # use phalanx_core::registry::Definitions;
/// # use phalanx_core::{Deadline, Engine, NoInput, NodeSetup};
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let def = ActionDef {
/// #     name: "example",
/// #     version: 1,
/// #     description: "",
/// #     routes: &[],
/// #     exposure: Exposure::Public,
/// #     cross_site: false,
/// #     deadline: Deadline::Default,
/// #     on_disconnect: OnDisconnect::Finish,
/// #     input: input_schema::<NoInput>,
/// #     output: input_schema::<NoInput>,
/// #     require: |_| {},
/// #     run: |ctx, _| {
/// #         answering(async move { Answer::json(&SignedIn::from_context(&ctx).await?.0) })
/// #     },
/// # };
/// # let mut setup = NodeSetup::new("docs", Config::default());
/// # setup.definitions.actions.push(def);
/// # let engine = Engine::start(setup).await?;
/// # let answer = call_internal(&engine, "example", None, Params::default()).await;
/// # assert_eq!(answer.unwrap_err().code(), "unauthenticated");
/// # engine.stop().await;
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a parameter of an action",
    label = "the parameters between `Context` and the input are guards",
    note = "implement `phalanx::FromContext` for it, or put `#[input]` on it and make it the last parameter"
)]
pub trait FromContext: Sized + Send {
    /// Establishes the fact, or refuses the call.
    ///
    /// # Errors
    ///
    /// The error that the client gets instead of the answer: `unauthenticated`, `forbidden`, ….
    fn from_context(ctx: &Context) -> impl Future<Output = Result<Self, ActionError>> + Send;

    /// Names the states that this guard reads, so that the boot fails if one is missing.
    fn require(requirements: &mut Requirements) {
        let _ = requirements;
    }
}

impl FromContext for Connection {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        ctx.connection().cloned().ok_or_else(|| ActionError::forbidden("this action needs a websocket connection"))
    }
}

/// The needs of one function's guards, collected for the check at boot.
#[derive(Debug, Default)]
pub struct Requirements(Vec<(TypeId, &'static str)>);

impl Requirements {
    /// Requires a state of type `T`.
    pub fn state<T: 'static>(&mut self) {
        self.0.push((TypeId::of::<T>(), type_name::<T>()));
    }

    /// The types that `states` lacks.
    pub(crate) fn missing(&self, states: &States) -> Vec<&'static str> {
        self.0.iter().filter(|(id, _)| !states.contains(*id)).map(|(_, name)| *name).collect()
    }
}
