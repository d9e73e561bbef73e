//! Tags of connections over several nodes.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phalanx_core::backend::{Bus, Incoming, SessionKey, Subscription, TagId, TagMessage, TagMessageKind};
use phalanx_core::config::Config;
use phalanx_core::connection::{Attributes, Connection, Frame, NewConnection, OutboxItem, OutboxLimit};
use phalanx_core::protocol::CloseReason;
use phalanx_core::{ConnectionId, Engine, ErrorKind, NodeSetup, Registration, SessionSign, TaggedConnections};
use phalanx_testkit::{Proxy, Redis, print};
use serde_json::json;
use tokio::time::Instant;

use super::bus::{TestNode, text, until};

const GAP: &str = r#"{"context":"api","event":"gap"}"#;

/// A node with connections, but without sockets.
pub(super) struct Node {
    engine: Engine,
    registrations: Vec<Registration>,
}

impl Node {
    async fn start(url: &str, id: &str) -> Self {
        Self::start_with(url, id, |_| {}).await
    }

    pub(super) async fn start_with(url: &str, id: &str, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.redis.command_timeout = Duration::from_secs(1);
        change(&mut config);
        let mut setup = NodeSetup::new("laws", config);
        setup.node_id = id.to_owned();
        setup.backend = phalanx_cluster::backend(url, "laws", id, &setup.config).unwrap();
        Self { engine: Engine::start(setup).await.unwrap(), registrations: Vec::new() }
    }

    pub(super) fn connect(&mut self) -> Connection {
        let connection = self.with_id(self.engine.new_connection_id());
        self.register(connection)
    }

    fn with_id(&self, id: ConnectionId) -> Connection {
        Connection::new(NewConnection {
            id,
            fingerprint: "f".into(),
            remote: SocketAddr::from(([127, 0, 0, 1], 1)),
            attributes: Attributes::limited(1000),
            connected_at: 0,
            outbox: OutboxLimit { frames: 1000, bytes: 1_000_000 },
        })
    }

    fn register(&mut self, connection: Connection) -> Connection {
        self.registrations.push(self.engine.register(connection.clone()).unwrap());
        connection
    }

    async fn tagged_member(&mut self, tag: &str) -> Connection {
        let connection = self.connect();
        connection.tag(tag).await.unwrap();
        connection
    }

    /// A connection of a session and its user.
    async fn signed_in(&mut self, session: &str, user: &str) -> Connection {
        let connection = self.connect();
        self.registrations.last().unwrap().set_session(SessionKey::of(session), Some(user)).await.unwrap();
        connection
    }

    pub(super) fn tagged(&self, tag: &str) -> TaggedConnections {
        self.engine.node().connections().tagged(tag)
    }
}

async fn three(redis: &Redis) -> [Node; 3] {
    let url = redis.url();
    let (a, b, c) = tokio::join!(Node::start(&url, "a"), Node::start(&url, "b"), Node::start(&url, "c"));
    [a, b, c]
}

pub(super) async fn stop(nodes: impl IntoIterator<Item = Node>) {
    for node in nodes {
        for registration in node.registrations {
            registration.remove(CloseReason::ClientLeft).await;
        }
        node.engine.stop().await;
    }
}

pub(super) fn frames(connection: &Connection) -> Vec<String> {
    let next = || match connection.next() {
        OutboxItem::Frame(Frame::Text(text)) => Some(String::from_utf8_lossy(&text).into_owned()),
        _ => None,
    };
    std::iter::from_fn(next).collect()
}

/// Waits for exactly these frames.
async fn receives(connection: &Connection, expected: &[&str]) {
    let mut received = Vec::new();
    until(&format!("{expected:?}"), async || {
        received.extend(frames(connection));
        received == expected
    })
    .await;
}

