//! What nodes share, over Redis: the seams of `phalanx-core`, a file each.
//!
//! Every operation is one step: a command, or a script where it takes more than one. Where Redis does not answer within
//! its time, the caller is told `unavailable`, which means that nobody knows whether it happened.

use std::sync::Arc;

use phalanx_core::backend::{Backend, BackendError};
use phalanx_core::config::Config;

mod bus;
mod cache;
mod client;
mod clock;
mod envelope;
mod keys;
mod locks;
mod membership;
mod own_name;
mod publisher;
mod reaper;
mod rooms;
mod subscriber;

pub use bus::{BusSettings, RedisBus};
pub use cache::RedisCache;
pub use client::Client;
pub use clock::RedisClock;
pub use keys::Keys;
pub use locks::RedisLocks;
pub use membership::RedisMembership;
pub use own_name::OwnName;
pub use rooms::RedisRooms;

/// The backend of a node called `node` in the cluster `cluster`. Connects in the background; must be called in a runtime.
///
/// # Errors
///
/// If the URL is none.
pub fn backend(url: &str, cluster: &str, node: &str, config: &Config) -> Result<Backend, BackendError> {
    let client = Client::open(url, config.redis.command_timeout)?;
    let keys = Keys::new(&config.redis.prefix, cluster);
    let (clock, own) = (Arc::new(RedisClock::default()), OwnName::default());
    let settings = BusSettings {
        node: node.to_owned(),
        token: config.general.server_token.clone(),
        previous_token: config.general.previous_server_token.clone(),
        queue: config.rooms.bus_queue,
    };
    Ok(Backend {
        cache: Arc::new(RedisCache::new(client.clone(), keys.clone())),
        locks: Arc::new(RedisLocks::new(client.clone(), keys.clone(), own.clone())),
        membership: Arc::new(RedisMembership::new(client.clone(), keys.clone(), clock.clone())),
        rooms: Arc::new(RedisRooms::new(client.clone(), keys.clone(), node)),
        bus: Arc::new(RedisBus::new(client, keys, clock.clone(), own, settings)),
        clock,
    })
}
