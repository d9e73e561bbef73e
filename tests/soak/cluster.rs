//! Three real nodes, each behind a proxy of its own, before two real servers; and the faults that hit them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use phalanx_testkit::{Direction, Flow, Process, Proxy, Redis, Signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::NODES;
use crate::client::get;
use crate::history::{Event, Recorder};
use crate::schedule::{Fault, LinkFault, RETURN, Step};

/// A limit for waits that no promise bounds.
const SOON: Duration = Duration::from_secs(30);

/// A node gives up a command that is not answered within this time.
const GIVEN_UP: Duration = Duration::from_secs(2);

/// Long enough for some messages.
const ABSENCE: Duration = Duration::from_millis(150);

/// No other request than a join has a member and the time of its join in one piece.
const JOIN: &str = "\",\"joinedAt\":1";

pub(crate) struct Cluster {
    redis: [Redis; 2],
    /// The server to which new connections lead.
    active: usize,
    nodes: Vec<Node>,
    /// Where logs of nodes are kept.
    folder: PathBuf,
    settings: Settings,
}

/// How nodes are started.
struct Settings {
    /// An example, or the path of a program.
    program: String,
    /// The same in the last release.
    old_program: String,
    rooms: String,
    presence: String,
}

struct Node {
    title: String,
    proxy: Proxy,
    process: Process,
    addr: watch::Sender<SocketAddr>,
    is_running: bool,
    /// Whether it runs the new release.
    is_new: bool,
}

