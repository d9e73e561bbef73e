//! The address of Redis moves to another server, and the old one, which becomes its replica, closes no connection.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use phalanx_cluster::{Keys, RedisClient, RedisClock, RedisMembership};
use phalanx_core::Generation;
use phalanx_core::backend::{Bus, GapCause, Incoming, Membership};
use phalanx_testkit::laws::membership::record;
use phalanx_testkit::{Direction, Flow, Proxy, Redis, print};
use tokio::time::{Instant, sleep};

use super::bus::{TestNode, bus_with, text, until};

const TOKENS: (&str, &str) = ("t", "");

/// The promise; a command that Redis does not answer takes 1 s here.
const BACK: Duration = Duration::from_secs(5);

/// Two servers.
struct Servers {
    old: Redis,
    new: Redis,
}

/// A node behind an address of its own.
struct Node {
    bus: TestNode,
    membership: RedisMembership,
    address: Proxy,
}

impl Servers {
    async fn start() -> Self {
        let (old, new) = (Redis::start().await, Redis::start().await);
        for server in [&old, &new] {
            server.command("CONFIG SET repl-diskless-sync-delay 0").await;
        }
        Self { old, new }
    }

    async fn node(&self) -> Node {
        let address = Proxy::before(self.old.addr()).await;
        let client = RedisClient::open(&self.old.url_through(address.addr()), Duration::from_secs(1)).unwrap();
        let keys = Keys::new("actionhero:", "laws");
        let bus = bus_with(client.clone(), keys.clone(), TOKENS, 1000);
        let (version, link) = (bus.version(), bus.link());
        let membership = RedisMembership::new(client, keys, Arc::new(RedisClock::default()), version, link);
        let generation = Generation::random();
        bus.open_inbox(generation).await.unwrap();
        membership.register(&record(generation), false).await.unwrap();
        let arrivals = bus.receiver().unwrap();
        let mut bus = TestNode { bus, arrivals, generation, subscriptions: Vec::new() };
        bus.subscribe("r").await;
        bus.publish("r", "connected").await.unwrap();
        while text(&bus.next().await) != Some("connected") {}
        Node { bus, membership, address }
    }

    /// The new server has all data of the old one, and takes writes.
    async fn promote(&self) {
        replicate(&self.new, &self.old).await;
        self.new.command("REPLICAOF NO ONE").await;
    }
}

impl Node {
    async fn renew(&self) -> bool {
        self.membership.renew(self.bus.generation).await.is_ok()
    }

    /// The number of gaps of the room that have arrived.
    fn gaps(&mut self) -> usize {
        let arrivals = std::iter::from_fn(|| self.bus.arrivals.try_recv().ok());
        arrivals.filter(|arrival| matches!(arrival, Incoming::Gap(Some(_), _))).count()
    }

    /// Drops everything that has arrived.
    fn forget(&mut self) {
        while self.bus.arrivals.try_recv().is_ok() {}
    }
}

/// Makes a server the replica of another one, and waits until it has its data.
pub(crate) async fn replicate(replica: &Redis, primary: &Redis) {
    replica.command(&format!("REPLICAOF 127.0.0.1 {}", primary.addr().port())).await;
    let is_up = async || replica.command("INFO replication").await.contains("master_link_status:up");
    until("the replica has the data", is_up).await;
}

#[tokio::test]
async fn a_confirmed_message_reaches_a_node_that_moved_before() {
    let servers = Servers::start().await;
    let (one, mut other) = (servers.node().await, servers.node().await);
    other.forget();
    servers.promote().await;
    for node in [&one, &other] {
        node.address.switch_to(servers.new.addr());
    }
    servers.old.command(&format!("REPLICAOF 127.0.0.1 {}", servers.new.addr().port())).await;
    until("the renewal of the other node succeeds again", async || other.renew().await).await;
    until("it is subscribed at the new server", async || {
        servers.new.command("PUBSUB NUMSUB laws:room:r").await.contains(":1\r\n")
    })
    .await;
    let switched = Instant::now();
    one.bus.publish("r", "after").await.unwrap();
    print(format_args!("a message to a server that has become a replica was confirmed after {:?}", switched.elapsed()));
    let mut gaps = 0;
    loop {
        let arrival = other.bus.next().await;
        gaps += usize::from(matches!(arrival, Incoming::Gap(Some(_), _)));
        if text(&arrival).is_some() {
            assert_eq!(text(&arrival), Some("after"));
            break;
        }
    }
    assert_eq!(gaps, 1);
}

