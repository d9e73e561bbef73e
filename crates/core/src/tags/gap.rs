//! Gaps: the notice to connections that messages to their tags may have been missed.
//!
//! A connection is sent one gap for all of its tags, and no second one before it has been written: its client reads anew
//! after it what depends on any of them. Messages that were missed came before that frame, or may still be under way.

use std::sync::{Arc, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::{SessionSign, Tags, TagsInner};
use crate::backend::GapCause;
use crate::connection::{Connection, Frame};
use crate::gap_pace::{GapPace, spawn_steps};
use crate::id::{TagId, TagKind};

impl Tags {
    /// Sends the connections of this node with a tag the notice that messages may have been missed: at once, or paced. The
    /// tag of a session has no messages for clients: its gaps are only observed.
    pub(crate) fn receive_gap(&self, tag: TagId, cause: GapCause) {
        // With the loss of the subscription, which is counted once, each tag has a gap.
        self.0.parts.metrics.bus_gaps.increment(u64::from(cause == GapCause::Overflow));
        let Some(local) = self.0.find(tag) else { return };
        let members: Vec<Connection> = local.members().all().cloned().collect();
        match local.kind {
            TagKind::Session => self.0.notify_session(SessionSign::Gap, &members),
            TagKind::User | TagKind::Application => self.0.send_gaps(&members),
        }
    }

    /// Has the session of connections read again. Another tag has none.
    pub(crate) fn receive_session(&self, tag: TagId) {
        let Some(local) = self.0.find(tag).filter(|local| local.kind == TagKind::Session) else { return };
        let members: Vec<Connection> = local.members().all().cloned().collect();
        self.0.notify_session(SessionSign::Changed, &members);
    }
}

impl TagsInner {
    fn notify_session(&self, sign: SessionSign, members: &[Connection]) {
        if let Some(observer) = self.session_observer.get() {
            observer(sign, members);
        }
    }

    fn send_gaps(self: &Arc<Self>, members: &[Connection]) {
        let mut is_to_start = false;
        for member in members {
            if !std::mem::replace(&mut member.own_tags().gap_due, true) {
                is_to_start |= self.gaps().add(member.clone(), 1);
            }
        }
        if is_to_start && self.send_some_gaps() {
            let tags = self.clone();
            spawn_steps(&self.parts.shutdown, move || tags.send_some_gaps());
        }
    }

    /// Sends the gaps that may be sent now; returns whether others wait.
    fn send_some_gaps(&self) -> bool {
        let now = Instant::now();
        let mut gaps = self.gaps();
        loop {
            let Some((member, most)) = gaps.next(now) else { return false };
            if most == 0 {
                return true;
            }
            member.own_tags().gap_due = false; // a gap from here on is another one
            if !member.has_queued(&self.gap_frame) {
                member.push(Frame::Text(self.gap_frame.clone()));
            }
            gaps.record(1, true);
        }
    }

    /// The connections that wait for a gap, each once.
    fn gaps(&self) -> MutexGuard<'_, GapPace<Connection>> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
