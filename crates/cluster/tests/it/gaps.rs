//! Messages that are missed, and the gaps in their place.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use phalanx_core::backend::{GapCause, Incoming};
use phalanx_testkit::{Proxy, Redis, print};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, interval, timeout};

use super::bus::{SOON, TestNode, publish, text, until};

const TOKENS: (&str, &str) = ("t", "");

/// The arrivals of a node so far.
#[derive(Default)]
struct Arrivals {
    messages: Vec<String>,
    gaps: usize,
}

impl Arrivals {
    fn take(&mut self, arrivals: &mut Receiver<Incoming>) {
        while let Ok(arrival) = arrivals.try_recv() {
            self.gaps += usize::from(matches!(arrival, Incoming::Gap(Some(_), _)));
            self.messages.extend(text(&arrival).map(str::to_owned));
        }
    }
}

/// Publishes 250 messages a second through two losses of the subscription, which the caller causes, until all is well
/// again; returns how many were confirmed, and how many of these were missed.
async fn publish_through_losses(node: TestNode) -> (usize, usize) {
    let TestNode { bus, arrivals: mut receiver, subscriptions: _subscriptions, .. } = node;
    let (mut arrivals, mut confirmed) = (Arrivals::default(), Vec::new());
    let (mut publishing, mut ticks) = (FuturesUnordered::new(), interval(Duration::from_millis(4)));
    let (mut number, started) = (0, Instant::now());
    let is_over = |arrivals: &Arrivals| arrivals.gaps >= 2 && started.elapsed() > Duration::from_millis(1500);
    loop {
        tokio::select! {
            _ = ticks.tick(), if !is_over(&arrivals) => {
                let (text, bus) = (number.to_string(), &bus);
                number += 1;
                publishing.push(async move { publish(bus, "r", &text).await.is_ok().then_some(text) });
            }
            published = publishing.next(), if !publishing.is_empty() => {
                arrivals.take(&mut receiver);
                confirmed.extend(published.flatten().map(|text| (text, arrivals.gaps)));
            }
            else => break,
        }
        assert!(started.elapsed() < SOON, "{} gaps", arrivals.gaps);
    }
    arrivals.take(&mut receiver);
    let missed = confirmed.iter().filter(|(text, _)| !arrivals.messages.contains(text));
    for (text, gaps) in missed.clone() {
        assert!(arrivals.gaps > *gaps, "{text} was confirmed and missed, and no gap came after it");
    }
    (confirmed.len(), missed.count())
}

/// The replies to a node's publishes take 250 ms, so its subscription is back before they arrive.
#[tokio::test]
async fn a_confirmed_message_is_received_by_its_sender_or_followed_by_a_gap() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    proxy.delay_replies_to("PUBLISH", Duration::from_millis(250));
    for _ in 0..5 {
        let nodes = join_all((0..5).map(async |_| {
            let node = TestNode::new(&redis.url_through(proxy.addr()), TOKENS, 10_000).await;
            node.publish("r", "connected").await.unwrap();
            node
        }));
        let publishing = join_all(nodes.await.into_iter().map(publish_through_losses));
        let losing = async {
            for delay_ms in [300, 700] {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await; // the time of the loss is the fault
                redis.command("CLIENT KILL TYPE pubsub").await;
            }
        };
        let (runs, ()) = tokio::join!(publishing, losing);
        let (confirmed, missed) = runs.iter().fold((0, 0), |sum, run| (sum.0 + run.0, sum.1 + run.1));
        print(format_args!("10 losses: {confirmed} messages were confirmed, {missed} of them missed"));
    }
}

