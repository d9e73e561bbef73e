//! Messages to rooms that are published together.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use phalanx_cluster::{BusSettings, CurrentGeneration, InteropSettings, Keys, RedisBus, RedisClient, RedisClock};
use phalanx_core::Generation;
use phalanx_core::backend::{Bus, Incoming, NodeMessage, NodeMessageKind, Recipient};
use phalanx_core::protocol::RoomMessage;
use phalanx_testkit::{Redis, print};

use super::bus::{TestNode, publish, text};

const TOKENS: (&str, &str) = ("t", "");

/// Publishes numbered messages, all at once.
async fn publish_at_once(node: &TestNode, numbers: std::ops::Range<usize>) {
    let publishing = join_all(numbers.map(async |number| node.publish("r", &number.to_string()).await));
    publishing.await.into_iter().for_each(Result::unwrap);
}

async fn receives(node: &mut TestNode, numbers: std::ops::Range<usize>) {
    for number in numbers {
        assert_eq!(text(&node.next().await), Some(&*number.to_string()));
    }
}

#[tokio::test]
async fn messages_at_once_share_calls_and_keep_their_order() {
    let redis = Redis::start().await;
    let mut node = TestNode::new(&redis.url(), TOKENS, 1000).await;
    let mut other = TestNode::new(&redis.url(), TOKENS, 1000).await;
    publish_at_once(&node, 0..1).await; // the connection
    let before = redis.ran("evalsha").await;
    publish_at_once(&node, 1..101).await;
    let calls = redis.ran("evalsha").await - before;
    print(format_args!("100 messages at once: {calls} calls"));
    assert!((7..=20).contains(&calls), "at most 16 messages share a call: {calls}");
    for node in [&mut node, &mut other] {
        receives(node, 0..101).await;
    }
}

#[tokio::test]
async fn a_large_message_shares_no_call_and_one_for_nodes_none_either() {
    let redis = Redis::start().await;
    let node = TestNode::new(&redis.url(), TOKENS, 1000).await;
    let mut other = TestNode::new(&redis.url(), TOKENS, 1000).await;
    node.publish("r", "connected").await.unwrap();
    let large = "x".repeat(50_000);
    let topic = NodeMessage { kind: NodeMessageKind::Topic, id: 0, deadline_ms: None, payload: "{}".into() };
    let before = redis.ran("evalsha").await;
    let published = tokio::join!(
        node.publish("r", "one"),
        node.publish("r", &large),
        node.publish("r", &large),
        node.publish("r", "two"),
        async { node.bus.post(Recipient::Everyone, topic).await.map(drop) },
        node.publish("r", "three"),
    );
    assert!(published.0.is_ok() && published.1.is_ok() && published.2.is_ok() && published.3.is_ok());
    assert!(published.4.is_ok() && published.5.is_ok());
    assert_eq!(redis.ran("evalsha").await - before, 3, "one and large, large and two, three");
    for expected in ["connected", "one", &large, &large, "two"] {
        assert_eq!(text(&other.next().await), Some(expected));
    }
    assert!(matches!(other.next().await, Incoming::NodeMessage(..)));
    assert_eq!(text(&other.next().await), Some("three"));
}

#[tokio::test]
async fn messages_whose_script_redis_has_lost_are_published_over_the_next_connection() {
    let redis = Redis::start().await;
    let node = TestNode::new(&redis.url(), TOKENS, 1000).await;
    let mut other = TestNode::new(&redis.url(), TOKENS, 1000).await;
    publish_at_once(&node, 0..1).await;
    redis.command("SCRIPT FLUSH").await;
    publish_at_once(&node, 1..41).await;
    receives(&mut other, 0..41).await;
    assert_eq!(redis.command(&format!("HGET phalanx:laws:links {}", node.generation)).await, "$1\r\n2\r\n");
}

#[tokio::test]
async fn a_message_is_published_for_actionhero_nodes_in_the_same_call() {
    let redis = Redis::start().await;
    redis.command("ACL SETUSER phalanx &actionhero").await;
    let client = RedisClient::open(&redis.url(), Duration::from_secs(10)).unwrap();
    let interop = InteropSettings {
        channel: "actionhero".to_owned(),
        token: "t".to_owned(),
        cluster: "laws".to_owned(),
        max_message: 1000,
        max_call: 1000,
        max_calls: 10,
    };
    let settings = BusSettings {
        node: "n".to_owned(),
        token: "t".to_owned(),
        previous_token: String::new(),
        queue: 1000,
        max_envelope: 1 << 20,
        interop: Some(interop),
    };
    let (clock, current) = (Arc::new(RedisClock::default()), CurrentGeneration::default());
    let bus = RedisBus::new(client, Keys::new("actionhero:", "laws"), clock, current, settings);
    bus.open_inbox(Generation::random()).await.unwrap();
    let watch = redis.watch().await;
    let message = |number: usize| {
        let message = serde_json::value::to_raw_value(&number).unwrap();
        RoomMessage { room: "r".into(), from: "a-1".into(), sent_at: 1, message }
    };
    let payload = |number| String::from_utf8(message(number).to_payload().to_vec()).unwrap();
    publish(&bus, "r", &payload(0)).await.unwrap(); // the connection
    let before = redis.ran("evalsha").await;
    let published = join_all((1..4).map(async |number| publish(&bus, "r", &payload(number)).await)).await;
    published.into_iter().for_each(Result::unwrap);
    assert_eq!(redis.ran("evalsha").await - before, 1);
    super::bus::until("both are published", async || watch.on("actionhero").len() == 4).await;
    let channels: Vec<_> = watch.seen().into_iter().filter(|channel| channel != "laws").collect();
    assert_eq!(channels, ["laws:room:r", "actionhero"].repeat(4));
    for (number, text) in watch.on("actionhero").iter().enumerate() {
        assert!(text.contains(&format!("\"message\":{number}")), "{text}");
    }
}
