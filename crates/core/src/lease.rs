//! Keeps a node's lease, names the node anew when it finds itself reaped, and cleans up after nodes that died.
//!
//! Why nobody living is reaped: a lease that ran out is only *reapable*; whoever renews first lives on. A node reaps only
//! after it has renewed without a gap for a whole [`LEASE`], by a clock that ran evenly, so after anything that stalls
//! the backend for all, everybody has that long to come back. And nobody dead is spared: a lease is given by the backend's
//! own clock, which a node that does not run cannot prolong.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{error, info, warn};

use crate::backend::{BackendError, LEASE, Leaves, NodeRecord, Renewal, Standing};
use crate::event::Event;
use crate::node::{Generation, Node};
use crate::rooms::Restoring;

/// How often a lease is renewed.
const RENEWAL: Duration = Duration::from_secs(1);

/// How long a node counts on its lease after it *sent* a renewal that was confirmed.
const FENCE: Duration = Duration::from_secs(4);

/// By how much the backend's clock and ours may differ between two renewals before one of them counts as set anew.
const UNEVEN: Duration = Duration::from_secs(1);

/// What the node knows of its own lease.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    confirmed: Mutex<Option<Instant>>,
    /// Whether a registration was ever sent, answered or not.
    asked: AtomicBool,
}

impl Lease {
    /// Whether the node must not count on its lease. It decides by its own clock alone.
    pub(crate) fn is_fenced(&self) -> bool {
        self.confirmed().is_none_or(|sent| sent.elapsed() >= FENCE)
    }

