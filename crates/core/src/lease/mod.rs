//! The lease of a node: registered at the start, renewed each second, released at the stop.
//!
//! No living node is reaped: an expired lease is only *reapable*, and a node that renews first keeps it. A node reaps only
//! after it has renewed without a gap for a whole [`LEASE`](crate::backend::LEASE), by a clock that ran evenly, so after
//! anything that stalls the backend for all, every node has that long to renew. And no dead node is spared: a lease is
//! measured by the backend's own clock, which a node that does not run cannot extend.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::backend::{BackendError, Bus, Clock, Membership, NodeRecord, RegisterOutcome, TaskStore};
use crate::config::NodeRole;
use crate::connections::ConnectionRegistry;
use crate::event::Observers;
use crate::id::NodeIdentity;
use crate::lease_state::{LeaseState, RecoveryRequest};
use crate::protocol::CloseReason;
use crate::remote::RemoteCalls;
use crate::rooms::Rooms;
use crate::session::parts::SessionParts;
use crate::shutdown::Shutdown;

mod came_back;
mod reap;
mod recovery;
pub(crate) mod renew;

/// How often a lease is renewed.
const RENEWAL: Duration = Duration::from_secs(1);

/// How long a node that stops continues to store leaves and to publish the ends of rooms. The leaves that remain are left
/// to its reaper.
const SETTLING: Duration = Duration::from_secs(5);

/// Everything that keeping a lease needs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LeaseParts {
    pub(crate) membership: Arc<dyn Membership>,
    pub(crate) bus: Arc<dyn Bus>,
    /// Jobs, where the backend keeps any.
    pub(crate) tasks: Option<Arc<dyn TaskStore>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) identity: Arc<NodeIdentity>,
    pub(crate) state: Arc<LeaseState>,
    pub(crate) rooms: Rooms,
    pub(crate) sessions: Arc<SessionParts>,
    pub(crate) connections: Arc<ConnectionRegistry>,
    pub(crate) calls: Arc<RemoteCalls>,
    pub(crate) observers: Observers,
    pub(crate) shutdown: Shutdown,
    pub(crate) roles: Vec<NodeRole>,
    /// When the process started, Unix time in milliseconds.
    pub(crate) started_at: u64,
}

impl LeaseParts {
    /// Makes the node a member, and returns whether the backend has lost data in which it was one. Its inbox is open before
    /// other nodes can learn of it. A generation that was reaped is replaced by a new one.
    async fn register(&self, mut was_registered: bool) -> Result<bool, BackendError> {
        loop {
            self.bus.open_inbox(self.identity.generation()).await?;
            let sent = Instant::now();
            self.state.record_registration();
            let outcome = self.membership.register(&self.record(), was_registered).await?;
            if outcome != RegisterOutcome::Reaped {
                self.state.confirm(sent);
                return Ok(outcome == RegisterOutcome::Lost);
            }
            self.take_new_generation();
            was_registered = false;
        }
    }

    /// The node as the cluster knows it.
    fn record(&self) -> NodeRecord {
        NodeRecord {
            generation: self.identity.generation(),
            boot: self.identity.generations.first(),
            id: self.identity.node_id.clone(),
            version: self.identity.version.clone(),
            started_at: self.started_at,
            roles: self.roles.iter().map(|role| role.name().to_owned()).collect(),
            earlier: self.identity.generations.earlier(),
        }
    }

    /// Takes a new generation, under which all members are to be listed again; each counts as joined no earlier than now.
    /// The oldest of many generations is dropped, and its sockets are closed: no node answers for their ids any more.
    fn take_new_generation(&self) {
        self.state.request_recovery(RecoveryRequest::renamed(self.clock.now_ms()));
        let dropped = self.identity.generations.renew();
        if dropped.is_some() {
            let all = self.connections.all();
            let theirs = all.iter().filter(|connection| connection.id().owner() == dropped);
            theirs.for_each(|connection| connection.close(CloseReason::NodeStops));
        }
    }
}

/// Releases the lease, if the backend may know one. Repeated where it is unknown whether that took effect: for the price of
/// one step the other nodes need not wait for its expiry.
pub(crate) async fn release(parts: &LeaseParts) {
    if !parts.state.may_be_registered() {
        return;
    }
    if parts.state.is_late() {
        return warn!("the backend is away: leaves and the stop are left to the reaper of this node");
    }
    settle(parts).await;
    let mut left = parts.membership.leave(parts.identity.generation()).await;
    if left.is_err() {
        left = parts.membership.leave(parts.identity.generation()).await;
    }
    if let Err(error) = left {
        warn!(%error, "the other nodes learn of the stop when the lease expires");
    }
}

/// Stores and publishes everything that waits for the backend. The ends of rooms go first: they are few, and no other node
/// knows of them.
async fn settle(parts: &LeaseParts) {
    let rooms = &parts.rooms;
    let settling = async {
        if let Err(error) = rooms.settle_destroys().await {
            warn!(%error, "the last messages of destroyed rooms are not published");
        }
        let is_needed = parts.state.needs_recovery() || rooms.need_recovery();
        let settle_leaves = async {
            rooms.remove_all_unheld(true).await?;
            rooms.announce_waiting_changes().await
        };
        if is_needed && let Err(error) = settle_leaves.await {
            warn!(%error, "the remaining leaves are left to this node's reaper");
        }
    };
    if timeout(SETTLING, settling).await.is_err() {
        warn!("not everything that waited for the backend was stored and published in time");
    }
}
