//! Gaps: the notice to members that messages of their room may have been missed.
//!
//! Between the last frame of the room before a gap and the first one after it messages may be missing, presence
//! included, and nowhere else.
//!
//! Many gaps are paced, room by room: see [`crate::gap_pace`].

use std::sync::{Arc, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::{LocalRoom, Rooms};
use crate::connection::Connection;
use crate::event::Event;
use crate::gap_pace::{GapPace, spawn_steps};

impl Rooms {
    /// Sends the members of a room on this node the notice that messages may have been missed: at once, or paced, but
    /// before any later frame of the room. A member that leaves before gets none.
    pub(crate) fn send_gap(&self, room: &Arc<str>) {
        let Some(local) = self.local(room) else { return };
        let due = local.members().begin_gap(room);
        if let Some(due) = due
            && self.gaps().add(local, due)
            && self.send_some_gaps()
        {
            let rooms = self.clone();
            spawn_steps(&self.0.parts.shutdown, move || rooms.send_some_gaps());
        }
        self.notify(&Event::RoomGap(room.clone()));
    }

    /// Sends the gaps that may be sent now; returns whether others wait.
    fn send_some_gaps(&self) -> bool {
        let now = Instant::now();
        loop {
            let Some((local, most)) = self.gaps().next(now) else { return false };
            if most == 0 {
                return true;
            }
            let (sent, is_done) = local.members().send_paced_gap(most);
            self.gaps().record(sent, is_done);
        }
    }

    /// The rooms of which members wait for a gap, each once: at most all rooms with members here.
    fn gaps(&self) -> MutexGuard<'_, GapPace<Arc<LocalRoom>>> {
        self.0.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the count of messages in flight for all connections: they may have been missed.
    pub(crate) fn reset_in_flight(&self) {
        self.0.parts.registry.all().iter().for_each(Connection::reset_in_flight);
    }
}
