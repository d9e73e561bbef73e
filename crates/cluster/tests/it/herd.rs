//! A gap in the rooms of many sockets at once, and a message in one of them meanwhile. In one process, without the sockets:
//! each connection has a task that takes its frames at once, as the task of a socket does. `SOCKETS` is their number; `just chaos` sets 50,000.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use phalanx_core::Connection;
use phalanx_core::connection::{Frame, OutboxItem};
use phalanx_testkit::{Flow, Proxy, Redis, at_most, check_time, print};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::promises::processor_time;
use crate::recovery::{BACK, LargeNode};

/// The documented time within which all are told.
const TOLD: Duration = Duration::from_secs(2);

/// Rooms of each socket.
const ROOMS: usize = 10;

/// The room in which a message is published meanwhile.
const SPOKEN: &str = "room9";

/// How long the delivery in another room is measured.
const MEASURED: Duration = Duration::from_secs(4);

/// The pause between two messages there.
const PAUSE: Duration = Duration::from_millis(2);

/// Takes frames as they come, as the task of a socket does.
pub(crate) fn read_frames(connection: Connection, on_frame: impl Fn(&str) + Send + Sync + 'static) -> JoinHandle<()> {
    tokio::spawn(poll_fn(move |task| {
        connection.register(task.waker());
        loop {
            match connection.next() {
                OutboxItem::Frame(Frame::Text(text)) => on_frame(std::str::from_utf8(&text).unwrap()),
                OutboxItem::Frame(_) => {}
                OutboxItem::Ping => connection.mark_alive(),
                OutboxItem::Nothing => return Poll::Pending,
                OutboxItem::Close(_) => return Poll::Ready(()),
            }
        }
    }))
}

/// The resident memory of this process, in MiB.
pub(crate) fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

/// The seconds of processor time of this process.
fn own_processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let mut fields = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().skip(11);
    let mut next = || fields.next().unwrap().parse::<f64>().unwrap();
    (next() + next()) / 100.0 // ticks of a hundredth on every Linux
}

/// Another node, on a thread and a runtime of its own, as it would have a process of its own.
struct OtherNode {
    asks: mpsc::Sender<()>,
    answers: mpsc::Receiver<Vec<Duration>>,
    thread: std::thread::JoinHandle<()>,
}

impl OtherNode {
    /// Starts it with one connection, in a room whose subscription stands.
    fn start(url: String) -> Self {
        let (asks, mut asked) = mpsc::channel(1);
        let (answer, answers) = mpsc::channel(1);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let mut node = LargeNode::start_with(&url, "two", &["other".to_owned()]).await;
                node.connect(1);
                node.join_all("other").await;
                let (received, mut delivered) = mpsc::channel(64);
                read_frames(node.connections[0].clone(), move |_| _ = received.try_send(()));
                while asked.recv().await.is_some() {
                    answer.send(deliveries(&node, &mut delivered).await).await.unwrap();
                }
                node.engine.stop().await;
            });
        });
        Self { asks, answers, thread }
    }

    /// The times from the `say` of a message to its delivery in its room, the shortest first.
    async fn deliveries(&mut self) -> Vec<Duration> {
        self.asks.send(()).await.unwrap();
        self.answers.recv().await.unwrap()
    }

    fn stop(self) {
        drop(self.asks);
        self.thread.join().unwrap();
    }
}

async fn deliveries(node: &LargeNode, delivered: &mut mpsc::Receiver<()>) -> Vec<Duration> {
    let (mut took, end) = (Vec::new(), Instant::now() + MEASURED);
    while Instant::now() < end {
        let said = Instant::now();
        node.engine.node().rooms().say("other", &"x").await.unwrap();
        timeout(at_most(BACK), delivered.recv()).await.expect("it is delivered").unwrap();
        took.push(said.elapsed());
        sleep(PAUSE).await; // the rate of the messages
    }
    took.sort_unstable();
    took
}

