//! Three real nodes, each behind a proxy of its own, before two real servers; and the faults that hit them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use phalanx_testkit::{Direction, Flow, Process, Proxy, Redis, Signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::client::get;
use crate::history::{Event, Recorder};
use crate::schedule::{Fault, LinkFault, Step};

/// A limit for waits that no promise bounds.
const SOON: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    redis: [Redis; 2],
    /// The server to which new connections lead.
    active: usize,
    nodes: Vec<Node>,
    /// Where logs of nodes are kept.
    folder: PathBuf,
    rooms: String,
    presence: String,
}

struct Node {
    title: String,
    proxy: Proxy,
    process: Process,
    addr: watch::Sender<SocketAddr>,
    is_running: bool,
}

impl Cluster {
    pub(crate) async fn start(count: usize, rooms: &[&str], presence: &[&str], folder: &Path) -> Self {
        let redis = [Redis::start().await, Redis::start().await];
        let (rooms, presence) = (rooms.join(","), presence.join(","));
        let mut nodes = Vec::new();
        for number in 0..count {
            let proxy = Proxy::before(redis[0].addr()).await;
            let title = format!("n{number}");
            let process = start_node(&redis[0].url_through(proxy.addr()), &title, &rooms, &presence).await;
            let addr = watch::Sender::new(process.addr);
            nodes.push(Node { title, proxy, process, addr, is_running: true });
        }
        Self { redis, active: 0, nodes, folder: folder.to_owned(), rooms, presence }
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
                    sleep(lasts / (times + 1)).await;
                    self.nodes[subscriber].proxy.close_flow(Flow::Subscribing);
                }
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
            Fault::NodeKill(node) => {
                self.keep_log(node);
                let node = &mut self.nodes[node];
                node.process.signal(Signal::KILL);
                node.process.ended().await;
                node.is_running = false;
            }
            Fault::NodeFreeze(node) => self.nodes[node].process.freeze().await,
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
            Fault::Answers { publisher, .. } => self.nodes[publisher].proxy.release(),
            // The old server stays open as it is, until another switch-over needs it.
            Fault::SwitchOver | Fault::Older { .. } | Fault::Flush | Fault::ClientPause { .. } => {}
            Fault::Full => drop(self.active().command("CONFIG SET maxmemory 0").await),
            Fault::RedisKill { empty: true } => self.redis[self.active].start_empty().await,
            Fault::RedisKill { empty: false } => self.redis[self.active].start_again().await,
            Fault::RedisFreeze => self.active().thaw(),
            Fault::NodeKill(node) => self.start_again(node).await,
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

    async fn start_again(&mut self, number: usize) {
        let node = &self.nodes[number];
        let url = self.active().url_through(node.proxy.addr());
        let process = start_node(&url, &node.title, &self.rooms, &self.presence).await;
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

async fn start_node(url: &str, title: &str, rooms: &str, presence: &str) -> Process {
    let environment = [
        ("REDIS_URL", url),
        ("PHALANX_TITLE", title),
        ("PHALANX__ROOMS__START", rooms),
        ("PHALANX__ROOMS__PRESENCE", presence),
        ("PHALANX__ADMIN__BIND", "127.0.0.1:0"),
        ("PHALANX__WEBSOCKET__HEARTBEAT", "10m"),
    ];
    Process::start("tour", &environment).await
}

/// Polls a condition until it is true.
pub(crate) async fn until(description: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < SOON, "{description}: not within {SOON:?}");
        sleep(Duration::from_millis(10)).await;
    }
}
