//! Messages that are missed, and the gaps in their place.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use phalanx_core::backend::Incoming;
use phalanx_testkit::{Proxy, Redis, print};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, interval};

use super::bus::{SOON, TestNode, publish, text};

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
            self.gaps += usize::from(matches!(arrival, Incoming::Gap(..)));
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
