//! Clusters of real nodes over a real Redis; faults are real signals to either.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use phalanx::config::Config;
use phalanx_testkit::{Process, Redis, at_most};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::{Response, Socket, get, post_json};

mod away;
mod calls;
mod chat;
mod clusters;
mod failover;
mod hostile;
mod in_process;
mod interop;
mod late_writes;
mod load;
mod locks;
mod members;
mod moved_slot;
mod network;
mod node_death;
mod older_data;
mod rate_limits;
mod recovery;
mod redis;
mod roles;
pub(crate) mod tasks;
mod tasks_command;
mod ticks;
mod tls;

/// A limit for waits that no promise bounds.
const SOON: Duration = Duration::from_secs(30);

/// The documented time of a recovery, and of one from an empty Redis.
const RECOVERY: Duration = Duration::from_secs(5);
const RECOVERY_FROM_NOTHING: Duration = Duration::from_secs(10);

/// A limit for waits until something is as before a fault.
const BACK: Duration = at_most(RECOVERY);

/// The documented time within which the members of a dead node have left.
const REAP: Duration = Duration::from_secs(8);

/// A limit for waits for that.
const REAPED: Duration = at_most(REAP);

/// The documented time of a call to a connection that is gone.
const AT_ONCE: Duration = Duration::from_millis(50);

/// The room with presence. Presence costs every member a message for each join and leave: only one room has it.
const PRESENCE: &str = "defaultRoom";

/// The number of times each fault is caused: a second time, with all that the first one left behind; `just chaos` sets more.
fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(2)
}

/// Whether faults last as long as promised: with `ROUNDS` (`just chaos`), not in each run of the tests.
fn is_full_size() -> bool {
    std::env::var_os("ROUNDS").is_some()
}

/// Settings of a node in this process with this id.
fn config(id: &str) -> Config {
    let mut config = Config::default();
    config.general.id = id.to_owned();
    config.web.bind = std::net::Ipv4Addr::LOCALHOST.into();
    config.web.port = 0;
    config.admin.bind = String::new();
    config
}

/// Tour nodes over one Redis.
struct Cluster {
    redis: Redis,
    nodes: Vec<Process>,
}

impl Cluster {
    async fn start(count: usize) -> Self {
        Self::with_presence(count, PRESENCE).await
    }

    /// The same with presence in these rooms.
    async fn with_presence(count: usize, rooms: &str) -> Self {
        let redis = Redis::start().await;
        let nodes = start_nodes(&redis.url(), count, rooms).await;
        let cluster = Self { redis, nodes };
        cluster.until_all_list(count).await;
        cluster
    }

    fn addr(&self, node: usize) -> SocketAddr {
        self.nodes[node].addr
    }

    /// Waits until every running node lists `count` nodes.
    async fn until_all_list(&self, count: usize) {
        for node in &self.nodes {
            until("every node lists all nodes", SOON, async || nodes_of(node.addr).await.len() == count).await;
        }
    }

    async fn generation(&self, node: usize) -> String {
        status(self.addr(node)).await["generation"].as_str().unwrap().to_owned()
    }
}

async fn start_nodes(url: &str, count: usize, presence: &str) -> Vec<Process> {
    let titles: Vec<String> = (0..count).map(|number| format!("n{number}")).collect();
    join_all(titles.iter().map(|title| start_node_with(url, title, presence))).await
}

async fn start_node(url: &str, title: &str) -> Process {
    start_node_with(url, title, PRESENCE).await
}

async fn start_node_with(url: &str, title: &str, presence: &str) -> Process {
    let environment = [
        ("REDIS_URL", url),
        ("PHALANX_TITLE", title),
        ("PHALANX__ROOMS__PRESENCE", presence),
        // Sockets that a test does not read answer no pings, and must outlast a fault.
        ("PHALANX__WEBSOCKET__HEARTBEAT", "10m"),
    ];
    Process::start("tour", &environment).await
}

async fn status(addr: SocketAddr) -> Value {
    get(addr, "/api/status").await.json()
}

/// The ids of nodes that a node lists; none if it answers with an error.
async fn nodes_of(addr: SocketAddr) -> Vec<String> {
    let answer = get(addr, "/api/nodes").await.json();
    let nodes = answer["nodes"].as_array().cloned().unwrap_or_default();
    nodes.iter().map(|node| node["id"].as_str().unwrap().to_owned()).collect()
}

async fn members(addr: SocketAddr, room: &str) -> u64 {
    get(addr, &format!("/api/rooms/{room}")).await.json()["membersCount"].as_u64().unwrap_or(u64::MAX)
}

async fn apply(addr: SocketAddr, id: &str, method: &str, args: Value) -> Response {
    let body = json!({ "method": method, "args": args }).to_string();
    post_json(addr, &format!("/api/connections/{id}/apply"), &body).await
}

/// Polls a condition until it is true; returns how long that took.
///
/// The longer it takes, the rarer are the polls, each of which may cost the nodes more than all else they do meanwhile.
pub(crate) async fn until(description: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !condition().await {
        let waited = started.elapsed();
        assert!(waited < limit, "{description}: not within {limit:?}");
        sleep((waited / 20).clamp(Duration::from_millis(10), Duration::from_millis(50))).await;
    }
    started.elapsed()
}

/// Sockets of one node, each in these rooms.
async fn sockets(addr: SocketAddr, count: usize, rooms: &[&str]) -> Vec<Socket> {
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let mut socket = Socket::connect(addr).await;
        for room in rooms {
            socket.request_by_id(&json!({ "event": "roomAdd", "room": room, "messageId": room })).await;
        }
        all.push(socket);
    }
    all
}

/// The testkit's Redis user has exactly these rights, so the tests prove that they suffice.
#[test]
fn the_guide_names_the_rights_that_a_node_needs() {
    let guide = include_str!("../../../crates/phalanx/src/guide/cluster.md");
    let keys = phalanx_testkit::KEYS.replace("<cluster>", "tour");
    assert!(guide.contains(&format!("{keys} {}\n", phalanx_testkit::COMMANDS)));
    let guide = include_str!("../../../crates/phalanx/src/guide/actionhero.md");
    assert!(guide.contains(&format!("`{}`", phalanx_testkit::INTEROP)));
}
