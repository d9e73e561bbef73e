//! What nodes share, over Redis: the seams of `phalanx-core`, a file each.
//!
//! Every operation is one step: a command, or a script where it takes more than one. Where Redis does not answer within
//! its time, the caller is told `unavailable`, which means that nobody knows whether it happened.

mod cache;
mod client;
mod keys;
mod locks;

pub use cache::RedisCache;
pub use client::Client;
pub use keys::Keys;
pub use locks::RedisLocks;
