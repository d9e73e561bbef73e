//! The members of one room on this node, and the frames that all of them receive.
//!
//! A gap in a large room is not sent to all members in one step, see [`super::gap`]. The members that still wait for it are
//! the first ones of the map, and no later frame of the room comes before it: whatever is sent to all completes it first.

use bytes::Bytes;
use indexmap::IndexMap;

use crate::connection::broadcast::{PacedWakes, push_to_all};
use crate::connection::{Connection, Frame};
use crate::id::ConnectionId;
use crate::protocol::{self, GapEvent};

/// The members of one room on this node.
#[derive(Default)]
pub(super) struct LocalMembers {
    all: IndexMap<ConnectionId, Connection>,
    /// The number of frames for the members so far.
    delivered: u64,
    gap: Option<LastGap>,
    /// The first so many members wait for the last gap.
    due: usize,
    /// Whether the room is among those whose gaps are being sent.
    is_paced: bool,
}

/// The last gap of the room.
struct LastGap {
    frame: Bytes,
    /// The number of frames for the members before it.
    delivered: u64,
    /// No other frame came between it and the one before.
    is_repeated: bool,
}

impl LocalMembers {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Connection> {
        self.all.values()
    }

    pub(super) fn contains(&self, member: &Connection) -> bool {
        self.all.get(member.id()) == Some(member)
    }

    pub(super) fn insert(&mut self, member: &Connection) {
        self.all.insert(member.id().clone(), member.clone());
    }

    /// Removes a member; one that joined again under the same id since is another.
    pub(super) fn remove(&mut self, member: &Connection) {
        let Some((at, _, found)) = self.all.get_full(member.id()) else { return };
        if found != member {
            return;
        }
        if at < self.due {
            // The last of those that wait takes its place, and the last of all the place of that one.
            self.due -= 1;
            self.all.swap_indices(at, self.due);
            self.all.swap_remove_index(self.due);
        } else {
            self.all.swap_remove_index(at);
        }
    }

    /// Queues a frame for all members, behind the gap that they wait for.
    #[must_use = "the last of very many members are woken by it"]
    pub(super) fn deliver(&mut self, frame: &Bytes) -> Option<PacedWakes> {
        self.begin_frame();
        push_to_all(self.all.values(), self.all.len(), frame)
    }

    /// Completes the gap that members wait for, and counts a frame that comes next.
    pub(super) fn begin_frame(&mut self) {
        self.queue_gap(usize::MAX, |member| member.wake());
        self.delivered += 1;
    }

    /// Has all members wait for a gap. Returns how many they are, unless the room is among those whose gaps are being sent.
    pub(super) fn begin_gap(&mut self, room: &str) -> Option<usize> {
        let delivered = self.delivered;
        let gap = self.gap.take().map(|last| LastGap { is_repeated: last.delivered == delivered, delivered, ..last });
        let anew = || LastGap { frame: protocol::encode(&GapEvent::new(room)), delivered, is_repeated: false };
        self.gap = Some(gap.unwrap_or_else(anew));
        self.due = self.all.len();
        (!std::mem::replace(&mut self.is_paced, true)).then_some(self.due)
    }

    /// Queues the gap for at most so many of the members that wait for it. Returns how many those were, and whether no other
    /// waits: the room is no longer among those whose gaps are being sent. The caller is to wake those that are `idle`.
    pub(super) fn queue_paced_gap(&mut self, most: usize, idle: &mut Vec<Connection>) -> (usize, bool) {
        let queued = self.queue_gap(most, |member| idle.push(member.clone()));
        self.is_paced = self.due > 0;
        (queued, !self.is_paced)
    }

    /// A member whose last frame of the room is a gap, not written yet, gets no second one: a client that reads nothing
    /// while Redis comes and goes must not be closed for it.
    fn queue_gap(&mut self, most: usize, mut on_idle: impl FnMut(&Connection)) -> usize {
        let Some(gap) = &self.gap else { return 0 };
        let left = self.due.saturating_sub(most);
        for (_, member) in &self.all[left..self.due] {
            if (!gap.is_repeated || !member.has_queued(&gap.frame))
                && member.queue_and_check_idle(Frame::Text(gap.frame.clone()))
            {
                on_idle(member);
            }
            member.reset_in_flight();
        }
        let queued = self.due - left;
        self.due = left;
        queued
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::testing::connection;
    use crate::connection::{OutboxItem, OutboxLimit};

    fn member(number: usize) -> Connection {
        connection(number, OutboxLimit { frames: 64, bytes: 10_000 })
    }

    fn frames(member: &Connection) -> Vec<String> {
        let text = || match member.next() {
            OutboxItem::Frame(Frame::Text(text)) => Some(String::from_utf8_lossy(&text).into_owned()),
            _ => None,
        };
        std::iter::from_fn(text).map(|text| if text.contains("gap") { "gap".to_owned() } else { text }).collect()
    }

    fn room(count: usize) -> (LocalMembers, Vec<Connection>) {
        let (mut members, all) = (LocalMembers::default(), (0..count).map(member).collect::<Vec<_>>());
        all.iter().for_each(|member| members.insert(member));
        (members, all)
    }

    #[test]
    fn a_gap_is_the_last_frame_until_another_one_is_delivered() {
        let (mut members, all) = room(1);
        for _ in 0..2 {
            members.begin_gap("lobby");
            assert_eq!(members.queue_paced_gap(9, &mut Vec::new()), (1, true));
        }
        assert!(members.deliver(&Bytes::from_static(b"m")).is_none());
        for _ in 0..2 {
            members.begin_gap("lobby");
            members.queue_paced_gap(9, &mut Vec::new());
        }
        assert_eq!(frames(&all[0]), ["gap", "m", "gap"]);
    }

    #[test]
    fn no_frame_of_a_room_overtakes_a_gap_that_is_being_sent() {
        let (mut members, all) = room(5);
        assert_eq!(members.begin_gap("lobby"), Some(5));
        assert_eq!(members.queue_paced_gap(2, &mut Vec::new()), (2, false));
        assert_eq!(members.begin_gap("lobby"), None, "the room is being sent one");
        assert_eq!(members.queue_paced_gap(1, &mut Vec::new()), (1, false));
        let late = member(5);
        members.insert(&late);
        assert!(members.deliver(&Bytes::from_static(b"m")).is_none());
        assert_eq!(members.queue_paced_gap(9, &mut Vec::new()), (0, true));
        assert_eq!(members.begin_gap("lobby"), Some(6));
        for member in &all {
            assert_eq!(frames(member), ["gap", "m"]);
        }
        assert_eq!(frames(&late), ["m"], "it joined after the gap");
    }

    #[test]
    fn all_members_but_those_that_leave_meanwhile_are_sent_one_gap() {
        for leaves in 0..8 {
            for sent in 0..8 {
                let (mut members, all) = room(8);
                members.begin_gap("lobby");
                members.queue_paced_gap(sent, &mut Vec::new());
                let late = member(8);
                members.insert(&late);
                members.remove(&all[leaves]);
                members.remove(&all[leaves]);
                members.queue_paced_gap(9, &mut Vec::new());
                assert_eq!((members.len(), frames(&late).len()), (8, 0));
                for (number, member) in all.iter().enumerate().filter(|(number, _)| *number != leaves) {
                    assert_eq!(frames(member), ["gap"], "{number}, after {leaves} left and {sent} were sent it");
                }
            }
        }
    }
}
