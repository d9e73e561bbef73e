//! The last parameter of a function: its input, or, without one, a guard.

use std::future::{Future, ready};

use crate::context::Context;
use crate::error::ActionError;
use crate::guard::{FromContext, Requirements};
use crate::params::{Input, NoInput};

/// The last parameter of an action, a task or a remote method: its input, or a guard if it has none.
///
/// Each guard is one, and `#[input]` makes a type one. A type whose derives are written by hand says so itself:
///
/// ```
/// use phalanx_core::schemars::JsonSchema;
/// use phalanx_core::serde::Deserialize;
/// use phalanx_core::validator::Validate;
/// use phalanx_core::{InputRole, LastParameter};
///
/// #[derive(Deserialize, JsonSchema, Validate)]
/// # #[serde(crate = "phalanx_core::serde")]
/// # #[schemars(crate = "phalanx_core::schemars")]
/// # #[validate(crate = "phalanx_core::validator")]
/// struct Search {
///     text: String,
/// }
///
/// impl LastParameter for Search {
///     type Input = Self;
///     type Role = InputRole;
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a parameter of an action",
    label = "this is neither a guard nor an input",
    note = "an input is the last parameter: put `#[input]` on its type",
    note = "every other parameter is a guard: implement `phalanx::FromContext` for it"
)]
pub trait LastParameter: Sized {
    /// The input of its function: the type itself, or [`NoInput`] if it is a guard.
    type Input;
    /// Which of the two it is: [`InputRole`] or [`GuardRole`].
    type Role;
}

#[diagnostic::do_not_recommend]
impl<G: FromContext> LastParameter for G {
    type Input = NoInput;
    type Role = GuardRole;
}

impl LastParameter for NoInput {
    type Input = Self;
    type Role = InputRole;
}

/// The steps by which a call gets its last parameter, in the order in which the generated code takes them.
pub trait ParameterRole<P: LastParameter> {
    /// The result of the step before the body.
    type Early: Send;
    /// The result of the step that decodes the input.
    type Decoded: Send;

    /// Names its needs, for the check at boot.
    fn require(requirements: &mut Requirements);

    /// Establishes a guard that needs no body.
    ///
    /// # Errors
    ///
    /// The guard's own.
    fn before_body(ctx: &Context) -> impl Future<Output = Result<Self::Early, ActionError>> + Send;

    /// Decodes an input.
    ///
    /// # Errors
    ///
    /// Those of `decode`.
    fn decode(
        early: Self::Early,
        decode: impl FnOnce() -> Result<P::Input, ActionError>,
    ) -> Result<Self::Decoded, ActionError>;

    /// Establishes a guard that comes after the body.
    ///
    /// # Errors
    ///
    /// The guard's own.
    fn after_body(decoded: Self::Decoded, ctx: &Context) -> impl Future<Output = Result<P, ActionError>> + Send;
}

/// The role of an input.
#[derive(Debug)]
pub enum InputRole {}

/// Without a state of its own: a function with an input is as if there were no other kind of last parameter.
impl<T: Input + LastParameter<Input = T>> ParameterRole<T> for InputRole {
    type Early = ();
    type Decoded = T;

    fn require(_: &mut Requirements) {}

    fn before_body(_: &Context) -> impl Future<Output = Result<(), ActionError>> + Send {
        ready(Ok(()))
    }

    fn decode((): (), decode: impl FnOnce() -> Result<T, ActionError>) -> Result<T, ActionError> {
        decode()
    }

    fn after_body(decoded: T, _: &Context) -> impl Future<Output = Result<T, ActionError>> + Send {
        ready(Ok(decoded))
    }
}

/// The role of a guard.
#[derive(Debug)]
pub enum GuardRole {}

impl<G: FromContext> ParameterRole<G> for GuardRole {
    type Early = Option<G>;
    type Decoded = Option<G>;

    fn require(requirements: &mut Requirements) {
        G::require(requirements);
    }

    async fn before_body(ctx: &Context) -> Result<Option<G>, ActionError> {
        if G::AFTER_BODY { Ok(None) } else { G::from_context(ctx).await.map(Some) }
    }

    fn decode(early: Option<G>, _: impl FnOnce() -> Result<NoInput, ActionError>) -> Result<Option<G>, ActionError> {
        Ok(early)
    }

    async fn after_body(decoded: Option<G>, ctx: &Context) -> Result<G, ActionError> {
        match decoded {
            Some(guard) => Ok(guard),
            None => G::from_context(ctx).await,
        }
    }
}
