//! The gaps that are to be reported.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phalanx_core::backend::{GapCause, Incoming, NodeMessageKind, TagId, TagMessageKind};
use tokio::sync::mpsc;

/// The messages of which some may be missed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum GapScope {
    /// Those to nodes.
    Nodes,
    Room(Arc<str>),
    Tag(TagId),
}

impl GapScope {
    fn report(self, cause: GapCause) -> Incoming {
        match self {
            Self::Nodes => Incoming::Gap(None, cause),
            Self::Room(room) => Incoming::Gap(Some(room), cause),
            Self::Tag(tag) => Incoming::TagGap(tag, cause),
        }
    }
}

/// The gaps that are not in the queue yet, because it was full; at most one for each room and tag. Until a gap is in the queue,
/// the messages that it covers are dropped, and it is added when the queue is half empty. So a queue that remains full
/// makes one gap for a room, and not one for each message that finds a free slot.
#[derive(Default)]
pub(super) struct PendingGaps {
    /// Whether there are any: as long as there are none, messages take no lock.
    any: AtomicBool,
    gaps: Mutex<HashMap<GapScope, GapCause>>,
}

impl PendingGaps {
    /// Adds a gap at this point, unless there is one for the same messages.
    pub(super) fn add(&self, scope: GapScope, cause: GapCause) {
        self.gaps().entry(scope).or_insert(cause);
        self.any.store(true, Relaxed);
    }

    pub(super) fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Whether a message would come after a gap that is not in the queue.
    pub(super) fn cover(&self, arrival: &Incoming) -> bool {
        self.any() && scope_of(arrival).is_some_and(|scope| self.gaps().contains_key(&scope))
    }

    /// Moves gaps to the queue as long as it is half empty.
    pub(super) fn report(&self, out: &mpsc::Sender<Incoming>) {
        if !self.any() {
            return;
        }
        let mut gaps = self.gaps();
        let half = out.max_capacity().div_ceil(2);
        let fitting = out.capacity().checked_sub(half).map_or(0, |spare| spare + 1);
        let moved: Vec<_> = gaps.extract_if(|_, _| true).take(fitting).collect();
        for (scope, cause) in moved {
            if out.try_send(scope.clone().report(cause)).is_err() {
                gaps.insert(scope, cause);
            }
        }
        self.any.store(!gaps.is_empty(), Relaxed);
    }

    fn gaps(&self) -> MutexGuard<'_, HashMap<GapScope, GapCause>> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The scope of the gap in place of a message; none if its sender notices that it was lost.
pub(super) fn scope_of(arrival: &Incoming) -> Option<GapScope> {
    match arrival {
        Incoming::Publication(publication) => Some(GapScope::Room(publication.room.clone())),
        Incoming::NodeMessage(_, message) => (message.kind == NodeMessageKind::Topic).then_some(GapScope::Nodes),
        Incoming::TagMessage(_, message) => {
            (message.kind != TagMessageKind::Call).then_some(GapScope::Tag(message.tag))
        }
        Incoming::SessionChanged(tag) => Some(GapScope::Tag(*tag)),
        Incoming::InteropCall(_) | Incoming::Away | Incoming::StillAway | Incoming::Gap(..) | Incoming::TagGap(..) => {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_reported_once_while_the_queue_is_half_empty() {
        let (out, mut queue) = mpsc::channel(4);
        let gaps = PendingGaps::default();
        for room in ["a", "b", "c", "d", "e", "a"] {
            gaps.add(GapScope::Room(room.into()), GapCause::Away);
        }
        let mut reported = Vec::new();
        for queued in [3, 3, 3, 2, 1] {
            gaps.report(&out);
            gaps.report(&out);
            assert_eq!(queue.len(), queued);
            let Ok(Incoming::Gap(Some(room), GapCause::Away)) = queue.try_recv() else { panic!("a gap") };
            reported.push(room.to_string());
        }
        reported.sort();
        assert_eq!(reported, ["a", "b", "c", "d", "e"]);
        assert!(!gaps.any() && queue.is_empty());
    }
}
