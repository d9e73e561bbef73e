use std::sync::Arc;
use std::time::Duration;

use phalanx_cluster::{CurrentGeneration, RedisLocks};
use phalanx_core::backend::{BackendError, LockStore};
use phalanx_testkit::Redis;

async fn store() -> (Arc<dyn LockStore>, Redis) {
    let (redis, client, keys) = super::redis().await;
    (Arc::new(RedisLocks::new(client, keys, CurrentGeneration::default())), redis)
}

phalanx_testkit::lock_laws!(redis: super::store().await);

#[tokio::test]
async fn an_invalid_token_is_an_error_and_the_lock_is_not_acquired() {
    let (store, redis) = store().await;
    for broken in ["RPUSH phalanx:laws:fence:l item", "SET phalanx:laws:fence:l text"] {
        redis.command("DEL phalanx:laws:fence:l").await;
        redis.command(broken).await;
        let refused = store.acquire("l", "a", Duration::from_secs(60)).await;
        assert!(matches!(refused, Err(BackendError::WrongKind { .. })), "{refused:?}");
        assert_eq!(store.holder("l").await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_token_is_stored_for_minutes_beyond_its_lease() {
    let (store, redis) = store().await;
    let ttl = async || {
        let reply = redis.command("PTTL phalanx:laws:fence:l").await;
        Duration::from_millis(reply.trim_matches([':', '\r', '\n']).parse().unwrap())
    };
    let minute = Duration::from_secs(60);
    store.acquire("l", "a", minute).await.unwrap().unwrap();
    assert!((5 * minute..=6 * minute).contains(&ttl().await), "{:?}", ttl().await);
    redis.command("PEXPIRE phalanx:laws:fence:l 1000").await;
    assert!(store.renew("l", "a", 2 * minute).await.unwrap());
    assert!((6 * minute..=7 * minute).contains(&ttl().await), "{:?}", ttl().await);
    redis.command("DEL phalanx:laws:fence:l").await;
    assert!(store.renew("l", "a", minute).await.unwrap(), "a token that was lost costs no lock");
}