#[tokio::test]
async fn all_connections_follow_that_of_commands() {
    let servers = Servers::start().await;
    let (mut one, mut other) = (servers.node().await, servers.node().await);
    servers.promote().await;
    for node in [&one, &other] {
        node.address.hold_flow(Flow::Commands, Direction::ToServer);
        node.address.switch_to(servers.new.addr());
    }
    servers.old.command(&format!("REPLICAOF 127.0.0.1 {}", servers.new.addr().port())).await;
    let switched = Instant::now();
    for node in [&one, &other] {
        until("the renewal succeeds again", async || node.renew().await).await;
    }
    until("both are subscribed at the new server", async || {
        servers.new.command("PUBSUB NUMSUB laws:room:r").await.contains(":2\r\n")
    })
    .await;
    one.bus.publish("r", "after").await.unwrap();
    for node in [&mut one, &mut other] {
        while text(&node.bus.next().await) != Some("after") {}
    }
    let back = switched.elapsed();
    print(format_args!("all connections followed that of commands after {back:?}"));
    assert!(back < BACK, "{back:?}");
}

#[tokio::test]
async fn the_loss_of_all_connections_makes_one_gap() {
    let servers = Servers::start().await;
    let mut nodes = join_all((0..5).map(async |_| servers.node().await)).await;
    for node in &mut nodes {
        node.forget();
        node.address.cut();
    }
    for node in &mut nodes {
        while !matches!(node.bus.next().await, Incoming::Away) {}
    }
    for node in &nodes {
        node.address.restore();
    }
    for node in &mut nodes {
        until("messages pass again", async || node.bus.publish("r", "back").await.is_ok()).await;
        until("the lease is renewed", async || node.renew().await).await; // over a connection that was cut as well
    }
    sleep(Duration::from_millis(500)).await; // a second gap would come as soon as the first
    for node in &mut nodes {
        assert_eq!(node.gaps(), 1);
    }
}

/// The next subscription waits until commands go to the new server too.
#[tokio::test]
async fn a_subscription_that_breaks_at_a_switch_over_makes_one_gap() {
    let servers = Servers::start().await;
    let mut node = servers.node().await;
    node.forget();
    servers.promote().await;
    node.address.switch_to(servers.new.addr());
    servers.old.command(&format!("REPLICAOF 127.0.0.1 {}", servers.new.addr().port())).await;
    node.address.close_flow(Flow::Subscribing);
    while !matches!(node.bus.next().await, Incoming::Away) {}
    until("messages pass again", async || node.bus.publish("r", "back").await.is_ok()).await;
    until("the lease is renewed", async || node.renew().await).await;
    sleep(Duration::from_millis(500)).await; // a second gap would come as soon as the first
    assert_eq!(node.gaps(), 1);
}

/// The old server publishes again to its subscribers what the new one publishes, but not what it published before both
/// were synchronised.
#[tokio::test]
async fn a_message_of_an_unannounced_connection_makes_a_gap() {
    let servers = Servers::start().await;
    let (mover, mut stays) = (servers.node().await, servers.node().await);
    stays.forget();
    servers.promote().await;
    servers.old.command("SET diverged yes").await; // so that all data are sent again, and not the commands since
    mover.address.switch_to(servers.new.addr());
    mover.address.cut();
    until("it is cut off", async || !mover.renew().await).await;
    mover.address.restore();
    until("it publishes at the new server", async || mover.bus.publish("r", "missed").await.is_ok()).await;
    replicate(&servers.old, &servers.new).await;
    mover.bus.publish("r", "received").await.unwrap();
    let arrival = stays.bus.next().await;
    assert!(matches!(arrival, Incoming::Gap(Some(_), GapCause::Overflow)), "{arrival:?}");
}
