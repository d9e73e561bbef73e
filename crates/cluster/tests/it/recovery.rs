//! Whole nodes, without sockets, that list many members again.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::config::Config;
use phalanx_core::connection::{Attributes, Frame, NewConnection, OutboxItem, OutboxLimit};
use phalanx_core::protocol::CloseReason;
use phalanx_core::{Connection, ConnectionId, Engine, NodeSetup, Registration};
use phalanx_testkit::{Redis, at_most, check_time, print};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::counters::Counters;
use crate::renewals::{LongestRenewal, TimedMembership};

/// The documented time within which members are listed again.
pub(crate) const BACK: Duration = Duration::from_secs(2);

/// Whether the sizes are those of the promises, which take minutes: `just chaos`.
pub(crate) fn is_full_size() -> bool {
    std::env::var("ROUNDS").is_ok_and(|rounds| rounds.parse().is_ok_and(|rounds: usize| rounds > 1))
}

/// Joins and leaves that are in progress at once.
const AT_ONCE: usize = 64;

/// A node and its connections.
pub(crate) struct LargeNode {
    pub(crate) engine: Engine,
    pub(crate) connections: Vec<Connection>,
    pub(crate) longest_renewal: LongestRenewal,
    registrations: Vec<Registration>,
}

impl LargeNode {
    async fn start(redis: &Redis, id: &str) -> Self {
        Self::start_at(&redis.url(), id).await
    }

    /// With the rooms `r` and `s`, and `p`, which has presence.
    pub(crate) async fn start_at(url: &str, id: &str) -> Self {
        Self::start_with(url, id, &["r", "s", "p"].map(str::to_owned)).await
    }

    /// With these rooms.
    pub(crate) async fn start_with(url: &str, id: &str, rooms: &[String]) -> Self {
        let mut config = Config::default();
        config.rooms.start = rooms.to_vec();
        config.rooms.presence = vec!["p".to_owned()];
        config.websocket.max_connections = 1_000_000;
        let mut setup = NodeSetup::new("laws", config);
        setup.node_id = id.to_owned();
        setup.backend = phalanx_cluster::backend(url, "laws", id, &setup.config).unwrap();
        let longest_renewal = LongestRenewal::default();
        let (inner, longest) = (setup.backend.membership, longest_renewal.clone());
        setup.backend.membership = Arc::new(TimedMembership { inner, longest });
        let engine = Engine::start(setup).await.unwrap();
        Self { engine, connections: Vec::new(), longest_renewal, registrations: Vec::new() }
    }

    /// Adds connections that are members of a room. Nobody reads their frames.
    pub(crate) async fn join(&mut self, room: &str, count: usize) {
        let first = self.connections.len();
        self.connect(count);
        self.join_some(first..first + count, room).await;
    }

    /// Adds connections that are in no room.
    pub(crate) fn connect(&mut self, count: usize) {
        let first = self.connections.len();
        for number in first..first + count {
            let connection = Connection::new(NewConnection {
                id: ConnectionId::parse(&format!("{}-{number}", self.engine.node().id())).unwrap(),
                fingerprint: "f".into(),
                remote: SocketAddr::from(([127, 0, 0, 1], 1)),
                attributes: Attributes::limited(1000),
                connected_at: 0,
                outbox: OutboxLimit { frames: 1024, bytes: 1_000_000 },
            });
            self.registrations.push(self.engine.register(connection.clone()).unwrap());
            self.connections.push(connection);
        }
    }

    /// Makes all connections members of a room.
    pub(crate) async fn join_all(&self, room: &str) {
        self.join_some(0..self.connections.len(), room).await;
    }

    /// Makes these connections members of a room.
    pub(crate) async fn join_some(&self, some: Range<usize>, room: &str) {
        for batch in self.connections[some].chunks(AT_ONCE) {
            let mut joining = JoinSet::new();
            for connection in batch {
                let (rooms, connection, room) =
                    (self.engine.node().rooms().clone(), connection.clone(), room.to_owned());
                joining.spawn(async move { rooms.join(&connection, &room).await.unwrap() });
            }
            joining.join_all().await;
            if room == "p" {
                self.take_frames(); // others receive nothing, and there may be many
            }
        }
    }

    /// Empties all outboxes, and returns the frames of each.
    pub(crate) fn take_frames(&self) -> Vec<Vec<String>> {
        let text = |connection: &Connection| match connection.next() {
            OutboxItem::Frame(Frame::Text(bytes)) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            _ => None,
        };
        self.connections.iter().map(|it| std::iter::from_fn(|| text(it)).collect()).collect()
    }

    /// The clients of the first connections leave, all at once.
    pub(crate) async fn disconnect(&mut self, count: usize) {
        self.connections.drain(..count);
        let mut leaving = JoinSet::new();
        for registration in self.registrations.drain(..count) {
            leaving.spawn(registration.remove(CloseReason::ClientLeft));
        }
        leaving.join_all().await;
    }
}

pub(crate) async fn members(redis: &Redis, room: &str) -> usize {
    let reply = redis.command(&format!("HLEN actionhero:chatRoom:members:{room}")).await;
    reply.trim_start_matches(':').trim().parse().unwrap_or_default()
}

/// Waits until a room has that many members, of a few thousand that change.
pub(crate) async fn until(redis: &Redis, room: &str, count: usize) -> Duration {
    until_within(redis, room, count, BACK).await
}

