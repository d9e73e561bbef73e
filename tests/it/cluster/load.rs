//! Load during a fault: clients chat, call connections of the other node and use the cache.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use phalanx_testkit::{at_most, check_time, print};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{apply, until};
use crate::client::{Socket, post_json};

/// The interval between the operations of one client while a fault begins and ends.
const PACE: Duration = Duration::from_millis(20);

/// The same while nothing changes: in the middle of a fault, and after the recovery.
const QUIET_PACE: Duration = Duration::from_millis(200);

/// How long most faults are said to begin.
pub(super) const BEGIN: Duration = Duration::from_secs(1);

/// The room in which the clients of a load chat.
pub(super) const ROOM: &str = "otherRoom";

/// The kinds of operations, and the documented longest time of each while Redis does not answer: `general.rpc_timeout`,
/// `redis.command_timeout`, and this twice, for the subscription and for the message.
const KINDS: [(&str, Duration); 3] =
    [("apply", Duration::from_secs(5)), ("cache", Duration::from_secs(2)), ("chat", Duration::from_secs(4))];

/// Clients of two nodes: on each, one that calls, one that uses the cache, one that publishes and one that only
/// receives.
pub(super) struct Load {
    shared: Arc<Shared>,
    operating: JoinSet<()>,
    receiving: JoinSet<(usize, Vec<Received>)>,
    over: watch::Sender<bool>,
}

struct Shared {
    stop: AtomicBool,
    pace: watch::Sender<Duration>,
    done: Mutex<Vec<Done>>,
    /// The last message that each receiver got from each publisher.
    last: Mutex<[[Option<u64>; 2]; 2]>,
}

/// One operation and its outcome.
struct Done {
    kind: &'static str,
    node: usize,
    number: u64,
    started: Instant,
    ended: Instant,
    /// The code of its error; empty if it succeeded.
    code: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Received {
    Message { publisher: usize, number: u64 },
    Gap,
}

impl Load {
    pub(super) async fn start(addrs: [SocketAddr; 2]) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            pace: watch::Sender::new(PACE),
            done: Mutex::default(),
            last: Mutex::default(),
        });
        let (mut operating, mut receiving, over) = (JoinSet::new(), JoinSet::new(), watch::Sender::new(false));
        for (node, addr) in addrs.into_iter().enumerate() {
            let far = Socket::connect(addrs[1 - node]).await;
            let id = far.id();
            operating.spawn(shared.clone().operate("apply", node, async move |_| {
                let _ = &far; // keeps it connected
                apply(addr, &id, "set", json!(["k", 1])).await.error_code()
            }));
            operating.spawn(shared.clone().operate("cache", node, async move |_| {
                let body = json!({ "key": format!("load{node}"), "value": "thing" }).to_string();
                post_json(addr, "/api/cacheTest", &body).await.error_code()
            }));
            let receiver = Socket::join(addr, ROOM).await;
            receiving.spawn(shared.clone().receive(node, receiver, over.subscribe()));
        }
        for (node, addr) in addrs.into_iter().enumerate() {
            let publisher = Arc::new(tokio::sync::Mutex::new(Socket::join(addr, ROOM).await));
            operating.spawn(shared.clone().operate("chat", node, async move |number| {
                let message = json!({ "event": "say", "room": ROOM, "message": { "publisher": node, "number": number },
                    "messageId": number });
                let answer = publisher.lock().await.request_by_id(&message).await;
                answer["error"]["code"].as_str().unwrap_or_default().to_owned()
            }));
        }
        Self { shared, operating, receiving, over }
    }

    /// Waits until a fault that has just begun is to end; nothing changes any more after `begin`.
    pub(super) async fn until(&self, begin: Duration, end: Instant) {
        sleep(begin).await;
        self.shared.pace.send_replace(QUIET_PACE);
        sleep_until(end).await;
        self.shared.pace.send_replace(PACE);
    }

    /// Waits until all operations succeed again on both nodes, which is documented to take that long since the end of
    /// the fault.
    pub(super) async fn recovered(&self, fault: &str, since: Instant, figure: Duration) {
        let back = at_most(figure);
        for (kind, _) in KINDS {
            for node in 0..2 {
                let first = || {
                    let done = self.shared.done();
                    let mut later = done.iter().filter(|it| it.kind == kind && it.node == node && it.started >= since);
                    later.find(|it| it.code.is_empty()).map(|it| (it.number, it.ended))
                };
                until(&format!("{kind} works again on node {node}"), back, async || first().is_some()).await;
                let Some((number, ended)) = first() else { unreachable!("it was found above") };
                print(format_args!("{fault}: {kind} of node {node} works again after {:?}", ended - since));
                if kind == "chat" {
                    let received = || self.shared.last().iter().all(|last| last[node].is_some_and(|it| it >= number));
                    until("messages reach both nodes", back, async || received()).await;
                }
            }
        }
        check_time(&format!("{fault}: everything works again"), since.elapsed(), figure);
        self.shared.pace.send_replace(QUIET_PACE);
    }

    /// Stops all clients once they have their answers, and checks the run: each operation ended in time, with success
    /// or with one of `errors`; each message answered with `OK` was delivered, in one order, or a gap was announced
    /// instead.
    pub(super) async fn finish(mut self, fault: &str, errors: &[&str]) {
        self.shared.stop.store(true, Relaxed);
        while let Some(ended) = self.operating.join_next().await {
            ended.unwrap();
        }
        self.over.send_replace(true);
        let mut received = self.receiving.join_all().await;
        received.sort();
        let done = std::mem::take(&mut *self.shared.done());
        for (kind, longest) in KINDS {
            let all: Vec<&Done> = done.iter().filter(|it| it.kind == kind).collect();
            let mut codes = BTreeMap::<&str, usize>::new();
            for it in &all {
                *codes.entry(&it.code).or_default() += 1;
                assert!(it.code.is_empty() || errors.contains(&&*it.code), "{fault}: {kind} got {}", it.code);
            }
            let slowest = all.iter().map(|it| it.ended - it.started).max().unwrap();
            print(format_args!("{fault}: {} times {kind}, by error {codes:?}", all.len()));
            check_time(&format!("{fault}: the slowest {kind}"), slowest, longest);
        }
        for (receiver, received) in &received {
            for publisher in 0..2 {
                let accepted = done.iter().filter(|it| it.kind == "chat" && it.node == publisher && it.code.is_empty());
                let accepted: Vec<u64> = accepted.map(|it| it.number).collect();
                check(received, publisher, &accepted).unwrap_or_else(|error| {
                    panic!("{fault}: receiver {receiver}, publisher {publisher}: {error}");
                });
            }
        }
        let both = |at: usize, other: usize| -> Vec<Received> {
            let other: std::collections::BTreeSet<_> = received[other].1.iter().collect();
            received[at].1.iter().filter(|it| **it != Received::Gap && other.contains(it)).copied().collect()
        };
        assert!(both(0, 1) == both(1, 0), "{fault}: both nodes receive one order");
    }
}

