//! The application's own state, shared by its actions, by type.

use std::any::type_name;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::context::Context;
use crate::error::ActionError;
use crate::guard::{FromContext, Requirements};

/// A part of the application that its actions share, by type; given to `App::state`, checked at boot.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use phalanx_core::State;
///
/// #[derive(Default)]
/// struct Visits(AtomicU64);
///
/// // The body of an action that takes `visits: State<Visits>` before its input.
/// fn count(visits: State<Visits>) -> u64 {
///     visits.0.fetch_add(1, Relaxed) + 1
/// }
///
/// let visits = State::new(Visits::default());
/// assert_eq!((count(visits.clone()), count(visits)), (1, 2));
/// ```
pub struct State<T: ?Sized>(Arc<T>);

impl<T> State<T> {
    /// Wraps a value, as for a unit test of a function that takes it.
    pub fn new(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T: ?Sized> Clone for State<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: ?Sized> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Send + Sync + 'static> FromContext for State<T> {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        ctx.state()
    }

    fn require(requirements: &mut Requirements) {
        requirements.state::<T>();
    }
}

impl Context {
    /// The state of that type, for a guard or a layer. An action takes it as a parameter, and a guard names it in
    /// [`FromContext::require`]: then the boot finds that it is missing.
    ///
    /// # Errors
    ///
    /// `internal` if the application has none.
    pub fn state<T: Send + Sync + 'static>(&self) -> Result<State<T>, ActionError> {
        let missing = || ActionError::internal(MissingState(type_name::<T>()));
        self.node().state::<T>().map(State).ok_or_else(missing)
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "the application has no state of type {0}: add it by `App::state`, and name it in `require` of the guard that reads it"
)]
struct MissingState(&'static str);
