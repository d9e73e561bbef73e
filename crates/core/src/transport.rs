//! How clients reach a node: what listens, and how it stops.

use async_trait::async_trait;
use tokio::time::Instant;

use crate::initializer::BoxError;
use crate::node::Node;

/// Something that accepts clients for a node.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Its name in logs.
    fn name(&self) -> &'static str;

    /// Whether it is for operators: it starts before the node joins its cluster, and says that the node is not ready.
    fn is_for_operators(&self) -> bool {
        false
    }

    /// Binds and begins to accept.
    ///
    /// # Errors
    ///
    /// Ends the boot.
    async fn start(&self, node: &Node) -> Result<(), BoxError>;

    /// Accepts nobody any more; what runs goes on.
    async fn stop_accepting(&self);

    /// Waits for what runs, at most until `deadline`; then breaks it off.
    async fn finish(&self, deadline: Instant);
}

impl std::fmt::Debug for dyn Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transport({})", self.name())
    }
}
