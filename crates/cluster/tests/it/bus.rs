use std::sync::Arc;
use std::time::Duration;

use phalanx_cluster::{BusSettings, CurrentGeneration, Keys, RedisBus, RedisClient, RedisClock};
use phalanx_core::Generation;
use phalanx_core::backend::{
    BackendError, Bus, GapCause, Incoming, NodeMessage, NodeMessageKind, Posted, Publication, PublicationKind,
    Recipient, Subscription,
};
use phalanx_testkit::{Proxy, Redis};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

pub(super) const SOON: Duration = Duration::from_secs(20);

async fn bus() -> (Arc<dyn Bus>, Redis) {
    let (redis, client, keys) = super::redis().await;
    (Arc::new(bus_with(client, keys, ("t", ""), 4096)), redis)
}

phalanx_testkit::bus_laws!(redis: super::bus().await);

/// The most bytes of a message that is not skipped.
const MAX_ENVELOPE: usize = 1 << 20;

pub(super) fn bus_with(client: RedisClient, keys: Keys, (token, previous): (&str, &str), queue: usize) -> RedisBus {
    let (token, previous_token) = (token.to_owned(), previous.to_owned());
    let settings =
        BusSettings { node: "n".to_owned(), token, previous_token, queue, max_envelope: MAX_ENVELOPE, interop: None };
    RedisBus::new(client, keys, Arc::new(RedisClock::default()), CurrentGeneration::default(), settings)
}

/// A node on the bus with subscriptions to some rooms.
pub(super) struct TestNode {
    pub(super) bus: RedisBus,
    pub(super) arrivals: Receiver<Incoming>,
    pub(super) generation: Generation,
    pub(super) subscriptions: Vec<Subscription>,
}

impl TestNode {
    pub(super) async fn new(url: &str, tokens: (&str, &str), queue: usize) -> Self {
        Self::with_timeout(url, tokens, queue, Duration::from_secs(3)).await
    }

    pub(super) async fn with_timeout(url: &str, tokens: (&str, &str), queue: usize, timeout: Duration) -> Self {
        let client = RedisClient::open(url, timeout).unwrap();
        let bus = bus_with(client, Keys::new("actionhero:", "laws"), tokens, queue);
        let (arrivals, generation) = (bus.receiver().unwrap(), Generation::random());
        bus.open_inbox(generation).await.unwrap();
        let mut node = Self { bus, arrivals, generation, subscriptions: Vec::new() };
        node.subscribe("r").await;
        node
    }

    pub(super) async fn subscribe(&mut self, room: &str) {
        self.subscriptions.push(self.bus.subscribe(&room.into()).await.unwrap());
    }

    pub(super) async fn publish(&self, room: &str, text: &str) -> Result<(), BackendError> {
        publish(&self.bus, room, text).await
    }

    pub(super) async fn next(&mut self) -> Incoming {
        timeout(SOON, self.arrivals.recv()).await.expect("a message arrives").unwrap()
    }

    async fn call(&self, recipient: Generation) -> Result<Posted, BackendError> {
        let message = NodeMessage { kind: NodeMessageKind::Call, id: 7, deadline_ms: None, payload: "{}".into() };
        self.bus.post(Recipient::Node(recipient), message).await
    }
}

pub(super) async fn publish(bus: &RedisBus, room: &str, text: &str) -> Result<(), BackendError> {
    let payload = text.to_owned().into();
    bus.publish(Publication { room: room.into(), kind: PublicationKind::Message, connection: None, payload }).await
}

pub(super) fn text(arrival: &Incoming) -> Option<&str> {
    match arrival {
        Incoming::Publication(message) => std::str::from_utf8(&message.payload).ok(),
        Incoming::NodeMessage(..)
        | Incoming::TagMessage(..)
        | Incoming::InteropCall(_)
        | Incoming::Away
        | Incoming::StillAway
        | Incoming::Gap(..)
        | Incoming::SessionChanged(_)
        | Incoming::TagGap(..) => None,
    }
}

