//! The embedded backend of a single node: all shared state in its memory.

mod bus;
mod cache;
mod locks;
mod membership;
mod rooms;

pub use bus::MemoryBus;
pub use cache::MemoryCache;
pub use locks::MemoryLocks;
pub use membership::MemoryMembership;
pub use rooms::MemoryRooms;
