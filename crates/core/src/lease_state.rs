//! The state of a node's lease, shared by the task that renews it and by rooms.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a node counts on its lease after it *sent* a renewal that was confirmed.
const FENCE: Duration = Duration::from_secs(4);

/// After this time without a confirmed renewal, which is sent each second, the backend is taken for away.
const LATE: Duration = Duration::from_millis(2500);

/// Why the members of a node are listed again. If neither field is set, messages were missed: the rooms that the node
/// knows may have been destroyed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RestoreReason {
    /// The backend came back empty: rooms that are gone were not destroyed.
    pub(crate) lost: bool,
    /// When the node took another generation, in Unix milliseconds by the backend's clock: other nodes may have
    /// received the leaves of its members before that. 0 if it kept its generation.
    pub(crate) renamed_ms: u64,
}

impl RestoreReason {
    /// Combines two reasons: the stronger one decides, and none is forgotten.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { lost: self.lost || other.lost, renamed_ms: self.renamed_ms.max(other.renamed_ms) }
    }
}

/// The node's knowledge of its own lease.
#[derive(Debug, Default)]
pub(crate) struct LeaseState {
    /// When the last confirmed renewal was sent.
    confirmed: Mutex<Option<Instant>>,
    /// Whether a registration was ever sent, answered or not.
    registration_sent: AtomicBool,
    /// Why all members are to be listed again, if they are.
    restore: Mutex<Option<RestoreReason>>,
    /// Whether a recovery pass runs.
    recovering: AtomicBool,
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

    /// Whether members are to be listed again.
    pub(crate) fn needs_restore(&self) -> bool {
        self.restore().is_some()
    }

    /// Has the next recovery pass list all members again.
    pub(crate) fn request_restore(&self, why: RestoreReason) {
        let mut restore = self.restore();
        *restore = Some(restore.unwrap_or_default().and(why));
    }

    /// Takes the request, if there is one.
    pub(crate) fn take_restore_request(&self) -> Option<RestoreReason> {
        self.restore().take()
    }

    /// Starts a recovery pass; `false` if one runs. Two for different reasons would undo each other's work.
    pub(crate) fn try_start_recovery(&self) -> bool {
        !self.recovering.swap(true, Relaxed)
    }

    /// Ends the recovery pass.
    pub(crate) fn end_recovery(&self) {
        self.recovering.store(false, Relaxed);
    }

    /// Whether other nodes may have reaped this one and announced the leaves of its members.
    pub(crate) fn may_be_reaped(&self) -> bool {
        self.recovering.load(Relaxed) || self.needs_restore() || self.is_fenced()
    }

    fn confirmed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn restore(&self) -> MutexGuard<'_, Option<RestoreReason>> {
        self.restore.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_reasons_the_stronger_decides_and_none_is_forgotten() {
        let missed = RestoreReason::default();
        let lost = RestoreReason { lost: true, renamed_ms: 5 };
        let reaped = RestoreReason { lost: false, renamed_ms: 7 };
        for (one, other, both) in [
            (missed, reaped, reaped),
            (reaped, lost, RestoreReason { lost: true, renamed_ms: 7 }),
            (lost, missed, lost),
        ] {
            assert_eq!(one.and(other), both);
            assert_eq!(other.and(one), both);
        }
    }

    #[test]
    fn one_recovery_pass_runs_at_a_time() {
        let state = LeaseState::default();
        assert!(state.try_start_recovery() && !state.try_start_recovery());
        state.end_recovery();
        assert!(state.try_start_recovery());
    }
}
