//! The seams to a backend, a file each: what nodes share, and what may lie behind it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

mod bus;
mod cache;
mod foreign;
mod locks;
mod membership;
mod rooms;

pub use bus::{
    Arrival, Bus, KeptAlive, Letter, LetterKind, Message, MessageKind, Missed, Posted, Recipient, Subscription,
};
pub use cache::{CacheStore, Dumped, Page, Stored};
pub use foreign::{Asked, Foreign};
pub use locks::{Held, LockStore};
pub use membership::{Departed, LEASE, Leaves, Membership, NodeRecord, OVERDUE, Renewal, SEEN, Standing};
pub use rooms::{Added, Joined, Left, Member, Members, RoomStore};

use crate::config::Config;
use crate::error::{ActionError, ErrorKind};
use crate::memory::{MemoryBus, MemoryCache, MemoryLocks, MemoryMembership, MemoryRooms};

/// Why a backend did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// It did not answer: whether it happened is unknown.
    #[error("the backend does not answer: {0}")]
    Unavailable(Box<dyn Error + Send + Sync>),
    /// What is stored under the key is of another kind.
    #[error("what is stored under {key:?} is of another kind")]
    WrongKind {
        /// The key.
        key: String,
    },
    /// It holds as much as it may; nothing was stored.
    #[error("the backend is full")]
    Full,
    /// Somebody else holds the lock of the key.
    #[error("{key:?} is locked")]
    Locked {
        /// The key.
        key: String,
    },
}

impl BackendError {
    /// Nobody answers, for a reason in words.
    pub fn unavailable(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(reason.into())
    }
}

impl From<BackendError> for ActionError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Unavailable(_) => {
                Self::of(ErrorKind::Unavailable, "the backend did not answer: whether it happened is unknown")
                    .with_retry_after(Duration::from_secs(1))
                    .with_source(error)
            }
            BackendError::Full => {
                Self::of(ErrorKind::Unavailable, "the backend is full, nothing was stored").with_source(error)
            }
            BackendError::Locked { .. } => {
                Self::new(ErrorKind::Conflict, "locked", "somebody else holds the lock").with_source(error)
            }
            BackendError::WrongKind { .. } => Self::internal(error),
        }
    }
}

/// The time, as nodes agree on it.
pub trait Clock: Send + Sync + 'static {
    /// Unix time in microseconds.
    fn now_us(&self) -> u64;

    /// Unix time in milliseconds.
    fn now_ms(&self) -> u64 {
        self.now_us() / 1000
    }
}

/// The time of this machine. It goes on with tokio's, so that a paused clock pauses it.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start_us: u64,
    started: Instant,
}

impl SystemClock {
    /// Reads the machine's clock once.
    pub fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start_us: since.as_micros() as u64, started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now_us(&self) -> u64 {
        self.start_us + self.started.elapsed().as_micros() as u64
    }
}

/// Everything nodes share, behind its seams.
pub struct Backend {
    /// Values, lists and counters.
    pub cache: Arc<dyn CacheStore>,
    /// Locks.
    pub locks: Arc<dyn LockStore>,
    /// Which nodes there are.
    pub membership: Arc<dyn Membership>,
    /// Messages.
    pub bus: Arc<dyn Bus>,
    /// Rooms and their members.
    pub rooms: Arc<dyn RoomStore>,
    /// Nodes of another make, where the cluster has any.
    pub foreign: Option<Arc<dyn Foreign>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Backend {
    /// The embedded backend: one node, everything in memory.
    pub fn memory(config: &Config) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let locks = Arc::new(MemoryLocks::new(clock.clone()));
        Self {
            cache: Arc::new(MemoryCache::new(locks.clone())),
            locks,
            membership: Arc::new(MemoryMembership::default()),
            bus: Arc::new(MemoryBus::new(config.rooms.bus_queue)),
            rooms: Arc::new(MemoryRooms::default()),
            foreign: None,
            clock,
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backend")
    }
}
