use std::sync::Arc;
use std::time::Duration;

use phalanx_cluster::RedisSessions;
use phalanx_core::backend::{NewSession, SessionKey, SessionRenewal, SessionStore, UserKey};
use phalanx_testkit::Redis;

async fn store() -> (Arc<dyn SessionStore>, Redis) {
    let (redis, client, keys) = super::redis().await;
    (Arc::new(RedisSessions::new(client, keys)), redis)
}

phalanx_testkit::session_laws!(redis: super::store().await);

fn new(name: &str) -> NewSession {
    NewSession {
        key: SessionKey::of(name),
        user: Some(UserKey::of("ada")),
        value: "{}".into(),
        is_remembered: true,
        idle: Duration::from_secs(600),
        absolute: Duration::from_secs(900),
    }
}

#[tokio::test]
async fn redis_knows_hashes_alone_and_forgets_a_list_with_its_last_session() {
    let (store, redis) = store().await;
    store.create(new("secret")).await.unwrap();
    store.create(NewSession { absolute: Duration::from_secs(700), ..new("other") }).await.unwrap();
    let keys = redis.command("KEYS *").await;
    assert!(!keys.contains("secret") && !keys.contains("ada"), "{keys}");
    assert!(keys.contains(&SessionKey::of("secret").to_hex()), "{keys}");
    let list = format!("phalanx:laws:sessions:{}", UserKey::of("ada").to_hex());
    let ttl = redis.command(&format!("TTL {list}")).await;
    let seconds: u64 = ttl.trim_matches([':', '\r', '\n']).parse().unwrap();
    assert!((890..=901).contains(&seconds), "{ttl}");
    store.end_all(UserKey::of("ada")).await.unwrap();
    assert_eq!(redis.command("KEYS *session*").await.trim(), "*0");
}

#[tokio::test]
async fn a_full_redis_creates_no_session_and_ends_those_that_are_there() {
    let (store, redis) = store().await;
    store.create(new("a")).await.unwrap();
    redis.command("CONFIG SET maxmemory-policy noeviction").await;
    redis.command("CONFIG SET maxmemory 1").await;
    assert!(store.create(new("b")).await.is_err());
    let renewal = SessionRenewal {
        key: SessionKey::of("c"),
        value: None,
        expected: None,
        is_remembered: None,
        idle: Duration::from_secs(600),
        absolute: None,
    };
    assert!(store.renew(SessionKey::of("a"), renewal).await.is_err());
    let session = store.read(SessionKey::of("a"), None).await.unwrap().unwrap();
    assert!(!session.is_frozen, "a renewal that was refused changed nothing");
    assert_eq!(store.end(SessionKey::of("a")).await.unwrap(), [SessionKey::of("a")]);
    redis.command("CONFIG SET maxmemory 0").await;
    assert!(store.read(SessionKey::of("b"), None).await.unwrap().is_none());
}