    fn confirmed(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the node a member: its inbox is open before anybody can learn of it.
pub(crate) async fn enter(node: &Node) -> Result<String, BackendError> {
    node.bus().appear_as(node.generation()).await?;
    let sent = Instant::now();
    node.lease().asked.store(true, Relaxed);
    let life = node.membership().register(&node.record()).await?;
    *node.lease().confirmed() = Some(sent);
    Ok(life)
}

/// Gives the lease up, if there may be one.
pub(crate) async fn give_up(node: &Node) {
    if !node.lease().asked.load(Relaxed) {
        return;
    }
    if let Err(error) = node.membership().leave(node.generation()).await {
        warn!(%error, "the others will learn of the stop when the lease runs out");
    }
}

/// Renews the lease until the node closes.
pub(crate) async fn keep(node: Node, life: String) {
    let registered = node.generation();
    let mut keeper = Keeper { life, registered, steady: None, last: None, epoch: 0, nodes: Vec::new(), node };
    let mut ticks = interval(RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let shutdown = keeper.node.shutdown().clone();
        tokio::select! {
            // Also in the middle of a renewal: after the node gave its lease up, none may take it for lost.
            () = shutdown.closed() => return,
            () = async {
                ticks.tick().await;
                keeper.renew().await;
            } => {}
        }
    }
}

struct Keeper {
    node: Node,
    /// Names the backend's present life.
    life: String,
    /// The name that was registered last: a new one is taken only once that one is gone.
    registered: Generation,
    /// Since when renewals went through without a gap.
    steady: Option<Instant>,
    /// When the last confirmed renewal was sent, and the backend's time in it.
    last: Option<(Instant, u64)>,
    epoch: u64,
    nodes: Vec<NodeRecord>,
}

impl Keeper {
    async fn renew(&mut self) {
        let sent = Instant::now();
        match self.node.membership().renew(self.node.generation()).await {
            Ok(Renewal::Standing(standing)) => self.stand(sent, standing).await,
            Ok(Renewal::Gone) => self.begin_anew().await,
            Err(error) => {
                if self.steady.take().is_some() {
                    warn!(%error, "the lease was not renewed");
                }
            }
        }
        metrics::gauge!("phalanx_lease_fenced").set(if self.node.lease().is_fenced() { 1.0 } else { 0.0 });
    }

    async fn stand(&mut self, sent: Instant, standing: Standing) {
        *self.node.lease().confirmed() = Some(sent);
        let even = self.last.replace((sent, standing.now_us)).is_some_and(|(before, then_us)| {
            let ours = sent - before;
            let theirs = Duration::from_micros(standing.now_us.saturating_sub(then_us));
            ours < LEASE / 2 && ours.abs_diff(theirs) < UNEVEN && standing.now_us >= then_us
        });
        if !even {
            self.steady = None;
        }
        let steady = *self.steady.get_or_insert(sent);
        if self.node.begins_mending() {
            let node = self.node.clone();
            self.node.shutdown().spawn_own(async move {
                tokio::select! {
                    () = node.shutdown().closed() => {}
                    () = mend(&node) => {}
                }
            });
        }
        if standing.epoch != self.epoch && self.look_round().await.is_ok() {
            self.epoch = standing.epoch;
        }
        if sent - steady >= LEASE && !standing.lapsed.is_empty() && self.node.begins_reaping() {
            let node = self.node.clone();
            self.node.shutdown().spawn_own(async move {
                for dead in standing.lapsed {
                    reap(&node, dead).await;
                }
                node.ends_reaping();
            });
        }
    }

    /// Tells who came and who left since the last look.
    async fn look_round(&mut self) -> Result<(), BackendError> {
        let now = self.node.membership().nodes().await?;
        let is_in = |node: &NodeRecord, nodes: &[NodeRecord]| nodes.iter().any(|n| n.generation == node.generation);
        for node in now.iter().filter(|node| !is_in(node, &self.nodes)) {
            info!(node = node.id, generation = %node.generation, "a node is in the cluster");
            self.node.tell(&Event::NodeJoined(node.clone()));
        }
        for node in self.nodes.iter().filter(|node| !is_in(node, &now)) {
            info!(node = node.id, generation = %node.generation, "a node left the cluster");
            self.node.tell(&Event::NodeLeft(node.clone()));
        }
        self.node.calls().fail_those_to_the_dead(&now);
        metrics::gauge!("phalanx_cluster_nodes").set(now.len() as f64);
        self.nodes = now;
        Ok(())
    }

    /// The generation is no more: takes a new name, and lists everything it holds under it.
    async fn begin_anew(&mut self) {
        self.steady = None;
        if self.registered == self.node.generation() {
            self.node.rename();
        }
        let generation = self.node.generation();
        let life = match enter(&self.node).await {
            Ok(life) => life,
            Err(error) => return warn!(%error, "the node is not registered"), // the next renewal tries again
        };
        self.registered = generation;
        let lost = life != self.life;
        self.life = life;
        match lost {
            true => error!(%generation, "the backend came back empty: what only it held is lost"),
            false => warn!(%generation, "this node was found dead while it was not: it goes on under a new name"),
        }
        if lost {
            metrics::counter!("phalanx_backend_losses_total").increment(1);
        }
        self.node.tell(&Event::Renamed(generation));
        let why = if lost { Restoring::Lost } else { Restoring::FoundDead { at_ms: self.node.now_ms() } };
        let node = self.node.clone();
        self.node.shutdown().spawn_own(async move {
            tokio::select! {
                () = node.shutdown().closed() => {}
                () = restore(&node, generation, why) => {}
            }
        });
    }
}

/// Makes good what could not be done while the backend was away: leaves that were not written, and rooms that were
/// destroyed meanwhile. Only while the lease stands: then nothing was lost.
async fn mend(node: &Node) {
    let mended = async {
        node.rooms().settle_leaves().await?;
        node.rooms().settle_farewells().await?;
        match node.rooms().takes_missed() {
            true => try_restore(node, Restoring::Missed).await.map(drop).inspect_err(|_| node.rooms().misses()),
            false => Ok(()),
        }
    };
    if let Err(error) = mended.await {
        warn!(%error, "rooms are not as they should be yet");
    }
    node.ends_mending();
}

/// Lists all rooms and members of this node again, until it is done or the node has yet another name.
async fn restore(node: &Node, generation: Generation, why: Restoring) {
    while node.generation() == generation {
        match try_restore(node, why).await {
            Ok(members) => return info!(members, "rooms and their members are listed again"),
            Err(error) => warn!(%error, "rooms and their members are not all listed again yet"),
        }
        sleep(RENEWAL).await;
    }
}

async fn try_restore(node: &Node, why: Restoring) -> Result<usize, BackendError> {
    if why == Restoring::Lost {
        for room in &node.config().rooms.start {
            node.room_store().add(room, node.config().rooms.max_rooms).await?;
        }
    }
    let connections = node.connections().all();
    for connection in &connections {
        node.rooms().restore(connection, why).await?;
    }
    Ok(connections.len())
}

/// Cleans up after a generation whose lease ran out, unless somebody else does.
///
/// Killed half-way, the claim lapses, and the next reaper goes on with the same list of leaves.
async fn reap(node: &Node, dead: Generation) {
    let me = node.generation();
    match node.membership().claim(me, dead).await {
        Ok(true) => warn!(%dead, "a node died: cleaning up after it"),
        Ok(false) => return,
        Err(error) => return warn!(%error, %dead, "not cleaned up yet"),
    }
    let mut told = 0;
    loop {
        match tell_some(node, me, dead).await {
            Ok(Some(0)) => break,
            Ok(Some(count)) => told += count,
            Ok(None) => return info!(%dead, told, "another node goes on cleaning up"),
            Err(error) => return warn!(%error, %dead, told, "cleaning up stopped half-way"),
        }
    }
    metrics::counter!("phalanx_generations_reaped_total").increment(1);
    info!(%dead, leaves = told, "cleaned up");
}

/// Tells a batch of leaves; 0 when there are no more, `None` if somebody else tells them by now.
async fn tell_some(node: &Node, me: Generation, dead: Generation) -> Result<Option<usize>, BackendError> {
    let leaves = match node.membership().leaves(me, dead).await? {
        Leaves::Some(leaves) => leaves,
        Leaves::Done => return Ok(Some(0)),
        Leaves::Lost => return Ok(None),
    };
    let telling = async {
        for departed in &leaves {
            node.rooms().departed(departed).await?;
        }
        Ok(())
    };
    let holding = async {
        loop {
            sleep(RENEWAL).await;
            if !node.membership().hold(me, dead).await.unwrap_or(true) {
                return;
            }
        }
    };
    tokio::select! {
        told = telling => told?,
        () = holding => return Ok(None),
    }
    Ok(node.membership().told(me, dead, leaves.len()).await?.then_some(leaves.len()))
}
