//! The seams to a backend, a file each.

use std::sync::Arc;

mod bus;
mod rooms;

pub use bus::{Bus, Message, MessageKind};
pub use rooms::{Added, Joined, Member, Members, RoomStore};

use crate::cache::Cache;
use crate::locks::Locks;

/// STUB
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// x
    #[error("{0}")]
    Unavailable(String),
}
impl BackendError {
    /// x
    pub fn unavailable(text: &str) -> Self {
        Self::Unavailable(text.into())
    }
}
impl From<BackendError> for crate::ActionError {
    fn from(error: BackendError) -> Self {
        Self::of(crate::ErrorKind::Unavailable, "x").with_source(error)
    }
}
/// STUB
pub trait Clock: Send + Sync + 'static {
    /// x
    fn now_ms(&self) -> u64;
}

/// Everything nodes share, behind its seams.
pub struct Backend {
    /// Values, lists and counters.
    pub cache: Cache,
    /// Locks.
    pub locks: Locks,
    /// Messages.
    pub bus: Arc<dyn Bus>,
    /// Rooms and their members.
    pub rooms: Arc<dyn RoomStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}
