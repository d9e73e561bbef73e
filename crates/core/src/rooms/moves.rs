//! Joins and leaves in progress.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

/// Counts joins and leaves. Two readings show whether one was in progress at or between them.
#[derive(Default)]
pub(super) struct MembershipMoves {
    begun: AtomicU64,
    in_progress: AtomicUsize,
}

impl MembershipMoves {
    pub(super) fn begin(&self) {
        self.in_progress.fetch_add(1, SeqCst);
        self.begun.fetch_add(1, SeqCst);
    }

    pub(super) fn end(&self) {
        self.in_progress.fetch_sub(1, SeqCst);
    }

    /// A number that is the same at two moments if no join or leave was in progress at or between them; `None` if one is.
    pub(super) fn quiet(&self) -> Option<u64> {
        let begun = self.begun.load(SeqCst);
        (self.in_progress.load(SeqCst) == 0).then_some(begun)
    }
}
