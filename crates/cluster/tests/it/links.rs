//! The numbers of publishing connections.

use std::sync::Arc;
use std::time::Duration;

use phalanx_cluster::{Keys, RedisClient, RedisClock, RedisMembership};
use phalanx_core::Generation;
use phalanx_core::backend::{BackendError, Bus, GapCause, Incoming, Membership, Renewal};
use phalanx_testkit::laws::membership::record;
use phalanx_testkit::{Proxy, Redis};

use super::bus::{TestNode, bus_with, text, until};

const TOKENS: (&str, &str) = ("t", "");

async fn node(url: &str) -> TestNode {
    TestNode::new(url, TOKENS, 100).await
}

/// The membership of a node that is registered.
async fn register(redis: &Redis, node: &TestNode) -> RedisMembership {
    let client = RedisClient::open(&redis.url(), Duration::from_secs(10)).unwrap();
    let clock = Arc::new(RedisClock::default());
    let (keys, version, link) = (Keys::new("actionhero:", "laws"), node.bus.version(), node.bus.link());
    let membership = RedisMembership::new(client, keys, clock, version, link);
    membership.register(&record(node.generation), false).await.unwrap();
    membership
}

async fn link_of(redis: &Redis, generation: Generation) -> String {
    redis.command(&format!("HGET phalanx:laws:links {generation}")).await
}

#[tokio::test]
async fn messages_that_a_replaced_connection_still_carries_are_received_by_no_node() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let mut early = node(&redis.url()).await;
    let url = redis.url_through(proxy.addr());
    let publisher = TestNode::with_timeout(&url, TOKENS, 100, Duration::from_secs(1)).await;
    publisher.publish("r", "first").await.unwrap();
    proxy.hold();
    let held = publisher.publish("r", "held").await;
    assert!(held.is_err(), "{held:?}");
    until("the next connection publishes", async || publisher.publish("r", "second").await.is_ok()).await;
    let mut late = node(&redis.url()).await; // has received nothing of the publisher
    let published = redis.ran("publish").await;
    proxy.release();
    until("the held message is published", async || redis.ran("publish").await > published).await;
    publisher.publish("r", "third").await.unwrap();
    let mut received = Vec::new();
    while received.last().is_none_or(|last| last != "third") {
        received.extend(text(&early.next().await).map(str::to_owned));
    }
    received.dedup(); // a publish that was not answered in time may have happened, beside the one that was
    assert_eq!(received, ["first", "second", "third"]);
    assert_eq!(text(&late.next().await), Some("third"));
}

#[tokio::test]
async fn after_redis_lost_all_data_a_message_is_received_or_a_gap_is() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let publisher = node(&redis.url()).await;
    let mut standing = node(&redis.url()).await;
    let mut subscriber = node(&redis.url_through(proxy.addr())).await;
    publisher.publish("r", "before").await.unwrap();
    for node in [&mut standing, &mut subscriber] {
        assert_eq!(text(&node.next().await), Some("before"));
    }
    redis.command("FLUSHALL").await;
    proxy.cut();
    assert!(matches!(subscriber.next().await, Incoming::Away));
    proxy.restore();
    until("it is subscribed again", async || subscriber.bus.subscribe(&"other".into()).await.is_ok()).await;
    while subscriber.arrivals.try_recv().is_ok() {} // the gap of the outage
    publisher.publish("r", "after").await.unwrap();
    assert_eq!(text(&standing.next().await), Some("after"), "its connection stands, and it knows the sender's");
    let arrival = subscriber.next().await;
    assert!(matches!(arrival, Incoming::Gap(Some(_), GapCause::Overflow)), "{arrival:?}");

    let membership = register(&redis, &publisher).await;
    assert!(matches!(membership.renew(publisher.generation).await.unwrap(), Renewal::Renewed(_)));
    publisher.publish("r", "announced again").await.unwrap();
    for node in [&mut standing, &mut subscriber] {
        assert_eq!(text(&node.next().await), Some("announced again"));
    }
    assert_eq!(link_of(&redis, publisher.generation).await, "$1\r\n2\r\n");
    membership.renew(publisher.generation).await.unwrap();
    publisher.publish("r", "over the same connection").await.unwrap();
    assert_eq!(link_of(&redis, publisher.generation).await, "$1\r\n2\r\n");
    membership.leave(publisher.generation).await.unwrap();
    assert_eq!(link_of(&redis, publisher.generation).await, "$-1\r\n", "nothing is left of a node that has left");
}

