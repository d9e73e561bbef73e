//! Redis keeps every law of the seams, as the memory backend does.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::time::Duration;

use phalanx_cluster::{Client, Keys};
use phalanx_testkit::Redis;

mod bus;
mod cache;
mod locks;
mod membership;
mod rooms;

/// A Redis of a test's own, and a connection to it.
async fn redis() -> (Redis, Client, Keys) {
    let redis = Redis::start().await;
    let client = Client::open(&redis.url(), Duration::from_secs(10)).unwrap();
    (redis, client, Keys::new("actionhero:", "laws"))
}
