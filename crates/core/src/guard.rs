//! Guards: facts about a call that a function takes as parameters.

use std::any::{TypeId, type_name};
use std::future::Future;

use crate::connection::Connection;
use crate::context::Context;
use crate::error::{ActionError, ErrorKind};
use crate::node::Node;
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
/// # use phalanx_core::action::{ActionDef, BodyRules, Exposure, OnDisconnect};
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
/// #     finish_stream: false,
/// #     limits: Vec::new,
/// #     body: BodyRules::DEFAULT,
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
    label = "this is neither a guard nor an input",
    note = "an input is the last parameter: put `#[input]` on its type",
    note = "every other parameter is a guard: implement `phalanx::FromContext` for it"
)]
pub trait FromContext: Sized + Send {
    /// Whether the guard is established after the body has come and the input was decoded, instead of before.
    ///
    /// Guards run before a byte of the body is read, so that a refused request costs nothing; what they allow stays
    /// allowed while the body comes, `web.body_timeout` and more. What a guard returns is kept as long: one that returns a
    /// *thing* (a connection of a pool, a lock, a transaction) would keep it from others for as long as a client likes
    /// to send, so it says `true` here. One that returns a *fact* leaves it `false`.
    const AFTER_BODY: bool = false;

    /// Whether a call goes on without the fact, as with `Option<G>`. Such a guard is for functions: a group has none, because it
    /// would look like a protection and admit every call.
    const IS_OPTIONAL: bool = false;

    /// Establishes the fact, or refuses the call.
    ///
    /// # Errors
    ///
    /// The error that the client gets instead of the answer: `unauthenticated`, `forbidden`, ….
    fn from_context(ctx: &Context) -> impl Future<Output = Result<Self, ActionError>> + Send;

    /// Names the states that this guard reads, itself or by other guards, so that the boot fails if one is missing:
    /// `requirements.state::<T>()` for each [`Context::state`], `G::require(requirements)` for each [`Context::guard`].
    fn require(requirements: &mut Requirements) {
        let _ = requirements;
    }
}

/// A guard that the call can do without: `None` if it refuses as `unauthenticated`, whatever the code. Every other error
/// is the call's: that a backend is away makes no user a guest.
impl<G: FromContext> FromContext for Option<G> {
    const AFTER_BODY: bool = G::AFTER_BODY;
    const IS_OPTIONAL: bool = true;

    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        match G::from_context(ctx).await {
            Ok(guard) => Ok(Some(guard)),
            Err(refused) if refused.kind() == ErrorKind::Unauthenticated => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn require(requirements: &mut Requirements) {
        G::require(requirements);
    }
}

impl Context {
    /// Establishes another guard, for a guard that builds on it, for a layer or for the function itself.
    ///
    /// A guard that asks for another one hands on what that one needs, so that a state which is missing ends the boot and
    /// not the call:
    ///
    /// ```
    /// use phalanx_core::{ActionError, Context, FromContext, Requirements, State};
    ///
    /// struct Staff(Vec<String>);
    ///
    /// struct SignedIn(String);
    ///
    /// impl FromContext for SignedIn {
    ///     async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
    ///         let user = ctx.caller().headers.get("x-user").and_then(|user| user.to_str().ok());
    ///         user.map(|user| Self(user.to_owned())).ok_or_else(|| ActionError::unauthenticated("sign in first"))
    ///     }
    /// }
    ///
    /// /// A user who is one of the staff.
    /// struct Agent(SignedIn);
    ///
    /// impl FromContext for Agent {
    ///     async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
    ///         let (user, staff): (SignedIn, State<Staff>) = (ctx.guard().await?, ctx.state()?);
    ///         if !staff.0.contains(&user.0) {
    ///             return Err(ActionError::forbidden("agents only"));
    ///         }
    ///         Ok(Self(user))
    ///     }
    ///
    ///     fn require(requirements: &mut Requirements) {
    ///         SignedIn::require(requirements);
    ///         requirements.state::<Staff>();
    ///     }
    /// }
    /// ```
    ///
    /// It is established anew each time: a guard that is a parameter of an action, and is what another one builds on, runs twice.
    /// One whose [`FromContext::AFTER_BODY`] is `true` is for guards that say the same, and for the function.
    ///
    /// Cancel safe if the guard is.
    ///
    /// # Errors
    ///
    /// The guard's own.
    pub fn guard<G: FromContext>(&self) -> impl Future<Output = Result<G, ActionError>> + Send {
        G::from_context(self)
    }
}

/// The call itself, for what takes guards alone.
impl FromContext for Context {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        Ok(ctx.clone())
    }
}

/// The node that runs the call.
impl FromContext for Node {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        Ok(ctx.node().clone())
    }
}

impl FromContext for Connection {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        ctx.connection().cloned().ok_or_else(|| ActionError::forbidden("this action needs a websocket connection"))
    }
}

/// The needs of one function's guards, collected for the check at boot.
#[derive(Debug, Default)]
pub struct Requirements {
    states: Vec<(TypeId, &'static str)>,
    sessions: Vec<(TypeId, &'static str)>,
}

impl Requirements {
    /// Requires a state of type `T`.
    pub fn state<T: 'static>(&mut self) {
        self.states.push((TypeId::of::<T>(), type_name::<T>()));
    }

    /// Requires that sessions are of type `T`.
    pub(crate) fn session<T: 'static>(&mut self) {
        self.sessions.push((TypeId::of::<T>(), type_name::<T>()));
    }

    /// The types that `states` lacks.
    pub(crate) fn missing(&self, states: &States) -> Vec<&'static str> {
        self.states.iter().filter(|(id, _)| !states.contains(*id)).map(|(_, name)| *name).collect()
    }

    /// The types of sessions that are not the application's.
    pub(crate) fn other_sessions(&self, registered: Option<TypeId>) -> Vec<&'static str> {
        self.sessions.iter().filter(|(id, _)| Some(*id) != registered).map(|(_, name)| *name).collect()
    }
}
