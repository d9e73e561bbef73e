//! The embedded backend: everything nodes share, in the memory of the only one.

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
