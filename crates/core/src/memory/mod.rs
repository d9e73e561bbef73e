//! The embedded backend of a single node: all shared state in its memory.

mod bus;
mod cache;
mod limits;
mod locks;
mod membership;
mod rooms;
mod sessions;
mod tasks;

pub use bus::MemoryBus;
pub use cache::MemoryCache;
pub use limits::MemoryLimits;
pub use locks::MemoryLocks;
pub use membership::MemoryMembership;
pub use rooms::MemoryRooms;
pub use sessions::MemorySessions;
pub use tasks::MemoryTasks;

use std::sync::Arc;

use crate::backend::{Backend, Clock, SystemClock};
use crate::config::Config;

impl Backend {
    /// The embedded backend: one node, all shared state in its memory.
    pub fn memory(config: &Config) -> Self {
        Self::memory_with_clock(config, Arc::new(SystemClock::new()))
    }

    /// The embedded backend by this clock: the ttl of keys of the cache and of sessions, rate limits, and the times of jobs.
    pub fn memory_with_clock(config: &Config, clock: Arc<dyn Clock>) -> Self {
        let locks = Arc::new(MemoryLocks::new(clock.clone()));
        Self {
            cache: Arc::new(MemoryCache::new(locks.clone())),
            locks,
            limits: Arc::new(MemoryLimits::new(clock.clone(), config.limits.max_subjects)),
            membership: Arc::new(MemoryMembership::default()),
            bus: Arc::new(MemoryBus::new(config.rooms.bus_queue)),
            rooms: Arc::new(MemoryRooms::default()),
            tasks: Some(Arc::new(MemoryTasks::new(clock.clone(), config.tasks.failed_max))),
            sessions: Arc::new(MemorySessions::new(clock.clone(), config.session.max_in_memory)),
            interop: None,
            clock,
        }
    }
}