/// Checks that all accepted messages were received in order, once; missing ones must lie where a gap was announced.
fn check(received: &[Received], publisher: usize, accepted: &[u64]) -> Result<(), String> {
    let mut accepted = accepted.iter().copied().peekable();
    let (mut gap, mut last) = (false, None);
    for it in received {
        match *it {
            Received::Gap => gap = true,
            Received::Message { publisher: by, number } if by == publisher => {
                if last.replace(number).is_some_and(|before| before >= number) {
                    return Err(format!("{number} was received after {last:?}"));
                }
                while let Some(missing) = accepted.next_if(|it| *it < number) {
                    if !gap {
                        return Err(format!("{missing} was not received before {number}, and no gap was announced"));
                    }
                }
                accepted.next_if_eq(&number);
                gap = false;
            }
            Received::Message { .. } => {}
        }
    }
    match accepted.next() {
        Some(missing) => Err(format!("{missing} was never received")),
        None => Ok(()),
    }
}

impl Shared {
    /// Repeats an operation until it is stopped, which waits for the one in flight.
    async fn operate(self: Arc<Self>, kind: &'static str, node: usize, mut operation: impl AsyncFnMut(u64) -> String) {
        let (mut pace, mut started) = (self.pace.subscribe(), None);
        for number in 0.. {
            while let Some(next) = started.map(|started| started + *pace.borrow_and_update())
                && Instant::now() < next
            {
                let _ = timeout_at(next, pace.changed()).await;
            }
            if self.stop.load(Relaxed) {
                return;
            }
            let started = *started.insert(Instant::now());
            let code = operation(number).await;
            self.done().push(Done { kind, node, number, started, ended: Instant::now(), code });
        }
    }

    /// Receives until all publishers have stopped and the last accepted message of each has arrived.
    async fn receive(
        self: Arc<Self>,
        node: usize,
        mut socket: Socket,
        mut over: watch::Receiver<bool>,
    ) -> (usize, Vec<Received>) {
        let mut received = Vec::new();
        while !*over.borrow() || !self.all_received(node) {
            let frame = tokio::select! {
                frame = socket.read() => frame,
                _ = over.changed() => continue,
            };
            match frame["context"].as_str() {
                Some("user") => {
                    let of = |name: &str| frame["message"][name].as_u64().unwrap();
                    let (publisher, number) = (of("publisher") as usize, of("number"));
                    received.push(Received::Message { publisher, number });
                    self.last()[node][publisher] = Some(number);
                }
                Some("api") => received.push(Received::Gap),
                _ => {}
            }
        }
        (node, received)
    }

    /// Whether the last message answered with `OK` has arrived from each publisher.
    fn all_received(&self, node: usize) -> bool {
        let done = self.done();
        let accepted =
            |publisher| done.iter().rev().find(|it| it.kind == "chat" && it.node == publisher && it.code.is_empty());
        (0..2).all(|publisher| accepted(publisher).is_none_or(|it| self.last()[node][publisher] >= Some(it.number)))
    }

    fn done(&self) -> std::sync::MutexGuard<'_, Vec<Done>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> std::sync::MutexGuard<'_, [[Option<u64>; 2]; 2]> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[test]
fn a_missing_message_without_a_gap_is_detected() {
    let message = |number| Received::Message { publisher: 0, number };
    for (received, expected) in [
        (vec![message(1), message(2), message(3)], true),
        (vec![message(1), message(3)], false),
        (vec![message(1), Received::Gap, message(3)], true),
        (vec![message(1), message(3), Received::Gap], false),
        (vec![message(1), message(2), message(2), message(3)], false),
        (vec![message(2), message(1), message(3)], false),
        (vec![message(1), message(2)], false),
        (vec![message(0), message(1), message(2), message(3)], true), // number 0 was not answered with OK
    ] {
        let count = received.len();
        assert_eq!(check(&received, 0, &[1, 2, 3]).is_ok(), expected, "{count} received");
    }
}
