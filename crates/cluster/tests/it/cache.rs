use std::sync::Arc;
use std::time::Duration;

use phalanx_cluster::{CurrentGeneration, Keys, RedisCache, RedisClient, RedisLocks};
use phalanx_core::backend::{BackendError, CacheStore, LockStore};
use phalanx_testkit::{Proxy, Redis};

async fn store() -> (Arc<dyn CacheStore>, Redis) {
    let (redis, client, keys) = super::redis().await;
    (Arc::new(RedisCache::new(client, keys)), redis)
}

phalanx_testkit::cache_laws!(redis: super::store().await);

#[tokio::test]
async fn a_locked_key_is_accessible_to_the_owner_of_the_lock_only() {
    let (_redis, client, keys) = super::redis().await;
    let (cache, locks) =
        (RedisCache::new(client.clone(), keys.clone()), RedisLocks::new(client, keys, CurrentGeneration::default()));
    locks.acquire("k", "ann", Duration::from_secs(60)).await.unwrap().unwrap();
    for holder in [None, Some("bob")] {
        let refused = |result: Result<(), BackendError>| matches!(result, Err(BackendError::Locked { .. }));
        assert!(refused(cache.set("k", "1".into(), None, holder).await));
        assert!(refused(cache.get("k", None, holder).await.map(drop)));
        assert!(refused(cache.delete("k", holder).await.map(drop)));
    }
    cache.set("k", "1".into(), None, Some("ann")).await.unwrap();
    assert!(locks.release("k", "ann").await.unwrap());
    assert_eq!(cache.get("k", None, None).await.unwrap().unwrap().value, "1");
}

#[tokio::test]
async fn commands_fail_while_redis_is_silent_or_gone_and_work_again_afterwards() {
    let (redis, _, keys) = super::redis().await;
    let proxy = Proxy::before(redis.addr()).await;
    let url = redis.url_through(proxy.addr());
    let client = RedisClient::open(&url, Duration::from_millis(500)).unwrap();
    let cache = RedisCache::new(client, keys);
    let unavailable = |result: Result<(), BackendError>| matches!(result, Err(BackendError::Unavailable(_)));
    cache.set("k", "1".into(), None, None).await.unwrap();
    proxy.pause();
    assert!(unavailable(cache.set("k", "2".into(), None, None).await));
    proxy.restore();
    proxy.cut();
    assert!(unavailable(cache.get("k", None, None).await.map(drop)));
    proxy.restore();
    let restored = async { while cache.get("k", None, None).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), restored).await.expect("the connection is restored");
    assert!(RedisClient::open("http://127.0.0.1:1", Duration::from_millis(200)).is_err());
    let client = RedisClient::open("redis://127.0.0.1:1", Duration::from_millis(200)).unwrap();
    let cache = RedisCache::new(client, Keys::new("actionhero:", "laws"));
    assert!(matches!(cache.get("k", None, None).await, Err(BackendError::Unavailable(_))));
}

#[tokio::test]
async fn a_connection_that_remains_silent_is_replaced() {
    let (redis, _, keys) = super::redis().await;
    let proxy = Proxy::before(redis.addr()).await;
    let client = RedisClient::open(&redis.url_through(proxy.addr()), Duration::from_millis(500)).unwrap();
    let cache = RedisCache::new(client, keys);
    cache.set("k", "1".into(), None, None).await.unwrap();
    proxy.silence();
    assert!(matches!(cache.get("k", None, None).await, Err(BackendError::Unavailable(_))));
    proxy.restore();
    let restored = async { while cache.get("k", None, None).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), restored).await.expect("the connection is restored");
}

#[tokio::test]
async fn a_read_on_a_lost_connection_is_sent_again() {
    let (redis, client, keys) = super::redis().await;
    let cache = RedisCache::new(client, keys);
    for number in 1..20 {
        cache.push("k", "1".into()).await.unwrap();
        redis.command("CLIENT KILL TYPE normal").await;
        assert_eq!(cache.len("k").await.unwrap(), number);
    }
}
