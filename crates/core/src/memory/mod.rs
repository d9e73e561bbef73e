//! The embedded backend: everything nodes share, in the memory of the only one.

mod bus;
mod rooms;

pub use bus::MemoryBus;
pub use rooms::MemoryRooms;