/// Polls until the condition is true.
pub(super) async fn until(condition: &str, mut is_true: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !is_true().await {
        assert!(started.elapsed() < SOON, "{condition}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until Redis has this many clients.
async fn connected(redis: &Redis, count: usize) {
    let clients = async || redis.command("CLIENT LIST").await.lines().filter(|line| line.starts_with("id=")).count();
    until("the other clients are gone", async || clients().await == count).await;
}

#[tokio::test]
async fn a_call_that_was_sent_twice_is_not_reported_as_not_received() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let caller = TestNode::new(&redis.url_through(proxy.addr()), ("t", ""), 100).await;
    let mut owner = TestNode::new(&redis.url(), ("t", ""), 100).await;
    let recipient = owner.generation;
    redis.command(&format!("HSET phalanx:laws:names {recipient} owner")).await;
    caller.publish("elsewhere", "connected").await.unwrap();
    proxy.swallow(":1\r\n"); // the reply that one subscriber received it
    let calling = async {
        let posted = caller.call(recipient).await;
        assert!(matches!(&posted, Err(BackendError::Unavailable(_))), "{posted:?}");
    };
    let breaking = async {
        assert!(
            matches!(owner.next().await, Incoming::NodeMessage(from, _) if from == caller.generation),
            "it was received"
        );
        drop(owner);
        let receivers = format!("PUBSUB NUMSUB laws:node:{recipient}");
        until("the recipient is unsubscribed", async || redis.command(&receivers).await.ends_with(":0\r\n")).await;
        proxy.cut();
        connected(&redis, 1).await; // the client of this test
        proxy.restore();
    };
    tokio::join!(calling, breaking);
    until("replies would arrive again", async || caller.bus.subscribe(&"again".into()).await.is_ok()).await;
    let posted = caller.call(recipient).await.unwrap();
    assert_eq!(posted, Posted { received: false, on_record: true }, "one that was sent once is reported so");
}

#[tokio::test]
async fn a_publish_whose_reply_is_lost_times_out_as_unknown_and_the_next_succeeds() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let publisher = TestNode::new(&redis.url_through(proxy.addr()), ("t", ""), 100).await;
    let mut subscriber = TestNode::new(&redis.url(), ("t", ""), 100).await;
    publisher.publish("r", "connected").await.unwrap();
    proxy.swallow(":2\r\n");
    let refused = timeout(SOON, publisher.publish("r", "unknown")).await.expect("it times out");
    assert!(matches!(refused, Err(BackendError::Unavailable(_))), "{refused:?}");
    proxy.cut();
    connected(&redis, 3).await; // two of the subscriber, and the client of this test
    proxy.restore();
    publisher.publish("r", "known").await.unwrap();
    for expected in ["connected", "unknown", "known"] {
        assert_eq!(text(&subscriber.next().await), Some(expected), "each once");
    }
}

#[tokio::test]
async fn a_room_message_without_a_reply_is_not_repeated_and_what_was_not_written_is() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let publisher = TestNode::new(&redis.url_through(proxy.addr()), ("t", ""), 100).await;
    let other = TestNode::new(&redis.url(), ("t", ""), 100).await;
    let mut early = TestNode::new(&redis.url(), ("t", ""), 100).await;
    publisher.publish("r", "first").await.unwrap();
    proxy.swallow(":3\r\n"); // the reply to the next one
    let breaking = async {
        while text(&early.next().await) != Some("unknown") {}
        let late = TestNode::new(&redis.url(), ("t", ""), 100).await;
        other.publish("r", "between").await.unwrap();
        proxy.cut();
        connected(&redis, 8).await; // those of the other three nodes, one of which has published, and of this test
        late
    };
    let (unknown, mut late) = tokio::join!(publisher.publish("r", "unknown"), breaking);
    let reason = unknown.unwrap_err().to_string();
    assert!(reason.contains("broke off"), "at once, and not after the timeout of a command: {reason}");
    let waiting = publisher.publish("r", "waits");
    let restoring = async {
        tokio::task::yield_now().await; // it is in the queue
        proxy.restore();
    };
    tokio::join!(waiting, restoring).0.unwrap();
    for (node, expected) in [(&mut early, ["between", "waits"]), (&mut late, ["between", "waits"])] {
        for message in expected {
            assert_eq!(text(&node.next().await), Some(message), "in one order, each once");
        }
    }
}

