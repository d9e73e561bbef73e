//! Transports: the parts of a node that take work from outside, and how they stop.

use std::net::SocketAddr;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::engine::Engine;
use crate::error::BoxError;

/// A part of a node that takes work from outside: a listener for clients, the worker of the task queue. Parts start in
/// their order, and stop in reverse.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Its name in logs.
    fn name(&self) -> &'static str;

    /// Whether it is for operators: it starts before the node joins its cluster, and reports that the node is not ready.
    fn is_for_operators(&self) -> bool {
        false
    }

    /// Whether clients reach it: it goes on for `general.stop_delay` while the node stops.
    fn is_for_clients(&self) -> bool {
        false
    }

    /// The address that it listens on; `None` until it is bound, and for one that has none.
    fn listen_addr(&self) -> Option<SocketAddr> {
        None
    }

    /// Checks the definitions and settings that this part alone understands, before anything of the node starts.
    ///
    /// # Errors
    ///
    /// Ends the boot: what is wrong with them.
    fn check(&self, _engine: &Engine) -> Result<(), BoxError> {
        Ok(())
    }

    /// Binds and starts to accept, or to fetch.
    ///
    /// # Errors
    ///
    /// Ends the boot.
    async fn start(&self, engine: &Engine) -> Result<(), BoxError>;

    /// Takes no more work; what runs goes on.
    async fn stop_accepting(&self);

    /// Waits for running work, at most until `deadline`; then aborts it. Returns how much was abandoned: the node counts
    /// calls that run on beside it, also those of a request that was.
    async fn finish(&self, deadline: Instant) -> usize;
}

impl std::fmt::Debug for dyn Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transport({})", self.name())
    }
}