#[tokio::test]
async fn a_new_generation_is_announced_before_its_messages() {
    let redis = Redis::start().await;
    let publisher = node(&redis.url()).await;
    let mut early = node(&redis.url()).await;
    publisher.publish("r", "one").await.unwrap();
    let renamed = Generation::random();
    publisher.bus.open_inbox(renamed).await.unwrap();
    publisher.publish("r", "two").await.unwrap();
    for message in ["one", "two"] {
        assert_eq!(text(&early.next().await), Some(message));
    }
    for name in [publisher.generation, renamed] {
        assert_eq!(link_of(&redis, name).await, "$1\r\n2\r\n", "under both names: messages of both may be held");
    }
}

#[tokio::test]
async fn nodes_connect_and_publish_on_a_full_redis_and_beside_a_corrupt_key() {
    let redis = Redis::start().await;
    redis.command("SET phalanx:laws:links corrupt").await;
    let mut standing = node(&redis.url()).await;
    redis.command("CONFIG SET maxmemory 1").await;
    assert!(redis.command("SET any value").await.starts_with("-OOM"));
    let publisher = node(&redis.url()).await;
    publisher.publish("r", "hello").await.unwrap();
    assert_eq!(text(&standing.next().await), Some("hello"));
}

#[tokio::test]
async fn a_missing_right_is_named_at_once() {
    let redis = Redis::start().await;
    let publisher = node(&redis.url()).await;
    redis.command("ACL SETUSER phalanx -publish").await;
    let refused = publisher.publish("r", "hello").await.unwrap_err().to_string();
    // In the words of Redis, or of Valkey.
    let is_named = ["can't run this command", "run the 'publish' command"].iter().any(|words| refused.contains(words));
    assert!(is_named, "{refused}");
    redis.command("ACL SETUSER phalanx +publish").await;
    until("it publishes", async || publisher.publish("r", "hello").await.is_ok()).await;
}

#[tokio::test]
async fn a_subscription_that_can_never_begin_is_refused_with_the_words_of_redis() {
    let redis = Redis::start().await;
    for right in ["resetchannels", "-hgetall"] {
        redis.command(&format!("ACL SETUSER phalanx {right}")).await;
        let client = RedisClient::open(&redis.url(), Duration::from_secs(10)).unwrap();
        let bus = bus_with(client, Keys::new("actionhero:", "laws"), TOKENS, 100);
        let refused = bus.subscribe(&"r".into()).await.err().unwrap();
        assert!(matches!(&refused, BackendError::Refused(reply) if reply.to_string().contains("NOPERM")), "{refused}");
        redis.command("ACL SETUSER phalanx &laws &laws:* +hgetall").await;
        assert!(bus.subscribe(&"r".into()).await.is_ok());
    }
}

/// A node of the last release refuses what it cannot read, without a gap.
#[tokio::test]
async fn lists_of_joins_and_leaves_are_written_only_while_every_node_reads_them() {
    let redis = Redis::start().await;
    let node = node(&redis.url()).await;
    let membership = register(&redis, &node).await;
    assert!(!node.bus.all_read_lists(), "the other nodes are not known yet");
    let old = Generation::random();
    let record = r#"{"id":"old","version":"1","startedAt":1,"roles":["web"],"protocol":1}"#;
    for (change, expected) in [
        ("PING".to_owned(), true),
        (format!("HSET phalanx:laws:nodes {old} '{record}'"), false),
        (format!("HDEL phalanx:laws:nodes {old}"), true),
    ] {
        redis.command(&change).await;
        membership.nodes().await.unwrap();
        assert_eq!(node.bus.all_read_lists(), expected, "{change}");
    }
}
