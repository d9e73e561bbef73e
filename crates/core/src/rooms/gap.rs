//! Gaps: the notice to members that messages of their room may have been missed.
//!
//! Between the last frame of the room before a gap and the first one after it messages may be missing, presence
//! included, and nowhere else. The gap that rooms with presence get some time after a loss of data also stands for leaves
//! since the loss that were never announced: it has members read the list again.
//!
//! Many gaps are paced: see [`crate::gap_pace`]. They are queued room by room, and the sockets woken afterwards, so that one in
//! many rooms writes all of its gaps at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{LocalRoom, Rooms};
use crate::connection::Connection;
use crate::event::Event;
use crate::gap_pace::{GapPace, spawn_steps};

/// How long the first socket waits at most for the gaps of other rooms.
const QUEUED_FOR: Duration = Duration::from_millis(500);

/// The gaps of this node that are being sent.
pub(super) struct RoomGaps {
    /// The rooms of which members wait for a gap, each once: at most all rooms with members here.
    rooms: GapPace<Arc<LocalRoom>>,
    /// The connections that have gaps to write and do not know it yet: each once, but for those that wrote meanwhile.
    idle: GapPace<Connection>,
    /// Since when they are being sent.
    began: Option<Instant>,
}

impl Default for RoomGaps {
    fn default() -> Self {
        Self { rooms: GapPace::of_queueing(), idle: GapPace::default(), began: None }
    }
}

/// A step of their sending.
enum GapStep {
    /// To queue at most so many gaps of a room.
    Queue(Arc<LocalRoom>, usize),
    /// To wake a connection.
    Wake(Connection),
    /// To wait for the next time.
    Wait,
    /// None is left.
    Done,
}

impl RoomGaps {
    /// Adds a room. Returns whether the caller is to start the sending.
    fn add(&mut self, room: Arc<LocalRoom>, due: usize) -> bool {
        self.rooms.add(room, due);
        let is_running = self.began.is_some();
        self.began = self.began.or_else(|| Some(Instant::now()));
        !is_running
    }

    fn next(&mut self, now: Instant) -> GapStep {
        if let Some((room, most)) = self.rooms.next(now).filter(|(_, most)| *most > 0) {
            return GapStep::Queue(room, most);
        }
        let is_complete = self.rooms.is_empty() || self.began.is_some_and(|began| now > began + QUEUED_FOR);
        if !is_complete {
            return GapStep::Wait;
        }
        match self.idle.next(now) {
            Some((connection, most)) if most > 0 => {
                self.idle.record(1, true);
                GapStep::Wake(connection)
            }
            None if self.rooms.is_empty() => {
                self.began = None;
                GapStep::Done
            }
            Some(_) | None => GapStep::Wait,
        }
    }

    /// Counts gaps of the first room that were queued, which is done if none of it waits, and the connections that are to be woken
    /// for them.
    fn record(&mut self, queued: usize, is_done: bool, idle: Vec<Connection>) {
        self.rooms.record(queued, is_done);
        for connection in idle {
            self.idle.add(connection, 1);
        }
    }
}

/// Does what may be done now; returns whether more is left.
fn send_some(gaps: &Mutex<RoomGaps>, now: Instant) -> bool {
    loop {
        let step = lock(gaps).next(now);
        match step {
            GapStep::Queue(room, most) => {
                let mut idle = Vec::new();
                let (queued, is_done) = room.members().queue_paced_gap(most, &mut idle);
                lock(gaps).record(queued, is_done, idle);
            }
            GapStep::Wake(connection) => connection.wake(),
            GapStep::Wait => return true,
            GapStep::Done => return false,
        }
    }
}

