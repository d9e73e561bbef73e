//! Another server at the address of Redis, and a server that refuses for a while.

use std::time::Duration;

use phalanx_testkit::{Process, Proxy, Redis, check_time};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::{BACK, RECOVERY, SOON, is_full_size, start_node, until};
use crate::client::{Socket, get};

/// The room of these tests, without presence.
const ROOM: &str = "otherRoom";

/// How often the subscription of a node has broken: each time is a gap.
pub(super) fn breaks(node: &Process) -> usize {
    node.stderr().matches("the subscription to redis broke off").count()
}

/// Waits until a node has opened all its connections again.
pub(super) async fn until_opened_again(node: &Process) {
    until("all connections are opened again", SOON, async || {
        breaks(node) > 0 && node.stderr().contains("the subscription to redis is back")
    })
    .await;
}

/// A member of the room, and how many gaps it was sent.
pub(super) struct Member {
    socket: Socket,
    pub(super) gaps: usize,
}

impl Member {
    pub(super) async fn join(node: &Process) -> Self {
        Self { socket: Socket::join(node.addr, ROOM).await, gaps: 0 }
    }

    /// Publishes a message and returns whether that was OK.
    pub(super) async fn say(&mut self, text: &str) -> bool {
        self.socket.send(&json!({ "event": "say", "room": ROOM, "message": text }).to_string()).await;
        self.read_until(|frame| frame["context"] == "response").await["status"] == "OK"
    }

    pub(super) async fn receive(&mut self, text: &str) {
        self.read_until(|frame| frame["message"] == text).await;
    }

    async fn read_until(&mut self, is_last: impl Fn(&Value) -> bool) -> Value {
        loop {
            let frame = self.socket.read().await;
            self.gaps += usize::from(frame["event"] == "gap");
            if is_last(&frame) {
                return frame;
            }
        }
    }
}

/// An address moves to a promoted replica, and the old primary becomes a replica that closes no connection.
#[tokio::test]
async fn a_switch_over_that_leaves_connections_open_is_followed() {
    let (old, new) = (Redis::start().await, Redis::start().await);
    let address = Proxy::before(old.addr()).await;
    let url = old.url_through(address.addr());
    let nodes = [start_node(&url, "one").await, start_node(&url, "two").await];
    let mut members = [Member::join(&nodes[0]).await, Member::join(&nodes[1]).await];
    assert!(members[0].say("before").await, "the publisher of one node is connected");
    members[1].receive("before").await;
    new.command(&format!("REPLICAOF 127.0.0.1 {}", old.addr().port())).await;
    let replica = async || new.command("INFO replication").await.contains("master_link_status:up");
    until("the replica has the data", SOON, replica).await;
    let generations = [super::status(nodes[0].addr).await, super::status(nodes[1].addr).await];

    new.command("REPLICAOF NO ONE").await;
    address.switch_to(new.addr());
    old.command(&format!("REPLICAOF 127.0.0.1 {}", new.addr().port())).await;
    let switched = Instant::now();
    for node in &nodes {
        until_opened_again(node).await;
    }
    until("a message passes", SOON, async || members[1].say("after").await).await;
    members[0].receive("after").await;
    let back = switched.elapsed();
    check_time("switch-over with the old connections open: back", back, RECOVERY);
    assert!(members[0].say("and back").await);
    members[1].receive("and back").await;
    assert!(members.iter().all(|member| member.gaps > 0), "members know that messages may be missing");

    sleep_until(switched + Duration::from_secs(8)).await; // an unrenewed lease would be reaped by then
    for (node, before) in nodes.iter().zip(&generations) {
        assert_eq!(breaks(node), 1, "{}", node.stderr());
        assert_eq!(super::status(node.addr).await["generation"], before["generation"]);
        assert_eq!(get(node.admin, "/readyz").await.status, 200);
    }
    assert_eq!(super::members(nodes[0].addr, ROOM).await, 2);
}

