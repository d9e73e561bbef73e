//! Keeps a node's lease, and names the node anew when it finds itself reaped.
//!
//! Why nobody living is reaped: a lease that ran out is only *reapable*; whoever renews first lives on. A node reaps only
//! after it has renewed without a gap for a whole [`LEASE`], by a clock that ran evenly, so after anything that stalls
//! the backend for all, everybody has that long to come back. And nobody dead is spared: a lease is given by the backend's
//! own clock, which a node that does not run cannot prolong.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{error, info, warn};

use crate::backend::{BackendError, LEASE, NodeRecord, Renewal, Standing};
use crate::event::Event;
use crate::node::{Generation, Node};

mod mend;
mod reap;

pub(crate) use mend::{Restoring, unless_of_all};

/// How often a lease is renewed.
const RENEWAL: Duration = Duration::from_secs(1);

/// How long a node counts on its lease after it *sent* a renewal that was confirmed.
const FENCE: Duration = Duration::from_secs(4);

/// By how much the backend's clock and ours may differ between two renewals before one of them counts as set anew.
const UNEVEN: Duration = Duration::from_secs(1);

/// How long a node that stops goes on writing leaves and telling the ends of rooms. Leaves that are left are for those that
/// clean up after it.
const SETTLING: Duration = Duration::from_secs(5);

/// What the node knows of its own lease.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    confirmed: Mutex<Option<Instant>>,
    /// Whether a registration was ever sent, answered or not.
    asked: AtomicBool,
    /// Why all members are to be listed again, if they are.
    restoring: Mutex<Option<Restoring>>,
    /// The dead that this node is cleaning up after.
    reaping: Mutex<HashSet<Generation>>,
}

impl Lease {
    /// Whether the node must not count on its lease. It decides by its own clock alone.
    pub(crate) fn is_fenced(&self) -> bool {
        self.confirmed().is_none_or(|sent| sent.elapsed() >= FENCE)
    }

    /// Whether members are to be listed again.
    pub(crate) fn needs_restoring(&self) -> bool {
        self.restoring().is_some()
    }

    /// Has all members listed again by the next pass.
    pub(crate) fn is_to_restore(&self, why: Restoring) {
        let mut restoring = self.restoring();
        *restoring = Some(restoring.unwrap_or_default().and(why));
    }

    fn takes_restoring(&self) -> Option<Restoring> {
        self.restoring().take()
    }

    fn reaping(&self) -> std::sync::MutexGuard<'_, HashSet<Generation>> {
        self.reaping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn restoring(&self) -> std::sync::MutexGuard<'_, Option<Restoring>> {
        self.restoring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn confirmed(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the node a member: its inbox is open before anybody can learn of it. A name that was found dead meanwhile,
/// because the answer to an earlier registration was lost, is given up for another.
pub(crate) async fn enter(node: &Node) -> Result<String, BackendError> {
    loop {
        node.bus().appear_as(node.generation()).await?;
        let sent = Instant::now();
        node.lease().asked.store(true, Relaxed);
        if let Some(life) = node.membership().register(&node.record()).await? {
            *node.lease().confirmed() = Some(sent);
            return Ok(life);
        }
        rename(node);
    }
}

/// Takes another name, under which all is to be listed again. Whoever is listed under the new name joins no earlier than
/// it was taken.
fn rename(node: &Node) {
    node.lease().is_to_restore(Restoring { lost: false, renamed_ms: node.now_ms() });
    node.rename();
}

/// Gives the lease up, if there may be one. Again where it is unknown whether that was done: for the price of a step the
/// others need not wait for the lease to run out.
pub(crate) async fn give_up(node: &Node) {
    if !node.lease().asked.load(Relaxed) {
        return;
    }
    settle(node).await;
    let mut left = node.membership().leave(node.generation()).await;
    if left.is_err() {
        left = node.membership().leave(node.generation()).await;
    }
    if let Err(error) = left {
        warn!(%error, "the others will learn of the stop when the lease runs out");
    }
}

/// Writes and tells what waits for the backend. The ends of rooms go first: there are few of them, and nobody else knows.
async fn settle(node: &Node) {
    let rooms = node.rooms();
    let settling = async {
        if let Err(error) = rooms.settle_farewells().await {
            warn!(%error, "rooms that were destroyed are not told of it");
        }
        if let Err(error) = rooms.settle_leaves().await {
            warn!(%error, "those who clean up tell who left");
        }
    };
    if timeout(SETTLING, settling).await.is_err() {
        warn!("not all is told that waited for the backend");
    }
}

/// Renews the lease until the node closes.
pub(crate) async fn keep(node: Node, life: String) {
    let registered = node.generation();
    let mut keeper = Keeper { life, registered, steady: None, last: None, epoch: None, nodes: Vec::new(), node };
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
    /// When nodes were looked at last; `None` after anything that may have gone by unseen.
    epoch: Option<u64>,
    nodes: Vec<NodeRecord>,
}

impl Keeper {
    async fn renew(&mut self) {
        if self.registered != self.node.generation() {
            return self.begin_anew().await; // the new name may be registered, but nothing is listed under it
        }
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
        mend::begin(&self.node, self.registered);
        if self.epoch != Some(standing.epoch) {
            match self.look_round().await {
                Ok(()) => self.epoch = Some(standing.epoch),
                Err(error) => warn!(%error, "who is in the cluster cannot be read"),
            }
        }
        if sent - steady >= LEASE {
            reap::begin(&self.node, standing);
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
            rename(&self.node);
        }
        let life = match enter(&self.node).await {
            Ok(life) => life,
            Err(error) => return warn!(%error, "the node is not registered"), // the next renewal tries again
        };
        let generation = self.node.generation();
        self.registered = generation;
        self.epoch = None;
        let lost = life != self.life;
        self.life = life;
        match lost {
            true => error!(%generation, "the backend came back empty: what only it held is lost"),
            false => warn!(%generation, "this node was found dead while it was not: it goes on under a new name"),
        }
        if lost {
            metrics::counter!("phalanx_backend_losses_total").increment(1);
            self.node.tell(&Event::BackendLost);
        }
        self.node.lease().is_to_restore(Restoring { lost, renamed_ms: 0 });
        self.node.tell(&Event::Renamed(generation));
        mend::begin(&self.node, generation);
    }
}
