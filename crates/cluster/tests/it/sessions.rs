use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use phalanx_cluster::{Keys, RedisClient, RedisSessions};
use phalanx_core::TagId;
use phalanx_core::backend::{
    BackendError, Bus, Incoming, NewSession, SessionKey, SessionRenewal, SessionRenewalOutcome, SessionStore,
    SessionUse, SessionWrite, UserKey,
};
use phalanx_testkit::{Flow, Proxy, Redis};

use super::bus::{TestNode, text, until};

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

fn renewal(name: &str) -> SessionRenewal {
    let (value, expected, is_remembered, absolute) = Default::default();
    SessionRenewal {
        key: SessionKey::of(name),
        value,
        expected,
        is_remembered,
        idle: Duration::from_secs(600),
        absolute,
    }
}

/// The sessions that a node is told to read until a message that comes after all.
async fn told(node: &mut TestNode) -> BTreeSet<TagId> {
    node.publish("r", "behind it").await.unwrap();
    let mut tags = BTreeSet::new();
    loop {
        match node.next().await {
            Incoming::SessionChanged(tag) => drop(tags.insert(tag)),
            arrival if text(&arrival) == Some("behind it") => return tags,
            _ => {}
        }
    }
}

#[tokio::test]
async fn callers_at_once_share_a_round_trip_and_a_spoilt_key_is_an_error_for_its_session_alone() {
    let (store, redis) = store().await;
    let names = ["a", "b", "none", "spoilt"];
    for name in &names[..2] {
        store.create(NewSession { value: format!("{name:?}").into(), ..new(name) }).await.unwrap();
    }
    redis.command(&format!("SET phalanx:laws:session:{} text", SessionKey::of("spoilt").to_hex())).await;
    store.read(SessionKey::of("a"), None).await.unwrap(); // loads the script
    let scripts = redis.ran("evalsha").await;
    let reads = (0..20).map(|caller| store.read(SessionKey::of(names[caller % 4]), None));
    let sessions = join_all(reads).await;
    assert_eq!(redis.ran("evalsha").await - scripts, 1);
    for (caller, session) in sessions.into_iter().enumerate() {
        let name = names[caller % 4];
        match session {
            Ok(Some(session)) => assert_eq!(session.value, format!("{name:?}"), "{caller}"),
            Ok(None) => assert_eq!(name, "none"),
            Err(error) => assert!(matches!(error, BackendError::WrongKind { .. }) && name == "spoilt", "{error}"),
        }
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
    assert!(store.renew(SessionKey::of("a"), renewal("c")).await.is_err());
    let session = store.read(SessionKey::of("a"), None).await.unwrap().unwrap();
    assert!(!session.is_frozen, "a renewal that was refused changed nothing");
    assert_eq!(store.end(SessionKey::of("a")).await.unwrap(), [SessionKey::of("a")]);
    redis.command("CONFIG SET maxmemory 0").await;
    assert!(store.read(SessionKey::of("b"), None).await.unwrap().is_none());
}

#[tokio::test]
async fn nodes_with_sockets_of_a_session_are_told_in_the_step_that_ends_it_or_gives_it_a_new_id() {
    let redis = Redis::start().await;
    let client = RedisClient::open(&redis.url(), Duration::from_secs(10)).unwrap();
    let store = RedisSessions::new(client, Keys::new("actionhero:", "laws"));
    let mut node = TestNode::new(&redis.url(), ("t", ""), 100).await;
    let (key, mut subscriptions) = (SessionKey::of, Vec::new());
    for name in ["a", "b", "c", "d", "e"] {
        let (subscription, stands) = node.bus.subscribe_to_tag(key(name).tag());
        stands.await.unwrap();
        subscriptions.push(subscription);
    }
    let tags = |names: &[&str]| names.iter().map(|name| key(name).tag()).collect::<BTreeSet<_>>();

    store.create(new("a")).await.unwrap();
    store.write(key("a"), SessionWrite { value: "1".into(), expected: None }).await.unwrap();
    let using = SessionUse { idle: Duration::from_secs(900), step: Duration::ZERO };
    assert!(store.read(key("a"), Some(using)).await.unwrap().is_some());
    assert_eq!(told(&mut node).await, tags(&[]), "a write and a use are no reason to close sockets");
    store.renew(key("a"), renewal("b")).await.unwrap();
    assert_eq!(told(&mut node).await, tags(&["a"]));
    store.end(key("a")).await.unwrap();
    assert_eq!(told(&mut node).await, tags(&["a", "b"]), "an end under the id before ends both");
    store.end(key("b")).await.unwrap();
    assert_eq!(told(&mut node).await, tags(&["b"]), "it is told although there is none");
    for name in ["c", "d", "e"] {
        store.create(new(name)).await.unwrap();
    }
    store.end_others(key("c")).await.unwrap();
    assert_eq!(told(&mut node).await, tags(&["d", "e"]));
    store.end_all(UserKey::of("ada")).await.unwrap();
    assert_eq!(told(&mut node).await, tags(&["c"]));

    let channel = format!("laws:tag:{}", key("a").tag());
    for forged in ["", "sessions", "4501"] {
        redis.publish(&channel, forged).await;
    }
    assert_eq!(told(&mut node).await, tags(&[]));
}

#[tokio::test]
async fn in_a_redis_cluster_the_step_that_ends_a_session_reaches_the_nodes_at_the_server_of_its_slot() {
    let redis = Redis::start_in_cluster_mode().await;
    let client = RedisClient::open(&format!("redis://{}", redis.addr()), Duration::from_secs(10)).unwrap();
    let keys = Keys::new("{laws}:actionhero:", "{laws}");
    let bus = super::bus::bus_with(client.clone(), keys.clone(), ("t", ""), 100);
    let store = RedisSessions::new(client, keys);
    let mut arrivals = bus.receiver().unwrap();
    let (_subscription, stands) = bus.subscribe_to_tag(SessionKey::of("a").tag());
    stands.await.unwrap();
    store.create(new("a")).await.unwrap();
    assert_eq!(store.end(SessionKey::of("a")).await.unwrap(), [SessionKey::of("a")]);
    let told = async {
        loop {
            if let Some(Incoming::SessionChanged(tag)) = arrivals.recv().await {
                return tag;
            }
        }
    };
    assert_eq!(tokio::time::timeout(super::bus::SOON, told).await.unwrap(), SessionKey::of("a").tag());
}

#[tokio::test]
async fn a_renewal_whose_answer_is_lost_is_done_once_and_answered() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let client = RedisClient::open(&redis.url_through(proxy.addr()), Duration::from_secs(10)).unwrap();
    let store = Arc::new(RedisSessions::new(client, Keys::new("actionhero:", "laws")));
    let key = SessionKey::of;
    store.create(new("a")).await.unwrap();
    proxy.swallow("renewed");
    let renewing = tokio::spawn({
        let store = store.clone();
        async move { store.renew(key("a"), renewal("b")).await }
    });
    let is_frozen = format!("HEXISTS phalanx:laws:session:{} x", key("a").to_hex());
    until("it is renewed", async || redis.command(&is_frozen).await == ":1\r\n").await;
    proxy.close_flow(Flow::Commands);
    let renewed = renewing.await.unwrap().unwrap();
    assert!(matches!(renewed, SessionRenewalOutcome::Renewed(_, true)), "{renewed:?}");
    let listed = store.list(UserKey::of("ada")).await.unwrap();
    assert_eq!(listed.iter().map(|session| session.key).collect::<Vec<_>>(), [key("b")]);
}
