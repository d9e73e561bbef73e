//! Tags in large numbers: `just counts` sets them.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use phalanx_core::connection::{Connection, Frame, OutboxItem};
use phalanx_testkit::{Redis, check_time, print};
use serde::{Serialize, Serializer};
use serde_json::json;
use tokio::time::Instant;

use super::bus::until;
use super::herd::resident;
use super::tags::{Node, frames, stop};

/// Connections of this node, each with a tag.
async fn tag_all(connections: &[Connection], name: impl Fn(usize) -> String) {
    let tagging = connections.iter().enumerate().map(|(number, connection)| {
        let tag = name(number);
        async move { connection.tag(&tag).await.unwrap() }
    });
    stream::iter(tagging).for_each_concurrent(256, |tagged| tagged).await;
}

/// A number that the environment sets for runs of full size: `just counts`.
fn count_of(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|count| count.parse().ok()).unwrap_or(usual)
}

/// A message that counts how often it is encoded.
#[derive(Default)]
struct CountedMessage(AtomicUsize);

impl Serialize for CountedMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.fetch_add(1, Relaxed);
        json!({ "context": "crowd" }).serialize(serializer)
    }
}

/// `TAGGED` is their number on each of two nodes.
#[tokio::test]
async fn a_message_to_many_connections_is_encoded_once() {
    let count = count_of("TAGGED", 500);
    let redis = Redis::start().await;
    let (mut one, mut two) = (large_node(&redis, "one").await, large_node(&redis, "two").await);
    let mut all = Vec::new();
    for node in [&mut one, &mut two] {
        let connections: Vec<Connection> = (0..count).map(|_| node.connect()).collect();
        tag_all(&connections, |_| "crowd".to_owned()).await;
        all.push(connections);
    }
    let message = CountedMessage::default();
    let start = Instant::now();
    one.tagged("crowd").send(&message).await.unwrap();
    let sent = start.elapsed();
    for connections in &all {
        let mut first = None;
        for connection in connections {
            until("the message", async || match connection.next() {
                OutboxItem::Frame(Frame::Text(text)) => {
                    assert_eq!(text, r#"{"context":"crowd"}"#);
                    // The bytes themselves, not a copy.
                    assert_eq!(*first.get_or_insert(text.as_ptr()), text.as_ptr());
                    true
                }
                _ => false,
            })
            .await;
        }
    }
    assert_eq!(message.0.load(Relaxed), 1);
    print(format_args!("a message to {count} connections of each of two nodes: sent after {sent:.1?}, encoded once"));
    stop([one, two]).await;
}

/// A node for many connections.
async fn large_node(redis: &Redis, id: &str) -> Node {
    Node::start_with(&redis.url(), id, |config| config.websocket.max_connections = 1_000_000).await
}

/// The channels of all subscribers.
async fn channels(redis: &Redis) -> usize {
    let stats = redis.command("INFO stats").await;
    stats.lines().find_map(|line| line.strip_prefix("pubsub_channels:")).unwrap().trim().parse().unwrap()
}

/// `TAGS` is their number.
#[tokio::test]
async fn the_tags_of_many_connections_stand_again_after_a_restart_of_redis() {
    let count = count_of("TAGS", 2000);
    let mut redis = Redis::start().await;
    let (mut node, other) = (large_node(&redis, "one").await, large_node(&redis, "two").await);
    let connections: Vec<Connection> = (0..count).map(|_| node.connect()).collect();
    let (before, start) = (resident(), Instant::now());
    tag_all(&connections, |number| format!("tag:{number}")).await;
    let (took, bytes) = (start.elapsed(), (resident() - before) * 1024.0 * 1024.0 / count as f64);
    print(format_args!("{count} tags on a node: {bytes:.0} bytes each, given in {took:.1?}"));
    let of_all = channels(&redis).await;
    assert!(of_all >= count, "{of_all}");
    redis.kill().await;
    redis.start_again().await;
    let start = Instant::now();
    until("the tags stand again", async || channels(&redis).await >= of_all).await;
    check_time("tags stand again after a restart of Redis", start.elapsed(), Duration::from_secs(5));
    // The gap of each comes before or after.
    other.tagged(&format!("tag:{}", count - 1)).send(&"there").await.unwrap();
    let last = connections.last().unwrap();
    until("a message", async || frames(last).iter().any(|frame| frame.contains("there"))).await;
    stop([node, other]).await;
}
