//! The task that renews a node's lease, and watches the other nodes by it.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::recovery::Recovery;
use super::{LeaseParts, RENEWAL, came_back, reap};
use crate::backend::{BackendError, LEASE, LeaseStatus, NodeRecord, Renewal};
use crate::event::Event;
use crate::id::Generation;
use crate::lease_state::RecoveryRequest;

/// By how much the backend's clock and ours may differ between two renewals before one of them counts as set anew.
const UNEVEN: Duration = Duration::from_secs(1);

/// A node of the same id that is listed for longer is no predecessor that died: it would be reaped by then.
const NAMESAKE_GRACE: Duration = Duration::from_secs(10);

/// How often the warning about a node of the same id is repeated.
const NAMESAKE_INTERVAL: Duration = Duration::from_secs(60);

/// Renews the lease of a registered node.
pub(crate) struct LeaseKeeper {
    parts: LeaseParts,
    reaper: reap::LeaseReaper,
    recovery: Recovery,
    /// The generation that was registered last.
    registered: Generation,
    /// Whether a registration was sent whose answer is unknown.
    is_unanswered: bool,
    /// Since when renewals succeeded without a gap.
    steady: Option<Instant>,
    /// When the last confirmed renewal was sent, and the backend's time in it.
    last: Option<(Instant, u64)>,
    /// The epoch of the nodes that were read last; `None` after a fault during which changes may have been missed.
    epoch: Option<u64>,
    nodes: Vec<NodeRecord>,
    /// When to warn that another node has this node's id; `None` if none has.
    namesake: Option<Instant>,
}

impl LeaseKeeper {
    /// Makes the node a member of the cluster.
    pub(crate) async fn register(parts: LeaseParts) -> Result<Self, BackendError> {
        parts.register(false).await?;
        let registered = parts.identity.generation();
        let reaper = reap::LeaseReaper::new(parts.clone());
        Ok(Self {
            registered,
            is_unanswered: false,
            reaper,
            recovery: Recovery::default(),
            steady: None,
            last: None,
            epoch: None,
            nodes: Vec::new(),
            namesake: None,
            parts,
        })
    }

    /// Renews the lease until the node closes.
    pub(crate) async fn run(mut self) {
        let mut ticks = interval(RENEWAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let shutdown = self.parts.shutdown.clone();
            tokio::select! {
                // Also in the middle of a renewal: once the node released its lease, no renewal may take it for lost.
                () = shutdown.closed() => return,
                () = async {
                    ticks.tick().await;
                    self.renew().await;
                } => {}
            }
        }
    }

    async fn renew(&mut self) {
        if self.is_unanswered {
            // The node may be registered: a renewal would not show that its members are not listed.
            return self.register_again().await;
        }
        let (sent, quiet) = (Instant::now(), self.parts.rooms.quiet());
        match self.parts.membership.renew(self.parts.identity.generation()).await {
            Ok(Renewal::Renewed(status)) => {
                if self.recovery.find_signs(&self.parts, &status, quiet) {
                    self.steady = None; // all nodes have the length of a lease to renew
                }
                self.on_renewed(sent, status).await;
            }
            Ok(Renewal::Gone) => self.register_again().await,
            Err(error) => {
                if self.steady.take().is_some() {
                    warn!(%error, "the lease was not renewed");
                }
            }
        }
        metrics::gauge!("phalanx_lease_fenced").set(if self.parts.state.is_fenced() { 1.0 } else { 0.0 });
    }

    async fn on_renewed(&mut self, sent: Instant, status: LeaseStatus) {
        self.parts.state.confirm(sent);
        let is_even = self.last.replace((sent, status.now_us)).is_some_and(|(before, then_us)| {
            let ours = sent - before;
            let theirs = Duration::from_micros(status.now_us.saturating_sub(then_us));
            ours < LEASE / 2 && ours.abs_diff(theirs) < UNEVEN && status.now_us >= then_us
        });
        if !is_even {
            self.steady = None;
        }
        let steady = *self.steady.get_or_insert(sent);
        self.recovery.send_due_gaps(&self.parts);
        self.recovery.spawn(&self.parts, self.registered);
        if self.epoch != Some(status.epoch) {
            match self.read_nodes().await {
                Ok(()) => self.epoch = Some(status.epoch),
                Err(error) => warn!(%error, "the nodes of the cluster cannot be read"),
            }
        }
        self.warn_of_namesakes(sent);
        if sent - steady >= LEASE {
            self.reaper.spawn(&status);
        }
    }

    /// Warns once a minute while another node has this node's id. Not at once: it may be this node before a restart, which is
    /// listed until it is reaped.
    fn warn_of_namesakes(&mut self, now: Instant) {
        let (id, boot) = (&self.parts.identity.node_id, self.parts.identity.generations.first());
        let Some(other) = self.nodes.iter().find(|node| node.id == *id && node.boot != boot) else {
            self.namesake = None;
            return;
        };
        let due = *self.namesake.get_or_insert(now + NAMESAKE_GRACE);
        if now >= due {
            warn!(id, generation = %other.generation, "another node has this id: give each its own (PHALANX_TITLE)");
            self.namesake = Some(now + NAMESAKE_INTERVAL);
        }
    }

    /// Reads the nodes of the cluster, and notifies observers of the changes since the last time.
    async fn read_nodes(&mut self) -> Result<(), BackendError> {
        let now = self.parts.membership.nodes().await?;
        let is_in = |node: &NodeRecord, nodes: &[NodeRecord]| nodes.iter().any(|n| n.generation == node.generation);
        for node in now.iter().filter(|node| !is_in(node, &self.nodes)) {
            info!(node = node.id, generation = %node.generation, "a node is in the cluster");
            self.parts.observers.notify(&Event::NodeJoined(node.clone()));
        }
        for node in self.nodes.iter().filter(|node| !is_in(node, &now)) {
            info!(node = node.id, generation = %node.generation, "a node left the cluster");
            self.parts.observers.notify(&Event::NodeLeft(node.clone()));
        }
        self.parts.calls.fail_calls_to_dead_nodes(&now);
        metrics::gauge!("phalanx_cluster_nodes").set(now.len() as f64);
        self.nodes = now;
        Ok(())
    }

    /// There is no lease of this generation: registers again, and requests that all members are listed again. The
    /// generation stays, unless it was reaped: a new one costs one of the names that a node answers for, and every member
    /// a leave and a join.
    async fn register_again(&mut self) {
        self.steady = None;
        self.is_unanswered = true;
        let was_registered = self.registered == self.parts.identity.generation();
        let lost = match self.parts.register(was_registered).await {
            Ok(lost) => lost,
            Err(error) => return warn!(%error, "the node is not registered"), // the next renewal tries again
        };
        let generation = self.parts.identity.generation();
        let is_renamed = generation != self.registered;
        self.is_unanswered = false;
        let before = std::mem::replace(&mut self.registered, generation);
        self.epoch = None;
        if lost {
            error!(%generation, "the backend lost data: it came back empty, or from before this node registered");
            metrics::counter!("phalanx_backend_losses_total").increment(1);
            self.parts.observers.notify(&Event::BackendLost);
        }
        if is_renamed {
            warn!(%generation, "this node was reaped while it ran: it continues under a new generation");
            self.parts.observers.notify(&Event::Renamed(generation));
            came_back::spawn(&self.parts, before);
        } else if !lost {
            warn!(%generation, "the backend lost the lease of this node, which is registered again");
        }
        self.parts.state.record_loss_sign(if lost { RecoveryRequest::LOST } else { RecoveryRequest::RELIST });
        self.recovery.spawn(&self.parts, generation);
    }
}