fn lock(gaps: &Mutex<RoomGaps>) -> MutexGuard<'_, RoomGaps> {
    gaps.lock().unwrap_or_else(PoisonError::into_inner)
}

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

    /// Sends one to the members of each room with presence: their lists of members are to be read again.
    pub(crate) fn send_presence_gaps(&self) {
        self.config().rooms.presence.iter().for_each(|room| self.send_gap(&Arc::from(room.as_str())));
    }

    /// Sends the gaps that may be sent now; returns whether others wait.
    fn send_some_gaps(&self) -> bool {
        send_some(&self.0.gaps, Instant::now())
    }

    fn gaps(&self) -> MutexGuard<'_, RoomGaps> {
        lock(&self.0.gaps)
    }

    /// Ends the count of messages in flight for all connections: they may have been missed.
    pub(crate) fn reset_in_flight(&self) {
        self.0.parts.registry.all().iter().for_each(Connection::reset_in_flight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::testing::{CountedWakes, connection};
    use crate::connection::{OutboxItem, OutboxLimit};

    /// Rooms with the same members, and how often those were woken.
    fn rooms(count: usize, members: usize) -> (Vec<Arc<LocalRoom>>, Vec<Connection>, Arc<CountedWakes>) {
        let woken = Arc::new(CountedWakes::default());
        let rooms: Vec<Arc<LocalRoom>> = std::iter::repeat_with(Arc::default).take(count).collect();
        let member = |number: usize| {
            let member = connection(number, OutboxLimit { frames: 1024, bytes: 100_000 });
            member.register(&woken.waker());
            rooms.iter().for_each(|room| room.members().insert(&member));
            member
        };
        let members = (0..members).map(member).collect();
        (rooms, members, woken)
    }

    fn begin(gaps: &Mutex<RoomGaps>, rooms: &[Arc<LocalRoom>]) {
        for (number, room) in rooms.iter().enumerate() {
            let due = room.members().begin_gap(&format!("room{number}")).unwrap();
            assert_eq!(lock(gaps).add(room.clone(), due), number == 0, "one task sends");
        }
    }

    /// Sends all of them, a millisecond a step; returns how many steps that took.
    fn send_all(gaps: &Mutex<RoomGaps>) -> u64 {
        let (start, mut steps) = (Instant::now(), 0);
        while send_some(gaps, start + Duration::from_millis(steps)) {
            steps += 1;
            assert!(steps < 10_000);
        }
        steps
    }

    #[test]
    fn a_few_members_are_woken_at_once() {
        let (rooms, members, woken) = rooms(3, 20);
        let gaps = Mutex::default();
        begin(&gaps, &rooms);
        assert_eq!(send_all(&gaps), 0);
        assert_eq!(woken.count(), members.len());
    }

    #[test]
    fn a_socket_in_many_rooms_is_woken_once_for_all_of_them() {
        let (rooms, members, woken) = rooms(10, 5_000);
        let gaps = Mutex::default();
        begin(&gaps, &rooms);
        let steps = send_all(&gaps);
        assert!((40..=120).contains(&steps), "{steps} ms");
        assert_eq!(woken.count(), members.len());
        for member in &members {
            let frames = std::iter::from_fn(|| matches!(member.next(), OutboxItem::Frame(_)).then_some(()));
            assert_eq!(frames.count(), rooms.len());
        }
        begin(&gaps, &rooms[..1]); // the sending has ended
    }

    #[test]
    fn a_socket_does_not_wait_for_other_rooms_without_end() {
        let (rooms, members, _) = rooms(1, 1);
        let mut gaps = RoomGaps::default();
        gaps.add(rooms[0].clone(), usize::MAX);
        let mut idle = members;
        let start = Instant::now();
        let first_woken = (0..1000).find(|ms| {
            let now = start + Duration::from_millis(*ms);
            loop {
                match gaps.next(now) {
                    GapStep::Queue(_, most) => gaps.record(most, false, std::mem::take(&mut idle)),
                    GapStep::Wake(_) => return true,
                    GapStep::Wait => return false,
                    GapStep::Done => panic!("the room waits"),
                }
            }
        });
        let first_woken = Duration::from_millis(first_woken.expect("it is woken"));
        assert!((QUEUED_FOR..QUEUED_FOR + Duration::from_millis(100)).contains(&first_woken), "{first_woken:?}");
    }
}
