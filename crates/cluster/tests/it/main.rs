//! The laws of the seams for the Redis backend, and tests of what only Redis has.
#![allow(clippy::unwrap_used, reason = "a panic names the line of the test")]

use std::time::Duration;

use phalanx_cluster::{Keys, RedisClient};
use phalanx_testkit::Redis;

mod batches;
mod bus;
mod cache;
mod counters;
mod erase;
mod full;
mod gaps;
mod herd;
mod limits;
mod links;
mod locks;
mod many_tags;
mod membership;
mod promises;
mod recovery;
mod renewals;
mod room_checks;
mod rooms;
mod sessions;
mod switch_over;
mod tags;
mod tasks;

/// Starts a Redis for one test, with a client for it.
async fn redis() -> (Redis, RedisClient, Keys) {
    let redis = Redis::start().await;
    let client = RedisClient::open(&redis.url(), Duration::from_secs(10)).unwrap();
    (redis, client, Keys::new("actionhero:", "laws"))
}
