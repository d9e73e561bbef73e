use std::sync::Arc;

use phalanx_cluster::{OwnName, RedisLocks};
use phalanx_core::backend::LockStore;
use phalanx_testkit::Redis;

async fn store() -> (Arc<dyn LockStore>, Redis) {
    let (redis, client, keys) = super::redis().await;
    (Arc::new(RedisLocks::new(client, keys, OwnName::default())), redis)
}

phalanx_testkit::lock_laws!(redis: super::store().await);