#[tokio::test]
async fn a_redis_that_refuses_ping_counts_as_up() {
    let redis = Redis::start().await;
    redis.command("ACL SETUSER phalanx -ping").await;
    let publisher = TestNode::new(&redis.url(), ("t", ""), 100).await;
    let mut subscriber = TestNode::new(&redis.url(), ("t", ""), 100).await;
    until("a PING was refused", async || !redis.command("ACL LOG").await.starts_with("*0")).await;
    publisher.publish("r", "hello").await.unwrap();
    let arrival = subscriber.next().await;
    assert_eq!(text(&arrival), Some("hello"), "without a gap before it: {arrival:?}");
}

#[tokio::test]
async fn the_guard_of_a_node_message_is_dropped_when_redis_has_the_message() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let mut node = TestNode::new(&redis.url_through(proxy.addr()), ("t", ""), 100).await;
    node.publish("r", "connected").await.unwrap();
    assert_eq!(text(&node.next().await), Some("connected"));
    proxy.pause();
    let (guard, mut dropped) = oneshot::channel::<()>();
    let message = NodeMessage { kind: NodeMessageKind::Topic, id: 0, deadline_ms: None, payload: "{}".into() };
    assert!(node.bus.try_post(Recipient::Everyone, message, Box::new(guard)).is_ok());
    let early = timeout(Duration::from_millis(200), &mut dropped).await;
    assert!(early.is_err(), "redis does not have the message yet: {early:?}");
    proxy.restore();
    assert!(timeout(SOON, dropped).await.expect("the guard is dropped").is_err());
}

#[tokio::test]
async fn a_message_that_is_too_long_is_skipped() {
    let redis = Redis::start().await;
    let publisher = TestNode::new(&redis.url(), ("t", ""), 100).await;
    let mut subscriber = TestNode::new(&redis.url(), ("t", ""), 100).await;
    for length in [MAX_ENVELOPE, MAX_ENVELOPE + 1, 9 * MAX_ENVELOPE] {
        let forged = format!("redis.call('publish', 'laws:room:r', string.rep('x', {length}))");
        assert_eq!(redis.command(&format!("EVAL \"return {forged}\" 0")).await, ":2\r\n");
        publisher.publish("r", "after it").await.unwrap();
        if length > MAX_ENVELOPE {
            let gap = subscriber.next().await;
            assert!(matches!(&gap, Incoming::Gap(Some(room), GapCause::Overflow) if &**room == "r"), "{gap:?}");
        }
        assert_eq!(text(&subscriber.next().await), Some("after it"), "after {length} bytes");
    }
}

#[tokio::test]
async fn all_nodes_receive_each_other_while_the_token_is_replaced_in_three_rolling_restarts() {
    let redis = Redis::start().await;
    let restarts = [("old", ""), ("old", "new"), ("new", "old"), ("new", "")];
    for step in restarts.windows(2) {
        let mut before = TestNode::new(&redis.url(), step[0], 100).await;
        let mut after = TestNode::new(&redis.url(), step[1], 100).await;
        before.publish("r", "from before").await.unwrap();
        after.publish("r", "from after").await.unwrap();
        for node in [&mut before, &mut after] {
            assert_eq!(text(&node.next().await), Some("from before"), "{step:?}");
            assert_eq!(text(&node.next().await), Some("from after"), "{step:?}");
        }
    }
}

#[tokio::test]
async fn a_queue_that_remains_full_makes_one_gap() {
    const QUEUE: usize = 8;
    let redis = Redis::start().await;
    let publisher = TestNode::new(&redis.url(), ("t", ""), 100).await;
    let mut slow = TestNode::new(&redis.url(), ("t", ""), QUEUE).await;
    for _ in 0..2 * QUEUE {
        publisher.publish("r", "too much").await.unwrap();
    }
    until("the queue is full", async || slow.arrivals.len() == QUEUE).await;
    let mut gaps = 0;
    for number in 0..2 * QUEUE {
        gaps += usize::from(matches!(slow.next().await, Incoming::Gap(Some(_), GapCause::Overflow)));
        publisher.publish("r", &number.to_string()).await.unwrap();
    }
    while text(&slow.next().await) != Some("15") {}
    assert_eq!(gaps, 1);
}