/// The same where that may take longer.
pub(crate) async fn until_within(redis: &Redis, room: &str, count: usize, documented: Duration) -> Duration {
    let started = Instant::now();
    let counted = async {
        while members(redis, room).await != count {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(at_most(documented), counted).await.expect("the list is as it should be");
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_leaves_while_redis_is_away_delay_no_member_that_stays() {
    let mut redis = Redis::start().await;
    let mut node = LargeNode::start(&redis, "one").await;
    node.join("r", 10_000).await;
    redis.kill().await;
    node.disconnect(5_000).await;
    redis.start_again().await;
    let took = until(&redis, "r", 5_000).await;
    check_time("5,000 leaves beside 5,000 members", took, BACK);
    redis.command("FLUSHALL").await;
    let took = until(&redis, "r", 5_000).await;
    check_time("5,000 members on an empty redis", took, BACK);
    node.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_large_nodes_refill_an_empty_redis_under_the_same_generations() {
    let redis = Redis::start().await;
    let mut nodes = Vec::new();
    for id in ["one", "two", "three", "four"] {
        let mut node = LargeNode::start(&redis, id).await;
        node.join("r", 2_000).await;
        nodes.push(node);
    }
    let generations: Vec<_> = nodes.iter().map(|node| node.engine.node().generation()).collect();
    redis.command("FLUSHALL").await;
    let took = until(&redis, "r", 8_000).await;
    check_time("4 nodes of 2,000 members on an empty redis", took, BACK);
    for (node, generation) in nodes.iter().zip(generations) {
        assert_eq!(node.engine.node().generation(), generation);
        node.engine.stop().await;
    }
}

/// A pass with each renewal, while others join and leave: it takes out no member, and finds nothing that differs.
#[test]
fn passes_beside_joins_and_leaves_change_nothing() {
    Counters::run(pass_beside_joins_and_leaves);
}

/// Its record is missing there as if it had been reaped, but nobody announced the leaves of its members.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_older_data_never_had_keeps_its_generation_and_announces_its_leaves() {
    let mut redis = Redis::start().await;
    let mut watcher = LargeNode::start(&redis, "watcher").await;
    watcher.join("p", 1).await;
    redis.keep();
    let mut node = LargeNode::start(&redis, "n").await;
    node.join("p", 20).await;
    let generation = node.engine.node().generation();
    redis.kill().await;
    node.disconnect(5).await;
    redis.start_older().await;
    until(&redis, "p", 1 + 15).await;
    assert_eq!(node.engine.node().generation(), generation, "it was not reaped");
    let mut changes = Vec::new();
    let left = |changes: &[String]| {
        let leaves: String = changes.iter().filter(|frame| frame.contains(r#""event":"leave""#)).cloned().collect();
        (0..20).filter(|number| leaves.contains(&format!("\"n-{number}\""))).collect::<Vec<_>>()
    };
    let announced = async {
        while left(&changes).len() < 5 {
            changes.extend(watcher.take_frames().into_iter().flatten());
            sleep(Duration::from_millis(5)).await;
        }
    };
    let all = timeout(at_most(BACK), announced).await;
    assert!(all.is_ok(), "five left while Redis was away: {changes:#?}");
    assert_eq!(left(&changes), [0, 1, 2, 3, 4]);
    let joins = changes.iter().filter(|frame| frame.contains(r#""event":"join""#) && frame.contains("\"n-")).count();
    assert_eq!(joins, 20, "nobody joined again: {changes:#?}");
    node.engine.stop().await;
    watcher.engine.stop().await;
}

async fn pass_beside_joins_and_leaves(counters: &'static Counters) {
    const REPAIRED: &str = "phalanx_memberships_repaired_total";
    let redis = Redis::start().await;
    let mut node = LargeNode::start(&redis, "one").await;
    node.join("s", 300).await;
    let rooms = node.engine.node().rooms().clone();
    let end = Instant::now() + Duration::from_secs(if is_full_size() { 60 } else { 6 });
    let mut changing = JoinSet::new();
    for connection in &node.connections[..AT_ONCE] {
        let (rooms, connection) = (rooms.clone(), connection.clone());
        changing.spawn(async move {
            let mut changes = 0_usize;
            while Instant::now() < end {
                rooms.join(&connection, "r").await.unwrap();
                rooms.leave(&connection, "r").await.unwrap();
                changes += 1;
            }
            rooms.join(&connection, "r").await.unwrap();
            changes
        });
    }
    let generation = node.engine.node().generation();
    let beats = format!("HSET phalanx:laws:beats {generation} 0");
    let (mut passes, redis) = (0, Arc::new(redis));
    while Instant::now() < end {
        redis.command(&beats).await;
        passes += 1;
        assert_eq!(members(&redis, "s").await, 300);
        sleep(Duration::from_millis(20)).await;
    }
    let changes: usize = changing.join_all().await.into_iter().sum();
    print(format_args!("{changes} joins and leaves, older data {passes} times"));
    assert_eq!((members(&redis, "s").await, members(&redis, "r").await), (300, AT_ONCE));
    let stored = redis.command(&format!("HLEN phalanx:laws:held:{generation}")).await;
    assert_eq!(stored, format!(":{}\r\n", 300 + AT_ONCE));
    assert_eq!(counters.of(REPAIRED), 0, "entries were repaired that were as they should be");
    redis.command(&format!("HDEL actionhero:chatRoom:members:s {}", node.connections[0].id())).await;
    redis.command(&beats).await;
    let repaired = async {
        while counters.of(REPAIRED) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(at_most(BACK), repaired).await.expect("the member that was lost is counted");
    assert_eq!((members(&redis, "s").await, counters.of(REPAIRED)), (300, 1));
    node.engine.stop().await;
}
