//! The memory backend keeps every law of its seams.

mod bus;
mod cache;
mod locks;
mod membership;
mod rooms;
