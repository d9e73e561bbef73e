use std::sync::Arc;

use phalanx_cluster::{RedisClock, RedisMembership, RedisRooms};
use phalanx_core::Generation;
use phalanx_core::backend::{Membership, RoomStore};
use phalanx_testkit::Redis;
use phalanx_testkit::laws::membership::record;

/// The node of the laws is alive.
async fn rooms() -> (Arc<dyn RoomStore>, Redis) {
    let (redis, client, keys) = super::redis().await;
    let membership = RedisMembership::new(client.clone(), keys.clone(), Arc::new(RedisClock::default()));
    membership.register(&record(Generation::parse("aaaaaaaaaa").unwrap())).await.unwrap();
    (Arc::new(RedisRooms::new(client, keys, "n")), redis)
}

phalanx_testkit::room_laws!(redis: super::rooms().await);
