//! The recovery pass: one comparison of the backend's list with what the node holds makes up for everything that failed
//! while the backend was away, or was lost with it.
//!
//! A pass is requested by a sign that something was lost: a connection to the backend that was made anew, a renewal that
//! the backend has forgotten, a number of memberships that is not the node's own, a write without an answer. Beside that,
//! each renewal without such a request compares a small part, for what shows no sign. After a gap a pass only looks for
//! rooms that were destroyed.
//!
//! After a loss of data clients that received the gap of the connections read lists that nodes are still restoring, and the
//! leaves of a node that died before it had restored its own are never announced, since no list names its members. So
//! members of rooms with presence get another gap 10 s after a node has last found the loss, on all nodes: also on one that
//! found nothing lost, and anew when one comes back later.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tracing::{info, warn};

use super::LeaseParts;
use crate::backend::{BackendError, LeaseStatus, RESTORED};
use crate::id::{ConnectionId, Generation};
use crate::lease_state::RecoveryRequest;

/// Connections whose members a renewal compares without a sign of a loss. With a step of 500 through the stored memberships
/// this takes about a millisecond of Redis's time a second.
const CHECKED_AT_ONCE: usize = 100;

/// Finds signs of a loss, and runs recovery passes.
#[derive(Default)]
pub(super) struct Recovery {
    /// The connection to the backend at the last renewal.
    connection: Option<u64>,
    /// By how much the number of stored memberships differed from the node's at the last renewal without a join or leave.
    difference: i64,
    /// The difference for which the last pass was requested: one that a pass does not change needs no other.
    compared: i64,
    /// When a node last found a loss of data, by the backend's clock.
    lost_us: Option<u64>,
    /// When the lists are restored after it; `None` once the gaps are sent.
    restored: Option<Instant>,
    check: Arc<Mutex<RoutineCheck>>,
}

/// The progress of the comparison that runs all the time.
#[derive(Debug, Default)]
struct RoutineCheck {
    /// Where the next step through the stored memberships starts.
    start: u64,
    /// The connections whose members are not compared yet.
    left: Vec<ConnectionId>,
}

impl Recovery {
    /// Requests a pass if a renewal shows a sign of a loss. Returns whether it may have reached another backend, or older
    /// data, in which the leases of live nodes may have expired long ago. `quiet` is a number of [`crate::rooms::Rooms::quiet`] from before
    /// the renewal was sent.
    pub(super) fn find_signs(&mut self, parts: &LeaseParts, status: &LeaseStatus, quiet: Option<u64>) -> bool {
        let is_anew = self.connection.replace(status.connection).is_some_and(|before| before != status.connection);
        if status.is_behind {
            warn!("the backend does not know the last renewal of this node: it came back with older data");
            parts.state.record_loss_sign(RecoveryRequest::LOST);
        } else if is_anew {
            parts.state.record_loss_sign(RecoveryRequest::RELIST);
        }
        if status.lost_us.is_some() && status.lost_us != self.lost_us {
            self.lost_us = status.lost_us;
            self.restored = Some(Instant::now() + RESTORED);
        }
        self.compare_numbers(parts, status, quiet);
        is_anew || status.is_behind
    }

    fn compare_numbers(&mut self, parts: &LeaseParts, status: &LeaseStatus, quiet: Option<u64>) {
        let Some(stored) = status.stored else { return };
        let difference = stored as i64 - parts.rooms.count_held() as i64;
        if quiet.is_none() || quiet != parts.rooms.quiet() {
            return;
        }
        let is_lasting = difference != 0 && difference == self.difference;
        self.difference = difference;
        if difference == 0 {
            self.compared = 0;
        } else if is_lasting && difference != self.compared {
            self.compared = difference;
            parts.state.request_recovery(RecoveryRequest::RELIST);
        }
    }

    /// Sends the gaps of a loss once they are due: after a pass that lists members, unless that takes as long again.
    pub(super) fn send_due_gaps(&mut self, parts: &LeaseParts) {
        let (now, is_listing) = (Instant::now(), parts.state.is_relisting());
        let is_due = |restored: &mut Instant| now >= if is_listing { *restored + RESTORED } else { *restored };
        if self.restored.take_if(is_due).is_some() {
            parts.rooms.send_presence_gaps();
        }
    }

    /// Starts a pass for `generation` if there is something to do, else a step of the routine check; neither if one runs.
    pub(super) fn spawn(&self, parts: &LeaseParts, generation: Generation) {
        let Some(request) = parts.state.try_start_recovery() else { return };
        let is_requested = request != RecoveryRequest::default() || parts.rooms.need_recovery();
        let (parts, check) = (parts.clone(), self.check.clone());
        parts.shutdown.clone().spawn_own(async move {
            tokio::select! {
                () = parts.shutdown.closed() => {}
                () = async {
                    if is_requested {
                        recover(&parts, generation, request).await;
                    } else if let Err(error) = check_some(&parts, generation, &check).await {
                        warn!(%error, "the members of rooms were not checked");
                    }
                    parts.state.end_recovery();
                } => {}
            }
        });
    }
}

fn lock(check: &Mutex<RoutineCheck>) -> MutexGuard<'_, RoutineCheck> {
    check.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does everything that is requested. What fails is left to the pass after the next renewal. A pass under a generation that
/// was reaped meanwhile is refused by the backend.
async fn recover(parts: &LeaseParts, generation: Generation, request: RecoveryRequest) {
    let end_sessions = async { if request.relist { parts.sessions.end_again().await } else { Ok(()) } };
    let pass = async {
        parts.rooms.settle_destroys().await?;
        let all_listed = request.relist && relist(parts, generation, request).await?;
        if request.check_rooms && !request.relist {
            parts.rooms.check_rooms(parts.connections.all(), generation, request).await?;
        }
        if request.remove {
            parts.rooms.remove_all_unheld(all_listed).await?;
        }
        parts.rooms.announce_waiting_changes().await
    };
    // Beside each other: what keeps one from its end does not keep the other.
    let (of_sessions, of_rooms) = tokio::join!(end_sessions, pass);
    let results = [("ended sessions", of_sessions), ("rooms", of_rooms)];
    for (what, error) in results.into_iter().filter_map(|(what, result)| Some((what, result.err()?))) {
        warn!(%error, "{what} are not recovered yet");
        parts.state.request_recovery(request);
    }
}

/// Lists all members of this node again where they are not listed; returns whether all were compared.
async fn relist(parts: &LeaseParts, generation: Generation, request: RecoveryRequest) -> Result<bool, BackendError> {
    if request.lost {
        parts.rooms.restore_start_rooms().await?;
    }
    let connections = parts.connections.all();
    let count = connections.len();
    let all = parts.rooms.relist_all(connections, generation, request).await?;
    info!(connections = count, all, "rooms and their members are listed again");
    Ok(all)
}

/// Compares the next part of the list.
async fn check_some(
    parts: &LeaseParts,
    generation: Generation,
    check: &Mutex<RoutineCheck>,
) -> Result<(), BackendError> {
    let (start, ids) = {
        let mut check = lock(check);
        if check.left.is_empty() {
            check.left = parts.connections.ids();
        }
        let from = check.left.len().saturating_sub(CHECKED_AT_ONCE);
        (check.start, check.left.split_off(from))
    };
    let connections = parts.rooms.find_all(&ids);
    parts.rooms.relist_all(connections, generation, RecoveryRequest::RELIST).await?;
    let next = parts.rooms.remove_unheld_step(generation, start, true).await?;
    lock(check).start = next;
    Ok(())
}