/// Runs a fault on Redis that refuses writes, and checks that it costs no subscription.
async fn keeps_its_connections(fault: &str, lasts: Duration, begin: &[&str], end: &[&str]) {
    let redis = Redis::start().await;
    let node = start_node(&redis.url(), "node").await;
    let mut member = Member::join(&node).await;
    for command in begin {
        redis.command(command).await;
    }
    let begun = Instant::now();
    let log = format!("reply=\"{fault}");
    until("redis refuses", SOON, async || node.stderr().contains(&log)).await;
    sleep_until(begun + lasts).await; // the length of the fault
    for command in end {
        redis.command(command).await;
    }
    until("the node serves", BACK, async || member.say("after").await).await;
    until("the node is in the cluster", BACK, async || get(node.admin, "/readyz").await.status == 200).await;
    assert_eq!((member.gaps, breaks(&node)), (0, 0), "{}", node.stderr());
    assert!(!node.stderr().contains("all connections are opened again"), "{}", node.stderr());
}

#[tokio::test]
async fn a_redis_without_enough_replicas_keeps_its_connections() {
    let (begin, end) = (["CONFIG SET min-replicas-to-write 1"], ["CONFIG SET min-replicas-to-write 0"]);
    let lasts = Duration::from_secs(if is_full_size() { 30 } else { 6 });
    keeps_its_connections("NOREPLICAS", lasts, &begin, &end).await;
}

#[tokio::test]
async fn a_redis_that_loads_its_data_keeps_its_connections() {
    let redis = Redis::start().await;
    let node = start_node(&redis.url(), "node").await;
    let mut member = Member::join(&node).await;
    let lasts = if is_full_size() { 30 } else { 4 };
    redis.command("CONFIG SET loading-process-events-interval-bytes 1024").await;
    redis.command("CONFIG SET key-load-delay 20000").await; // µs for each key
    let keys = lasts * 50;
    let fill = format!("for n = 1, {keys} do redis.call('SET', 'filler:' .. n, string.rep(n .. ':', 300)) end");
    redis.command(&format!("EVAL \"{fill}\" 0")).await;
    let _reloading = send(&redis, "DEBUG RELOAD").await;
    let loads = async || redis.command("INFO persistence").await.contains("\nloading:1");
    until("redis loads", SOON, loads).await;
    until("redis refuses", SOON, async || node.stderr().contains("reply=\"LOADING")).await;
    until("redis has loaded", SOON + Duration::from_secs(lasts), async || !loads().await).await;
    until("the node serves", BACK, async || member.say("after").await).await;
    assert_eq!((member.gaps, breaks(&node)), (0, 0), "{}", node.stderr());
}

/// Sends a command whose reply is not awaited.
async fn send(redis: &Redis, command: &str) -> TcpStream {
    let mut stream = TcpStream::connect(redis.addr()).await.unwrap();
    stream.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
    stream
}

/// A script of another client blocks Redis: standing subscriptions stay, new ones are refused.
#[tokio::test]
async fn a_redis_that_a_script_blocks_keeps_its_connections() {
    let redis = Redis::start().await;
    let node = start_node(&redis.url(), "node").await;
    let mut member = Member::join(&node).await;
    redis.command("CONFIG SET busy-reply-threshold 10").await;
    let _blocked = send(&redis, "EVAL \"while true do end\" 0").await;
    until("redis refuses", SOON, async || node.stderr().contains("reply=\"BUSY")).await;
    let begun = Instant::now();
    let mut other = Socket::connect(node.addr).await;
    let refused = other.request(r#"{"event":"roomAdd","room":"vip"}"#).await;
    assert_eq!(refused["error"]["message"], "the backend refused it: nothing was changed", "{refused}");
    sleep_until(begun + Duration::from_secs(3)).await; // the length of the fault
    redis.command("SCRIPT KILL").await;
    until("the node serves", BACK, async || member.say("after").await).await;
    assert_eq!((member.gaps, breaks(&node)), (0, 0), "{}", node.stderr());
}
