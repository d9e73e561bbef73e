//! The shared state of a cluster over Redis: the seams of `phalanx-core`, one file each.
//!
//! Every operation is one atomic step: a command, or a script where it takes more than one. If Redis does not answer
//! within the timeout, the caller gets `unavailable`: the operation may or may not have run. If Redis replies that it
//! refuses, nothing ran, and the log has its words.

use std::error::Error;
use std::sync::Arc;

use phalanx_core::backend::{Backend, Interop};
use phalanx_core::config::Config;

mod address;
mod bus;
mod cache;
mod client;
mod clock;
mod current_generation;
mod diagnosis;
mod envelope;
mod erase;
mod failover;
mod interop;
mod keys;
mod limits;
mod link;
mod locks;
mod membership;
mod publisher;
mod raw_connection;
mod reaper;
mod refusals;
mod resp;
mod rooms;
mod server_facts;
mod sessions;
mod shared_calls;
mod shared_connection;
mod shared_functions;
mod store_epoch;
mod subscriber;
mod tasks;

pub use bus::{BusSettings, RedisBus};
pub use cache::RedisCache;
pub use client::RedisClient;
pub use clock::RedisClock;
pub use current_generation::CurrentGeneration;
pub use diagnosis::{RedisDiagnosis, RefusedCommand};
pub use envelope::EnvelopeVersion;
pub use erase::erase;
pub use interop::{InteropSettings, RedisInterop};
pub use keys::Keys;
pub use limits::RedisLimits;
pub use link::PublisherLink;
pub use locks::RedisLocks;
pub use membership::RedisMembership;
pub use rooms::RedisRooms;
pub use server_facts::ServerFacts;
pub use sessions::RedisSessions;
pub use store_epoch::StoreEpoch;
pub use tasks::RedisTasks;

/// The backend of a node called `node` in the cluster `cluster`. Connects in the background; must be called in a
/// runtime.
///
/// # Errors
///
/// If the URL is invalid, or requires TLS while the feature `tls` is off.
pub fn backend(url: &str, cluster: &str, node: &str, config: &Config) -> Result<Backend, Box<dyn Error + Send + Sync>> {
    let (client, keys) = open(url, cluster, config)?;
    Ok(over(client, keys, cluster, node, config))
}

/// The backend of a guest of the cluster. It has no lease, so its locks need none; Actionhero nodes do not know of it.
///
/// # Errors
///
/// Those of [`backend`].
pub fn guest_backend(
    url: &str,
    cluster: &str,
    guest: &str,
    config: &Config,
) -> Result<Backend, Box<dyn Error + Send + Sync>> {
    let mut config = config.clone();
    config.cluster.interop = false;
    let (client, keys) = open(url, cluster, &config)?;
    let locks = RedisLocks::new(client.clone(), keys.clone(), CurrentGeneration::default());
    Ok(Backend { locks: Arc::new(locks), ..over(client, keys, cluster, guest, &config) })
}

/// Checks the address of a Redis, without connecting to it.
///
/// # Errors
///
/// Those of [`backend`].
pub fn check_url(url: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    RedisClient::open(url, Config::default().redis.command_timeout).map(drop)
}

fn open(url: &str, cluster: &str, config: &Config) -> Result<(RedisClient, Keys), Box<dyn Error + Send + Sync>> {
    let client = RedisClient::open(url, config.redis.command_timeout)?;
    let keys =
        Keys::new(&config.redis.prefix, cluster).in_database(client.database()).with_tasks_prefix(&config.tasks.prefix);
    client.name_rights(&keys);
    Ok((client, keys))
}

fn over(client: RedisClient, keys: Keys, cluster: &str, node: &str, config: &Config) -> Backend {
    let (clock, current) = (Arc::new(RedisClock::default()), CurrentGeneration::default());
    let settings = BusSettings {
        node: node.to_owned(),
        token: config.general.server_token.clone(),
        previous_token: config.general.previous_server_token.clone(),
        queue: config.rooms.bus_queue,
        max_envelope: max_envelope(config),
        interop: config.cluster.interop.then(|| interop(cluster, config)),
    };
    let tasks =
        RedisTasks::new(&client, keys.clone(), node, config.tasks.failed_max).confirmed_by(config.tasks.replicas);
    let bus = Arc::new(RedisBus::new(client.clone(), keys.clone(), clock.clone(), current.clone(), settings));
    let interop = bus.interop().map(|interop| interop as Arc<dyn Interop>);
    let membership = RedisMembership::new(client.clone(), keys.clone(), clock.clone(), bus.version(), bus.link());
    let sessions = RedisSessions::new(client.clone(), keys.clone());
    let rooms = RedisRooms::new(client.clone(), keys.clone(), node, membership.store_epoch());
    Backend {
        cache: Arc::new(RedisCache::new(client.clone(), keys.clone())),
        limits: Arc::new(RedisLimits::new(client.clone(), keys.clone())),
        locks: Arc::new(RedisLocks::new(client, keys, current)),
        membership: Arc::new(membership),
        rooms: Arc::new(rooms),
        bus,
        tasks: Some(Arc::new(tasks)),
        sessions: Arc::new(sessions),
        interop,
        clock,
    }
}

/// Bytes of the longest message that a node may send, with its header. Actionhero nodes write it as a string in JSON,
/// where one byte may take six.
fn max_envelope(config: &Config) -> usize {
    let payload = config.rooms.max_message.as_u64().max(config.cluster.max_call.as_u64());
    8 * payload as usize + 64 * 1024
}

fn interop(cluster: &str, config: &Config) -> InteropSettings {
    InteropSettings {
        channel: config.cluster.interop_channel.clone(),
        token: config.cluster.interop_token.clone(),
        cluster: cluster.to_owned(),
        max_message: config.rooms.max_message.as_u64() as usize,
        max_call: config.cluster.max_call.as_u64() as usize,
        max_calls: config.cluster.max_calls,
    }
}
