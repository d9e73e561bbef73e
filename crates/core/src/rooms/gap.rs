//! Gaps: the notice to members that messages of their room may have been missed.
//!
//! Between the last frame of the room before a gap and the first one after it messages may be missing, presence
//! included, and nowhere else.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::Rooms;
use crate::connection::{Connection, Frame};
use crate::event::Event;
use crate::protocol::{self, GapEvent};

/// The last gap of a room on this node, and the frames after it.
#[derive(Default)]
pub(super) struct GapLog {
    /// The number of frames for the members so far.
    delivered: AtomicU64,
    /// The last gap, and how many frames came before it.
    last: Mutex<Option<(Bytes, u64)>>,
}

impl GapLog {
    /// Counts a frame for the members.
    pub(super) fn record_delivery(&self) {
        self.delivered.fetch_add(1, Relaxed);
    }

    /// The frame of the next gap, and whether it is the last frame of the room, for those to whom it was sent.
    fn next(&self, room: &str) -> (Bytes, bool) {
        let delivered = self.delivered.load(Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((frame, before)) => {
                let (frame, is_last) = (frame.clone(), *before == delivered);
                *last = Some((frame.clone(), delivered));
                (frame, is_last)
            }
            None => {
                let frame = protocol::encode(&GapEvent::new(room));
                *last = Some((frame.clone(), delivered));
                (frame, false)
            }
        }
    }
}

impl Rooms {
    /// Sends the members of a room on this node the notice that messages may have been missed. A member whose last frame
    /// of the room is such a notice, not written yet, gets no second one: a client that reads nothing while Redis comes
    /// and goes must not be closed for it.
    pub(crate) fn send_gap(&self, room: &Arc<str>) {
        let Some(local) = self.local(room) else { return };
        let (frame, is_last) = local.gaps.next(room);
        for member in local.members().values() {
            if !is_last || !member.has_queued(&frame) {
                member.push(Frame::Text(frame.clone()));
            }
            member.reset_in_flight();
        }
        self.notify(&Event::RoomGap(room.clone()));
    }

    /// Ends the count of messages in flight for all connections: they may have been missed.
    pub(crate) fn reset_in_flight(&self) {
        self.0.parts.registry.all().iter().for_each(Connection::reset_in_flight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_the_last_frame_until_another_one_is_delivered() {
        let log = GapLog::default();
        let (first, is_last) = log.next("lobby");
        assert!(!is_last);
        let (second, is_last) = log.next("lobby");
        assert!(is_last && first.as_ptr() == second.as_ptr());
        log.record_delivery();
        assert!(!log.next("lobby").1);
        assert!(log.next("lobby").1);
    }
}