fn percentile_99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sockets_are_told_of_a_gap_and_other_rooms_go_on() {
    let count = std::env::var("SOCKETS").ok().and_then(|count| count.parse().ok()).unwrap_or(1000);
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let rooms: Vec<String> = (0..ROOMS).map(|number| format!("room{number}")).collect();
    let mut node = LargeNode::start_with(&redis.url_through(proxy.addr()), "one", &rooms).await;
    let mut other = OtherNode::start(redis.url());
    node.connect(count);
    for room in &rooms {
        node.join_all(room).await;
    }
    let mut readers = Vec::new();
    let (gaps, early) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let messages = Arc::new(AtomicUsize::new(0));
    for connection in &node.connections {
        let (gaps, messages, early) = (gaps.clone(), messages.clone(), early.clone());
        let has_gap = AtomicBool::new(false);
        readers.push(read_frames(connection.clone(), move |text: &str| {
            if text.contains(r#""event":"gap""#) {
                gaps.fetch_add(1, Relaxed);
                has_gap.fetch_or(text.contains(SPOKEN), Relaxed);
            } else {
                messages.fetch_add(1, Relaxed);
                early.fetch_add(usize::from(!has_gap.load(Relaxed)), Relaxed);
            }
        }));
    }
    // Each comparison of a member looks for its room.
    let used = async || (redis.ran("sismember").await, processor_time(&redis).await, own_processor_time());
    let start = used().await;
    let alone = other.deliveries().await;
    let (before, middle) = (resident(), used().await);
    let (cut, all) = (Instant::now(), count * ROOMS);
    proxy.close_flow(Flow::Subscribing);
    let told = {
        let (gaps, rooms) = (gaps.clone(), node.engine.node().rooms().clone());
        tokio::spawn(async move {
            let (mut first, mut most) = (None, 0.0_f64);
            while gaps.load(Relaxed) < all {
                if first.is_none() && gaps.load(Relaxed) > 0 {
                    first = Some(cut.elapsed());
                    // The node is subscribed again, and most members wait for their gap.
                    rooms.say(SPOKEN, &"m").await.unwrap();
                }
                most = most.max(resident());
                sleep(Duration::from_millis(5)).await;
            }
            (first.unwrap_or_else(|| cut.elapsed()), cut.elapsed(), most.max(resident()))
        })
    };
    let beside = other.deliveries().await;
    let end = used().await;
    let Ok(told) = timeout(at_most(TOLD), told).await else { panic!("{} of {all} are told", gaps.load(Relaxed)) };
    let (first, last, most) = told.unwrap();
    check_time("the last is told", last, TOLD);
    let [alone, beside] = [alone, beside].map(|took| percentile_99(&took));
    print(format_args!(
        "{count} sockets in {ROOMS} rooms: the first is told after {first:.1?}; memory {before:.0} MiB \
         and {:.1} more; another node's room: p99 {beside:?}, alone {alone:?}",
        most - before,
    ));
    let [compared, idly] = [end.0 - middle.0, middle.0 - start.0];
    let more = |beside: f64, alone: f64| 1e3 * (beside - alone);
    print(format_args!(
        "{compared} memberships are compared, {idly} without a gap; processor time: {:.0} ms more of redis, {:.0} of nodes",
        more(end.1 - middle.1, middle.1 - start.1),
        more(end.2 - middle.2, middle.2 - start.2),
    ));
    assert!(compared < idly + all as u64 / 2, "a gap has no lists compared");
    sleep(Duration::from_millis(500)).await; // more would be too many
    assert_eq!(gaps.load(Relaxed), all, "one gap for each socket and room");
    assert_eq!(messages.load(Relaxed), count, "a message that was accepted meanwhile is received");
    assert_eq!(early.load(Relaxed), 0, "none is received before the gap of its room");
    node.engine.stop().await;
    other.stop();
}
