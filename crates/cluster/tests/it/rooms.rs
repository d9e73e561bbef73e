use std::sync::Arc;

use phalanx_cluster::{EnvelopeVersion, PublisherLink, RedisClock, RedisMembership, RedisRooms};
use phalanx_core::backend::{Membership, RoomStore};
use phalanx_testkit::Redis;
use phalanx_testkit::laws::membership::record;
use phalanx_testkit::laws::rooms::{node, other_node};

/// A store in which the nodes of the laws are registered.
async fn rooms() -> (Arc<dyn RoomStore>, Redis) {
    let (redis, client, keys) = super::redis().await;
    let membership = RedisMembership::new(
        client.clone(),
        keys.clone(),
        Arc::new(RedisClock::default()),
        EnvelopeVersion::default(),
        PublisherLink::default(),
    );
    for node in [node(), other_node()] {
        membership.register(&record(node), false).await.unwrap();
    }
    (Arc::new(RedisRooms::new(client, keys, "n", membership.store_epoch())), redis)
}

phalanx_testkit::room_laws!(redis: super::rooms().await);