#[tokio::test]
async fn messages_and_calls_reach_the_connections_of_all_nodes() {
    let redis = Redis::start().await;
    let [mut a, mut b, mut c] = three(&redis).await;
    let members = [a.tagged_member("staff").await, b.tagged_member("staff").await, b.tagged_member("staff").await];
    let other = c.tagged_member("guests").await;
    for (sender, name) in [(&a, "a"), (&b, "b"), (&c, "c")] {
        sender.tagged("staff").send(&json!({ "context": name })).await.unwrap();
    }
    for member in &members {
        let mut received = Vec::new();
        until("one message of each node, once", async || {
            received.extend(frames(member));
            received.len() >= 3
        })
        .await;
        received.sort();
        assert_eq!(received, [r#"{"context":"a"}"#, r#"{"context":"b"}"#, r#"{"context":"c"}"#]);
    }
    for caller in [&a, &b, &c] {
        let staff = caller.tagged("staff");
        let counted = staff.count().await.unwrap();
        assert_eq!((counted.count, counted.missing.len()), (3, 0));
        let mut listed = staff.list().await.unwrap().ids;
        listed.sort();
        let mut ids: Vec<_> = members.iter().map(|member| member.id().clone()).collect();
        ids.sort();
        assert_eq!(listed, ids);
        let got = staff.apply("set", json!(["by", caller.engine.node().id()])).await.unwrap();
        assert_eq!((got.count, got.failed, got.results.len()), (3, 0, 3));
        assert!(members.iter().all(|member| member.get("by") == Some(json!(caller.engine.node().id()))));
    }
    assert!(other.get("by").is_none() && frames(&other).is_empty());
    assert_eq!(c.tagged("staff").close(CloseReason::NotAllowed).await.unwrap().count, 3);
    until("all are closed", async || members.iter().all(|it| it.closing() == Some(CloseReason::NotAllowed))).await;
    assert!(!other.is_closing());
    stop([a, b, c]).await;
}

#[tokio::test]
async fn a_connection_id_that_two_nodes_have_counts_once() {
    let redis = Redis::start().await;
    let [mut a, mut b, c] = three(&redis).await;
    for node in [&mut a, &mut b] {
        let ada = node.with_id(ConnectionId::parse("ada").unwrap());
        node.register(ada).tag("staff").await.unwrap();
    }
    a.tagged_member("staff").await;
    for caller in [&a, &c] {
        assert_eq!(caller.tagged("staff").count().await.unwrap().count, 2);
        let listed = caller.tagged("staff").list().await.unwrap();
        assert_eq!((listed.count, listed.ids.len()), (2, 2));
        let got = caller.tagged("staff").apply("details", json!(null)).await.unwrap();
        assert_eq!((got.count, got.results.len()), (2, 2));
    }
    stop([a, b, c]).await;
}

fn id(letter: char) -> TagId {
    TagId::parse(&letter.to_string().repeat(TagId::TEXT)).unwrap()
}

fn frame(tag: TagId, text: &str) -> TagMessage {
    let payload = text.to_owned().into();
    TagMessage { tag, kind: TagMessageKind::Frame, id: 0, deadline_ms: None, payload }
}

#[tokio::test]
async fn a_message_goes_to_the_two_of_eight_nodes_that_have_the_tag_and_no_longer_to_one_that_had_it() {
    let redis = Redis::start().await;
    let mut nodes = Vec::new();
    for _ in 0..8 {
        nodes.push(TestNode::new(&redis.url(), ("t", ""), 100).await);
    }
    let mut kept = Vec::new();
    for number in [2, 5] {
        let (subscription, stands) = nodes[number].bus.subscribe_to_tag(id('a'));
        stands.await.unwrap();
        kept.push((number, subscription));
    }
    assert_eq!(nodes[7].bus.publish_to_tag(frame(id('a'), "{}")).await.unwrap(), 2);
    nodes[7].publish("r", "behind it").await.unwrap();
    for (number, node) in nodes.iter_mut().enumerate() {
        let mut received = 0;
        loop {
            let arrival = node.next().await;
            received += usize::from(matches!(arrival, Incoming::TagMessage(..)));
            if text(&arrival) == Some("behind it") {
                break;
            }
        }
        assert_eq!(received, usize::from(number == 2 || number == 5), "node {number}");
    }
    let (_, subscription): (usize, Subscription) = kept.pop().unwrap();
    drop(subscription);
    until("the channel of one is unsubscribed after its pause", async || {
        nodes[7].bus.publish_to_tag(frame(id('a'), "{}")).await.unwrap() == 1
    })
    .await;
}

#[tokio::test]
async fn a_tag_that_was_set_while_redis_was_away_is_set_when_it_is_back() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let mut cut_off = Node::start(&redis.url_through(proxy.addr()), "cut-off").await;
    let other = Node::start(&redis.url(), "other").await;
    let earlier = cut_off.tagged_member("earlier").await;
    proxy.cut();
    let ada = cut_off.connect();
    let start = Instant::now();
    let refused = ada.tag("staff").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(start.elapsed() < Duration::from_secs(5), "within the timeout of a command: {:?}", start.elapsed());
    assert_eq!(ada.tags().len(), 1, "it is remembered");
    let unknown = cut_off.tagged("staff").send(&json!({ "context": "here" })).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unavailable);
    assert_eq!(frames(&ada), [r#"{"context":"here"}"#], "on its own node it holds at once");
    let taken = cut_off.connect();
    taken.tag("taken").await.unwrap_err();
    assert!(taken.untag("taken"));
    proxy.restore();
    until("another node finds it", async || other.tagged("staff").count().await.unwrap().count == 1).await;
    other.tagged("staff").send(&json!({ "context": "there" })).await.unwrap();
    receives(&ada, &[r#"{"context":"there"}"#]).await;
    receives(&earlier, &[GAP]).await;
    assert_eq!(other.tagged("taken").count().await.unwrap().count, 0);
    ada.tag("staff").await.unwrap();
    stop([cut_off, other]).await;
}

#[tokio::test]
async fn a_subscription_that_had_a_gap_is_reported_to_its_sockets_and_to_the_observer_of_sessions() {
    let redis = Redis::start().await;
    let mut node = Node::start(&redis.url(), "one").await;
    let other = Node::start(&redis.url(), "other").await;
    let sessions = Arc::new(Mutex::new(Vec::new()));
    let observed = sessions.clone();
    node.engine.observe_sessions(move |sign, connections| observed.lock().unwrap().push((sign, connections.len())));
    let (tagged, untagged) = (node.tagged_member("staff").await, node.connect());
    let user = node.signed_in("hash", "ada").await;
    tagged.tag("more").await.unwrap();
    redis.command("CLIENT KILL TYPE pubsub").await;
    for connection in [&tagged, &user] {
        receives(connection, &[GAP]).await;
    }
    until("the session's gap is observed", async || *sessions.lock().unwrap() == [(SessionSign::Gap, 1)]).await;
    other.tagged("staff").send(&json!({ "context": "after" })).await.unwrap();
    receives(&tagged, &[r#"{"context":"after"}"#]).await;
    assert!(frames(&untagged).is_empty());
    stop([node, other]).await;
}

#[tokio::test]
async fn a_node_that_received_a_call_and_does_not_answer_is_named_and_one_that_is_gone_is_not() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let mut frozen = Node::start(&redis.url_through(proxy.addr()), "frozen").await;
    let [mut a, mut b, c] = three(&redis).await;
    frozen.tagged_member("staff").await;
    a.tagged_member("staff").await;
    let member = b.tagged_member("staff").await;
    assert_eq!(c.tagged("staff").count().await.unwrap().count, 3);
    proxy.pause();
    let staff = c.tagged("staff").within(Duration::from_millis(500));
    let start = Instant::now();
    let counted = staff.count().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!((counted.count, &*counted.missing), (2, &["frozen".to_owned()][..]));
    let listed = staff.list().await.unwrap();
    assert_eq!((listed.count, listed.missing.len()), (2, 1));
    let got = staff.apply("set", json!(["k", 1])).await.unwrap();
    assert_eq!((got.count, got.failed, &*got.missing), (2, 0, &["frozen".to_owned()][..]));
    assert_eq!(member.get("k"), Some(json!(1)));
    proxy.cut();
    until("redis has dropped its subscription", async || staff.count().await.unwrap().missing.is_empty()).await;
    assert_eq!(staff.count().await.unwrap().count, 2);
    proxy.restore();
    stop([a, b, c, frozen]).await;
}

#[tokio::test]
async fn a_node_that_refuses_a_call_is_named_at_once() {
    let redis = Redis::start().await;
    let mut busy = Node::start_with(&redis.url(), "busy", |config| config.cluster.max_calls = 0).await;
    let [mut a, b, c] = three(&redis).await;
    busy.tagged_member("staff").await;
    a.tagged_member("staff").await;
    let start = Instant::now();
    let counted = c.tagged("staff").count().await.unwrap();
    // Nothing says that `b` has no such connection: of the nodes that did not answer, some may be named for others.
    assert_eq!((counted.count, &*counted.missing), (1, &["b".to_owned(), "busy".to_owned()][..]));
    assert!(start.elapsed() < Duration::from_secs(4), "not at the deadline: {:?}", start.elapsed());
    let refused = busy.tagged("staff").count().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "nor may it wait for answers");
    stop([a, b, c, busy]).await;
}

#[tokio::test]
async fn a_forged_message_to_a_tag_reaches_no_connection() {
    let redis = Redis::start().await;
    let mut node = TestNode::new(&redis.url(), ("t", ""), 100).await;
    let forger = TestNode::new(&redis.url(), ("other", ""), 100).await;
    let (_subscription, stands) = node.bus.subscribe_to_tag(id('a'));
    stands.await.unwrap();
    let channel = format!("laws:tag:{}", id('a'));
    redis.publish(&channel, "rubbish").await;
    redis.publish(&channel, "{}\n{}").await;
    assert_eq!(forger.bus.publish_to_tag(frame(id('a'), "forged")).await.unwrap(), 1, "it knows no token");
    node.bus.publish_to_tag(frame(id('a'), "genuine")).await.unwrap();
    match node.next().await {
        Incoming::TagMessage(from, message) => {
            assert_eq!((from, &*message.payload), (node.generation, &b"genuine"[..]));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn many_tags_stand_again_after_a_loss_of_the_subscription_and_each_has_one_gap() {
    const TAGS: usize = 20_000;
    let redis = Redis::start().await;
    let mut node = TestNode::with_timeout(&redis.url(), ("t", ""), 4096, Duration::from_secs(30)).await;
    let start = Instant::now();
    let number = |number: usize| TagId::parse(&format!("{number:032}")).unwrap();
    let (_kept, standing): (Vec<_>, Vec<_>) = (0..TAGS).map(|tag| node.bus.subscribe_to_tag(number(tag))).unzip();
    for stands in standing {
        stands.await.unwrap();
    }
    let first = start.elapsed();
    redis.command("CLIENT KILL TYPE pubsub").await;
    let (mut gaps, start) = (HashSet::new(), Instant::now());
    while gaps.len() < TAGS {
        if let Incoming::TagGap(tag, _) = node.next().await {
            assert!(gaps.insert(tag), "one gap");
        }
    }
    print(format_args!("{TAGS} tags stand after {first:?}, and again {:?} after a loss", start.elapsed()));
    let (_subscription, stands) = node.bus.subscribe_to_tag(id('a'));
    stands.await.unwrap();
    assert_eq!(node.bus.publish_to_tag(frame(number(TAGS - 1), "{}")).await.unwrap(), 1);
    assert_eq!(node.bus.publish_to_tag(frame(id('a'), "{}")).await.unwrap(), 1);
}
