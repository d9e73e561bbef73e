//! The state of a node's lease, shared by the task that renews it and by rooms.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a node counts on its lease after it *sent* a renewal that was confirmed.
const FENCE: Duration = Duration::from_secs(4);

/// After this time without a confirmed renewal, which is sent each second, the backend is taken for away.
const LATE: Duration = Duration::from_millis(2500);

/// The tasks of a recovery pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecoveryRequest {
    /// Rooms may have been destroyed whose last messages were missed.
    pub(crate) check_rooms: bool,
    /// Members may be listed that the node does not hold.
    pub(crate) remove: bool,
    /// The members that the node holds may not be listed. This checks the rooms too.
    pub(crate) relist: bool,
    /// The backend lost data: rooms that are gone were not destroyed.
    pub(crate) lost: bool,
    /// When the node took another generation, in Unix milliseconds by the backend's clock: other nodes may have
    /// received the leaves of its members before that. 0 if it kept its generation.
    pub(crate) renamed_ms: u64,
}

impl RecoveryRequest {
    const NOTHING: Self = Self { check_rooms: false, remove: false, relist: false, lost: false, renamed_ms: 0 };

    /// To find rooms that were destroyed.
    pub(crate) const CHECK_ROOMS: Self = Self { check_rooms: true, ..Self::NOTHING };

    /// To remove members that the node does not hold.
    pub(crate) const REMOVE: Self = Self { remove: true, ..Self::NOTHING };

    /// To list members again as well.
    pub(crate) const RELIST: Self = Self { relist: true, ..Self::REMOVE };

    /// The same after a loss of data.
    pub(crate) const LOST: Self = Self { lost: true, ..Self::RELIST };

    /// The same after this node was reaped.
    pub(crate) fn renamed(at_ms: u64) -> Self {
        Self { renamed_ms: at_ms, ..Self::RELIST }
    }

    /// Combines two requests: none is forgotten.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            check_rooms: self.check_rooms || other.check_rooms,
            remove: self.remove || other.remove,
            relist: self.relist || other.relist,
            lost: self.lost || other.lost,
            renamed_ms: self.renamed_ms.max(other.renamed_ms),
        }
    }
}

/// How often a renewal showed that the backend may have lost what this node stored: it answered over a connection that was
/// made anew, or did not know the lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossSigns {
    /// All signs.
    pub all: u64,
    /// Those that prove a loss: the backend came back empty, or with older data.
    pub proofs: u64,
}

/// The node's knowledge of its own lease.
#[derive(Debug, Default)]
pub(crate) struct LeaseState {
    /// When the last confirmed renewal was sent.
    confirmed: Mutex<Option<Instant>>,
    /// Whether a registration was ever sent, answered or not.
    registration_sent: AtomicBool,
    /// The next recovery pass, if one is requested.
    request: Mutex<Option<RecoveryRequest>>,
    /// The recovery pass that runs.
    running: Mutex<Option<RecoveryRequest>>,
    /// [`LossSigns`].
    signs: AtomicU64,
    proofs: AtomicU64,
}

impl LeaseState {
    /// Whether the node must not count on its lease. Decided by the node's own clock alone.
    pub(crate) fn is_fenced(&self) -> bool {
        self.confirmed().is_none_or(|sent| sent.elapsed() >= FENCE)
    }

    /// Whether a renewal is overdue: the backend did not answer the last one, or none was sent, and is taken for away.
    pub(crate) fn is_late(&self) -> bool {
        self.confirmed().is_none_or(|sent| sent.elapsed() >= LATE)
    }

    /// Records a renewal that was sent then, and confirmed.
    pub(crate) fn confirm(&self, sent: Instant) {
        *self.confirmed() = Some(sent);
    }

    /// Records that a registration is sent, whatever becomes of it.
    pub(crate) fn record_registration(&self) {
        self.registration_sent.store(true, Relaxed);
    }

    /// Whether the backend may know this node.
    pub(crate) fn may_be_registered(&self) -> bool {
        self.registration_sent.load(Relaxed)
    }

    /// Whether a recovery pass is requested.
    pub(crate) fn needs_recovery(&self) -> bool {
        self.request().is_some()
    }

    /// Has the next recovery pass do this too.
    pub(crate) fn request_recovery(&self, what: RecoveryRequest) {
        let mut request = self.request();
        *request = Some(request.unwrap_or_default().and(what));
    }

    /// Counts a sign of a loss, and has the next recovery pass do what follows from it.
    pub(crate) fn record_loss_sign(&self, request: RecoveryRequest) {
        self.proofs.fetch_add(u64::from(request.lost), Relaxed);
        self.signs.fetch_add(1, Relaxed);
        self.request_recovery(request);
    }

    pub(crate) fn loss_signs(&self) -> LossSigns {
        LossSigns { all: self.signs.load(Relaxed), proofs: self.proofs.load(Relaxed) }
    }

    /// Starts a recovery pass and takes the request for it; `None` if one runs. Two at once would undo each other's work.
    pub(crate) fn try_start_recovery(&self) -> Option<RecoveryRequest> {
        let mut running = self.running();
        if running.is_some() {
            return None;
        }
        let taken = self.request().take().unwrap_or_default();
        *running = Some(taken);
        Some(taken)
    }

    /// Ends the recovery pass.
    pub(crate) fn end_recovery(&self) {
        *self.running() = None;
    }

    /// Whether other nodes may have reaped this one and announced the leaves of its members.
    pub(crate) fn may_be_reaped(&self) -> bool {
        self.is_fenced() || self.is_renamed()
    }

    /// Whether this node was reaped, and its members may not be listed again yet.
    pub(crate) fn is_renamed(&self) -> bool {
        self.any_pass(|pass| pass.renamed_ms > 0)
    }

    /// Whether members of this node may not be listed again yet.
    pub(crate) fn is_relisting(&self) -> bool {
        self.any_pass(|pass| pass.relist)
    }

    fn any_pass(&self, is_such: impl Fn(&RecoveryRequest) -> bool) -> bool {
        // A request becomes the running pass in one step, so in this order none is missed.
        self.request().as_ref().is_some_and(&is_such) || self.running().as_ref().is_some_and(&is_such)
    }

    fn confirmed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self) -> MutexGuard<'_, Option<RecoveryRequest>> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Option<RecoveryRequest>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_requests_none_is_forgotten() {
        let (remove, lost, renamed) = (RecoveryRequest::REMOVE, RecoveryRequest::LOST, RecoveryRequest::renamed(7));
        let both = RecoveryRequest { lost: true, ..renamed };
        let (check, checked) = (RecoveryRequest::CHECK_ROOMS, RecoveryRequest { check_rooms: true, ..renamed });
        for (one, other, sum) in
            [(remove, renamed, renamed), (renamed, lost, both), (lost, remove, lost), (renamed, check, checked)]
        {
            assert_eq!((one.and(other), other.and(one)), (sum, sum));
        }
    }

    #[test]
    fn one_recovery_pass_runs_at_a_time() {
        let state = LeaseState::default();
        state.request_recovery(RecoveryRequest::RELIST);
        assert_eq!(state.try_start_recovery(), Some(RecoveryRequest::RELIST));
        state.request_recovery(RecoveryRequest::LOST);
        assert_eq!(state.try_start_recovery(), None);
        state.end_recovery();
        assert_eq!(state.try_start_recovery(), Some(RecoveryRequest::LOST));
    }
}