#[tokio::test]
async fn each_room_has_one_gap_before_its_first_message_after_a_loss_of_the_subscription() {
    const ROOMS: usize = 1200; // more than one SUBSCRIBE takes
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let mut subscriber = TestNode::new(&redis.url_through(proxy.addr()), TOKENS, 100_000).await;
    for room in 0..ROOMS {
        subscriber.subscribe(&room.to_string()).await;
    }
    let publisher = TestNode::new(&redis.url(), TOKENS, 100_000).await;
    proxy.delay(Duration::from_millis(30)); // between the first SUBSCRIBE and the last
    proxy.cut();
    assert!(matches!(subscriber.next().await, Incoming::Away));
    proxy.restore();
    let publishing = async {
        for room in (0..ROOMS).cycle() {
            publisher.publish(&room.to_string(), "hello").await.unwrap();
        }
    };
    let mut gaps = HashMap::<Option<String>, usize>::new();
    let mut rooms = HashSet::new();
    let receiving = async {
        let first = subscriber.next().await;
        assert!(matches!(first, Incoming::Gap(None, GapCause::Away)), "that of topics: {first:?}");
        while rooms.len() < ROOMS {
            match subscriber.next().await {
                Incoming::Gap(room, GapCause::Away) => {
                    *gaps.entry(room.map(|room| room.to_string())).or_default() += 1;
                }
                Incoming::Publication(message) => {
                    let room = message.room.to_string();
                    assert_eq!(gaps.get(&Some(room.clone())), Some(&1), "before the first message of {room}");
                    rooms.insert(room);
                }
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::select! {
        () = publishing => {}
        () = receiving => {}
    }
    assert_eq!(gaps.len(), ROOMS + 1, "each room, and the one that every node of these tests is in");
    assert!(gaps.values().all(|count| *count == 1));
}

#[tokio::test]
async fn more_gaps_than_the_queue_holds_are_all_reported_once() {
    const ROOMS: usize = 50;
    let redis = Redis::start().await;
    let mut subscriber = TestNode::new(&redis.url(), TOKENS, 8).await;
    for room in 1..ROOMS {
        subscriber.subscribe(&room.to_string()).await;
    }
    redis.command("CLIENT KILL TYPE pubsub").await;
    let mut gaps = HashMap::<String, usize>::new();
    while gaps.len() < ROOMS {
        if let Incoming::Gap(Some(room), GapCause::Away) = subscriber.next().await {
            *gaps.entry(room.to_string()).or_default() += 1;
        }
    }
    subscriber.publish("1", "after all").await.unwrap();
    assert_eq!(text(&subscriber.next().await), Some("after all"));
    assert!(gaps.values().all(|count| *count == 1), "{gaps:?}");
}

#[tokio::test]
async fn a_subscription_that_comes_and_goes_makes_few_gaps() {
    let redis = Redis::start().await;
    let mut node = TestNode::new(&redis.url(), TOKENS, 100).await;
    let mut gaps = Vec::new();
    while gaps.len() < 4 {
        redis.command("CLIENT KILL TYPE pubsub").await;
        while !matches!(node.next().await, Incoming::Gap(Some(_), GapCause::Away)) {}
        gaps.push(Instant::now());
    }
    for pair in gaps[1..].windows(2) {
        let apart = pair[1] - pair[0];
        assert!(apart > Duration::from_millis(4900), "{apart:?}");
    }
    until("the node is subscribed", async || node.publish("r", "back").await.is_ok()).await;
}

#[tokio::test]
async fn a_message_that_arrives_too_late_for_the_queue_makes_a_gap_in_its_room_only() {
    let redis = Redis::start().await;
    let publisher = TestNode::new(&redis.url(), TOKENS, 100).await;
    let mut slow = TestNode::new(&redis.url(), TOKENS, 4).await;
    slow.subscribe("quiet").await;
    publisher.publish("quiet", "one").await.unwrap();
    for _ in 0..8 {
        publisher.publish("r", "too much").await.unwrap();
    }
    // Redis confirms it behind those messages, so by then the last of them has found the queue full.
    slow.subscribe("last").await;
    assert_eq!(slow.arrivals.len(), 4, "the queue is full");
    let (mut received, mut rooms) = (Vec::new(), Vec::new());
    while rooms.is_empty() {
        match timeout(SOON, slow.arrivals.recv()).await.unwrap().unwrap() {
            Incoming::Gap(room, GapCause::Overflow) => rooms.push(room.unwrap().to_string()),
            arrival => received.extend(text(&arrival).map(str::to_owned)),
        }
    }
    assert_eq!((&*rooms, received.len()), (&["r".to_owned()][..], 4));
    publisher.publish("quiet", "two").await.unwrap();
    assert_eq!(text(&slow.next().await), Some("two"));
}
