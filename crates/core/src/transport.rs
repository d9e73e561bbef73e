//! Transports: listeners for clients, and how they stop.

use async_trait::async_trait;
use tokio::time::Instant;

use crate::engine::Engine;
use crate::error::BoxError;

/// A listener that accepts clients for a node.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Its name in logs.
    fn name(&self) -> &'static str;

    /// Whether it is for operators: it starts before the node joins its cluster, and reports that the node is not ready.
    fn is_for_operators(&self) -> bool {
        false
    }

    /// Binds and starts to accept.
    ///
    /// # Errors
    ///
    /// Ends the boot.
    async fn start(&self, engine: &Engine) -> Result<(), BoxError>;

    /// Accepts no more clients; running requests continue.
    async fn stop_accepting(&self);

    /// Waits for running requests, at most until `deadline`; then aborts them.
    async fn finish(&self, deadline: Instant);
}

impl std::fmt::Debug for dyn Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transport({})", self.name())
    }
}