impl Cluster {
    /// Starts nodes of a program; of the old one, if there is one.
    pub(crate) async fn start(
        program: &str,
        old_program: Option<&str>,
        rooms: &[&str],
        presence: &[&str],
        folder: &Path,
    ) -> Self {
        let redis = [Redis::start().await, Redis::start().await];
        let settings = Settings {
            program: program.to_owned(),
            old_program: old_program.unwrap_or(program).to_owned(),
            rooms: rooms.join(","),
            presence: presence.join(","),
        };
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let proxy = Proxy::before(redis[0].addr()).await;
            let title = format!("n{number}");
            let is_new = old_program.is_none();
            let process = start_node(&redis[0].url_through(proxy.addr()), &title, is_new, &settings).await;
            let addr = watch::Sender::new(process.addr);
            nodes.push(Node { title, proxy, process, addr, is_running: true, is_new });
        }
        Self { redis, active: 0, nodes, folder: folder.to_owned(), settings }
    }

    /// The address of a node, which changes when it is started again.
    pub(crate) fn addr(&self, node: usize) -> watch::Receiver<SocketAddr> {
        self.nodes[node].addr.subscribe()
    }

    /// Runs the faults of a step at its time, from begin to end.
    pub(crate) async fn run(&mut self, step: &Step, recorder: &Recorder) {
        sleep_until(recorder.started() + step.at).await;
        let faults = [Some(step.fault), step.beside];
        for fault in faults.into_iter().flatten() {
            let (kind, detail) = (fault.kind().to_owned(), format!("{fault:?}"));
            recorder.record(Event::Fault { kind, detail, node: fault.node() });
        }
        if let Some(fault) = step.beside {
            self.begin(fault, step.lasts).await;
        }
        self.begin(step.fault, step.lasts).await;
        // The length of the fault: some take time to begin.
        sleep_until(recorder.started() + step.at + step.lasts).await;
        for fault in faults.into_iter().flatten() {
            self.end(fault).await;
            recorder.record(Event::FaultEnded { kind: fault.kind().to_owned(), node: fault.node() });
        }
    }

    async fn begin(&mut self, fault: Fault, lasts: Duration) {
        match fault {
            Fault::Link(node, link) => {
                let proxy = &self.nodes[node].proxy;
                match link {
                    LinkFault::Delay(delay) => proxy.delay(delay),
                    LinkFault::Cut => proxy.cut(),
                    LinkFault::Silence => proxy.silence(),
                    LinkFault::Pause => proxy.pause(),
                    LinkFault::Hold(flow, direction) => proxy.hold_flow(flow, direction),
                }
            }
            Fault::Answers { publisher, subscriber, times } => {
                self.nodes[publisher].proxy.hold_flow(Flow::Publishing, Direction::ToClient);
                for _ in 0..times {
                    sleep((lasts - RETURN) / (times + 1)).await;
                    self.nodes[subscriber].proxy.close_flow(Flow::Subscribing);
                }
                sleep((lasts - RETURN) / (times + 1)).await;
                self.repeat_says(publisher, subscriber).await;
            }
            Fault::LateSays { publisher, subscriber } => self.delay_says(publisher, subscriber).await,
            Fault::LateJoins(node) => {
                // Not an instant before it: a join is sent once Redis has answered that the room exists.
                self.nodes[node].proxy.hold_flow_from(Flow::Commands, JOIN);
            }
            Fault::SwitchOver => self.switch_over().await,
            Fault::Older { age, breaks } => {
                // A child process that saves for a replica is in the way.
                let saved = async || self.active().command("SAVE").await.starts_with("+OK");
                until("the data are saved", saved).await;
                sleep(age).await;
                let reloaded = self.active().command("DEBUG RELOAD NOSAVE").await;
                assert!(reloaded.starts_with("+OK"), "{reloaded}");
                // A restart must not bring the newer data back.
                self.active().command("BGREWRITEAOF").await;
                if breaks {
                    for kind in ["normal", "pubsub"] {
                        self.active().command(&format!("CLIENT KILL TYPE {kind}")).await;
                    }
                }
            }
            Fault::Flush => drop(self.active().command("FLUSHALL").await),
            Fault::Full => drop(self.active().command("CONFIG SET maxmemory 1").await),
            Fault::ClientPause { all } => {
                let mode = if all { "ALL" } else { "WRITE" };
                self.active().command(&format!("CLIENT PAUSE {} {mode}", lasts.as_millis())).await;
            }
            Fault::RedisKill { .. } => self.redis[self.active].kill().await,
            Fault::RedisFreeze => self.active().freeze(),
            Fault::NodeKill(node) => self.stop(node, Signal::KILL).await,
            Fault::Roll { node, is_new } => {
                self.stop(node, Signal::TERM).await;
                self.nodes[node].is_new = is_new;
            }
            Fault::NodeFreeze(node) => self.nodes[node].process.freeze(),
        }
    }

    async fn end(&mut self, fault: Fault) {
        match fault {
            Fault::Link(node, link) => {
                let proxy = &self.nodes[node].proxy;
                match link {
                    LinkFault::Delay(_) => proxy.delay(Duration::ZERO),
                    LinkFault::Cut | LinkFault::Silence | LinkFault::Pause => proxy.restore(),
                    LinkFault::Hold(..) => proxy.release(),
                }
            }
            Fault::Answers { publisher, .. } | Fault::LateSays { publisher, .. } => {
                self.nodes[publisher].proxy.release();
            }
            Fault::LateJoins(node) => self.nodes[node].proxy.release(),
            // The old server stays open as it is, until another switch-over needs it.
            Fault::SwitchOver | Fault::Older { .. } | Fault::Flush | Fault::ClientPause { .. } => {}
            Fault::Full => drop(self.active().command("CONFIG SET maxmemory 0").await),
            Fault::RedisKill { empty: true } => self.redis[self.active].start_empty().await,
            Fault::RedisKill { empty: false } => self.redis[self.active].start_again().await,
            Fault::RedisFreeze => self.active().thaw(),
            Fault::NodeKill(node) | Fault::Roll { node, .. } => self.start_again(node).await,
            Fault::NodeFreeze(node) => self.nodes[node].process.thaw(),
        }
    }

    fn active(&self) -> &Redis {
        &self.redis[self.active]
    }

    /// Promotes the other server, as a failover does that moves an address and closes no connection.
    async fn switch_over(&mut self) {
        let (old, new) = (self.active, 1 - self.active);
        self.redis[new].kill().await;
        self.redis[new].start_empty().await;
        self.redis[old].command("CONFIG SET repl-diskless-sync-delay 0").await;
        self.redis[new].command(&replica_of(&self.redis[old])).await;
        let is_up = async || self.redis[new].command("INFO replication").await.contains("master_link_status:up");
        until("the replica has the data", is_up).await;
        self.redis[new].command("REPLICAOF NO ONE").await;
        for node in &self.nodes {
            node.proxy.switch_to(self.redis[new].addr());
        }
        self.redis[old].command(&replica_of(&self.redis[new])).await;
        self.active = new;
    }

    /// Closes the connection over which a node publishes, while messages are in Redis whose answers it lacks. Another node
    /// has missed them and subscribed again, and has received others since: it must not receive them now.
    async fn repeat_says(&self, publisher: usize, subscriber: usize) {
        // Also on the next connection, if the node has given up the first by now.
        self.nodes[publisher].proxy.hold_flow(Flow::Publishing, Direction::ToClient);
        self.nodes[subscriber].proxy.cut();
        sleep(ABSENCE).await;
        self.subscribe_beside_frozen(publisher, subscriber).await;
        sleep(ABSENCE).await;
        self.nodes[publisher].proxy.close_flow(Flow::Publishing);
        self.nodes[publisher].process.thaw();
    }

    /// Holds what a node publishes until it has given it up and published newer messages over its next connection, which
    /// another node misses; then stops the node, so that the old ones arrive before any newer one.
    async fn delay_says(&self, publisher: usize, subscriber: usize) {
        self.nodes[publisher].proxy.hold_flow(Flow::Publishing, Direction::ToServer);
        sleep(GIVEN_UP - ABSENCE).await;
        self.nodes[subscriber].proxy.cut();
        sleep(Duration::from_secs(1)).await;
        self.subscribe_beside_frozen(publisher, subscriber).await;
        self.nodes[publisher].proxy.release();
        // Until they have arrived.
        sleep(ABSENCE).await;
        self.nodes[publisher].process.thaw();
    }

    /// Stops one node, and lets another subscribe again that was cut off: it receives nothing of the first.
    async fn subscribe_beside_frozen(&self, frozen: usize, subscriber: usize) {
        // One that is stopped before its own subscription is back does not take it up again.
        until("the node to be stopped subscribes", async || self.is_subscribed(frozen)).await;
        until("the node that is cut off knows it", async || !self.is_subscribed(subscriber)).await;
        self.nodes[frozen].process.freeze();
        self.nodes[subscriber].proxy.restore();
        until("the node that was cut off subscribes", async || self.is_subscribed(subscriber)).await;
    }

    /// Whether a node has its subscription by its own word: the server also counts those of connections that were dropped
    /// silently.
    fn is_subscribed(&self, number: usize) -> bool {
        let log = self.nodes[number].process.stderr();
        let last = |line: &str| log.rfind(line);
        last("the subscription to redis is back") >= last("the subscription to redis broke off")
    }

    async fn stop(&mut self, number: usize, signal: Signal) {
        let node = &mut self.nodes[number];
        node.process.signal(signal);
        node.process.ended().await;
        self.keep_log(number);
        self.nodes[number].is_running = false;
    }

    async fn start_again(&mut self, number: usize) {
        let node = &self.nodes[number];
        let url = self.active().url_through(node.proxy.addr());
        let process = start_node(&url, &node.title, node.is_new, &self.settings).await;
        let node = &mut self.nodes[number];
        node.addr.send_replace(process.addr);
        node.process = process;
        node.is_running = true;
    }

    /// The members that a node lists, with their number; `None` if it does not answer.
    pub(crate) async fn members(&self, node: usize, room: &str) -> Option<(Vec<String>, u64)> {
        let (addr, path) = (self.nodes[node].process.addr, format!("/api/rooms/{room}"));
        // In a task of its own, since it panics if the node is down.
        let view = timeout(SOON, tokio::spawn(async move { get(addr, &path).await })).await.ok()?.ok()?;
        let view = (view.status == 200).then(|| view.json())?;
        let members = view["members"].as_object()?.keys().cloned().collect();
        Some((members, view["membersCount"].as_u64()?))
    }

    /// Keeps the logs of all nodes beside the history.
    pub(crate) fn keep_logs(&self) {
        (0..self.nodes.len()).for_each(|node| self.keep_log(node));
    }

    fn keep_log(&self, number: usize) {
        let node = &self.nodes[number];
        if node.is_running {
            let path = self.folder.join(format!("{}-{}.log", node.title, node.process.addr.port()));
            std::fs::write(path, node.process.stderr()).expect("the disk has room");
        }
    }
}

fn replica_of(redis: &Redis) -> String {
    format!("REPLICAOF 127.0.0.1 {}", redis.addr().port())
}

async fn start_node(url: &str, title: &str, is_new: bool, settings: &Settings) -> Process {
    let environment = [
        ("REDIS_URL", url),
        ("PHALANX_TITLE", title),
        ("PHALANX__ROOMS__START", &settings.rooms),
        ("PHALANX__ROOMS__PRESENCE", &settings.presence),
        ("PHALANX__ADMIN__BIND", "127.0.0.1:0"),
        ("PHALANX__WEBSOCKET__HEARTBEAT", "10m"),
    ];
    let program = if is_new { &settings.program } else { &settings.old_program };
    Process::start(program, &environment).await
}

/// Polls a condition until it is true.
pub(crate) async fn until(description: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < SOON, "{description}: not within {SOON:?}");
        sleep(Duration::from_millis(10)).await;
    }
}
