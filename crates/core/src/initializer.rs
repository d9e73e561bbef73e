//! Initializers: parts of an application that are prepared before the first call, in the order of their dependencies.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::time::timeout;

use crate::config::Config;
use crate::error::{BoxError, Panicked};
use crate::metrics::bound_reached;
use crate::node::Node;
use crate::registry::Definitions;

/// A part of an application that is prepared, started and stopped: a pool, a client, a task.
///
/// All `initialize` before any `start`; `stop` in reverse order of `start`. Each of them may take
/// `general.initializer_timeout`; then it is dropped, which like a panic counts as its error.
///
/// ```
/// use phalanx_core::initializer::{Boot, Initializer};
/// use phalanx_core::{BoxError, Node};
///
/// struct Pool { /* connections to a database */ }
///
/// struct Database;
///
/// #[async_trait::async_trait]
/// impl Initializer for Database {
///     fn name(&self) -> &'static str {
///         "database"
///     }
///
///     async fn initialize(&self, boot: &mut Boot<'_>) -> Result<(), BoxError> {
///         boot.definitions.states.insert(Pool {}); // actions take it as `State<Pool>`
///         Ok(())
///     }
///
///     async fn stop(&self, _: &Node) {
///         // close the pool
///     }
/// }
///
/// # use std::sync::Arc;
/// # use phalanx_core::config::Config;
/// # use phalanx_core::{Engine, NodeSetup};
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mut setup = NodeSetup::new("docs", Config::default());
/// # setup.initializers.push(Arc::new(Database));
/// # let engine = Engine::start(setup).await?;
/// # assert!(engine.node().state::<Pool>().is_some());
/// # engine.stop().await;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Initializer: Send + Sync + 'static {
    /// Its name, for the log and for initializers that come after it.
    fn name(&self) -> &'static str;

    /// The names of the initializers that must be ready before it.
    fn after(&self) -> &'static [&'static str] {
        &[]
    }

    /// Prepares the part; may add states, hooks and actions.
    ///
    /// # Errors
    ///
    /// Ends the boot.
    async fn initialize(&self, boot: &mut Boot<'_>) -> Result<(), BoxError> {
        let _ = boot;
        Ok(())
    }

    /// Starts the part, before clients are served.
    ///
    /// # Errors
    ///
    /// Ends the boot.
    async fn start(&self, node: &Node) -> Result<(), BoxError> {
        let _ = node;
        Ok(())
    }

    /// Stops the part, after the last call. A failure is logged, and the others are stopped all the same.
    async fn stop(&self, node: &Node) {
        let _ = node;
    }
}

impl std::fmt::Debug for dyn Initializer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Initializer({})", self.name())
    }
}

/// The settings and definitions that an initializer sees, and may add to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Boot<'a> {
    /// The node's settings.
    pub config: &'a Config,
    /// The definitions of the application so far.
    pub definitions: &'a mut Definitions,
}

/// Runs one step of an initializer, at most for `limit` unless that is zero. A panic is an error like any other.
pub(crate) async fn run_step(
    limit: Duration,
    step: impl Future<Output = Result<(), BoxError>>,
) -> Result<(), BoxError> {
    // A late step is dropped inside, and its drop may panic too.
    let in_time = async move {
        if limit.is_zero() {
            return step.await;
        }
        timeout(limit, step).await.unwrap_or_else(|_| {
            bound_reached("general.initializer_timeout");
            Err(format!("did not end within {limit:?} (general.initializer_timeout)").into())
        })
    };
    AssertUnwindSafe(in_time).catch_unwind().await.unwrap_or_else(|panic| Err(Panicked::with(&*panic).into()))
}

/// Why the initializers have no order.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OrderError {
    /// Two have one name.
    #[error("two initializers are called {0:?}")]
    Doubled(&'static str),
    /// One comes after another that does not exist.
    #[error("initializer {0:?} comes after {1:?}, and there is no such initializer")]
    Unknown(&'static str, &'static str),
    /// They wait for each other.
    #[error("these initializers wait for each other: {0}")]
    Cycle(String),
}

/// Sorts initializers so that each comes after those it names; otherwise in the order in which they were given.
pub(crate) fn in_order(given: &[Arc<dyn Initializer>]) -> Result<Vec<Arc<dyn Initializer>>, OrderError> {
    let mut known = BTreeMap::new();
    for initializer in given {
        if known.insert(initializer.name(), ()).is_some() {
            return Err(OrderError::Doubled(initializer.name()));
        }
    }
    for initializer in given {
        if let Some(missing) = initializer.after().iter().find(|name| !known.contains_key(*name)) {
            return Err(OrderError::Unknown(initializer.name(), missing));
        }
    }
    let mut waiting: Vec<_> = given.to_vec();
    let mut sorted: Vec<Arc<dyn Initializer>> = Vec::with_capacity(given.len());
    while !waiting.is_empty() {
        let is_ready = |initializer: &Arc<dyn Initializer>| {
            initializer.after().iter().all(|name| sorted.iter().any(|done| done.name() == *name))
        };
        let Some(next) = waiting.iter().position(is_ready) else {
            let names: Vec<_> = waiting.iter().map(|initializer| initializer.name()).collect();
            return Err(OrderError::Cycle(names.join(", ")));
        };
        sorted.push(waiting.remove(next));
    }
    Ok(sorted)
}

#[cfg(test)]
mod tests;
