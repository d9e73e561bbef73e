//! Announcements of joins and leaves, each delivered once.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;

use super::{LeaveCause, Rooms};
use crate::backend::{BackendError, Member, Publication, PublicationKind, ReapedMember};
use crate::id::ConnectionId;
use crate::protocol::{self, PresenceChange, PresenceEvent};

/// The presence changes that members received lately, so that none is delivered twice or after a later one.
#[derive(Default)]
pub(super) struct PresenceLog(Mutex<LatestPresence>);

#[derive(Default)]
struct LatestPresence {
    known: HashMap<MemberKey, PresenceStamp>,
    /// The changes in the order in which they were received; of a member that changed since, the last counts.
    order: VecDeque<(MemberKey, PresenceStamp)>,
}

type MemberKey = (Arc<str>, ConnectionId);

/// When the member joined, and whether it has left: later changes compare greater.
type PresenceStamp = (u64, bool);

impl PresenceLog {
    /// A reaper announces 200 leaves at a time, and its successor repeats those.
    const REMEMBERED: usize = 4096;

    /// Records a change; `false` if it, or a later one of the same member, was recorded before.
    pub(super) fn record(&self, room: &Arc<str>, member: &ConnectionId, stamp: PresenceStamp) -> bool {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = &mut *latest;
        let key = (room.clone(), member.clone());
        match latest.known.entry(key.clone()) {
            Entry::Occupied(known) if *known.get() >= stamp => return false,
            Entry::Occupied(mut known) => drop(known.insert(stamp)),
            Entry::Vacant(vacant) => drop(vacant.insert(stamp)),
        }
        latest.order.push_back((key, stamp));
        if latest.order.len() > Self::REMEMBERED
            && let Some((key, stamp)) = latest.order.pop_front()
            && latest.known.get(&key) == Some(&stamp)
        {
            latest.known.remove(&key);
        }
        true
    }
}

impl Rooms {
    /// Announces a join, if the room wants that.
    pub(super) async fn announce_join(&self, room: &Arc<str>, member: &Member) -> Result<(), BackendError> {
        self.announce(room, &member.id, PresenceChange::Join, PublicationKind::Joined(member.joined_at)).await
    }

    /// Announces a leave, if the room wants that.
    pub(super) async fn announce_leave(&self, room: &Arc<str>, member: &Member) -> Result<(), BackendError> {
        self.announce(room, &member.id, PresenceChange::Leave, PublicationKind::Left(member.joined_at)).await
    }

    async fn announce(
        &self,
        room: &Arc<str>,
        member: &ConnectionId,
        change: PresenceChange,
        kind: PublicationKind,
    ) -> Result<(), BackendError> {
        if !self.has_presence(room) {
            return Ok(());
        }
        let payload = protocol::encode(&PresenceEvent::new(change, room, member.as_str()));
        let connection = Some(member.clone());
        let published = self.bus().publish(Publication { room: room.clone(), kind, connection, payload }).await;
        published.inspect_err(|error| warn!(%error, room = &**room, "a presence message was not published"))
    }

    /// Whether the room wants joins and leaves announced.
    pub(super) fn has_presence(&self, room: &str) -> bool {
        self.config().rooms.presence.iter().any(|name| **name == *room)
    }

    /// Runs the `left` hooks of a member whose node was reaped, then announces its leave.
    pub(crate) async fn on_reaped(&self, reaped: &ReapedMember) -> Result<(), BackendError> {
        let room: Arc<str> = reaped.room.as_str().into();
        self.run_left(&room, &reaped.id, LeaveCause::NodeDied).await;
        let member = Member { id: reaped.id.clone(), joined_at: reaped.joined_at };
        self.announce_leave(&room, &member).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_recorded_once_and_never_after_a_later_one() {
        let log = PresenceLog::default();
        let (room, member): (Arc<str>, _) = ("lobby".into(), ConnectionId::parse("a-1").unwrap());
        let records = |joined_at, left| log.record(&room, &member, (joined_at, left));
        assert!(records(1, false) && !records(1, false));
        assert!(records(1, true) && !records(1, true));
        assert!(!records(1, false), "it has left");
        assert!(records(3, false));
        assert!(!records(2, false) && !records(2, true) && !records(1, true), "it joined again since");
        assert!(records(3, true));
        assert!(records(5, true), "its join was never received");
    }

    #[test]
    fn the_log_is_bounded_and_keeps_the_latest_changes() {
        let log = PresenceLog::default();
        let (room, member): (Arc<str>, _) = ("lobby".into(), ConnectionId::parse("a-1").unwrap());
        assert!(log.record(&room, &member, (1, false)));
        for number in 0..PresenceLog::REMEMBERED as u64 - 1 {
            let other = ConnectionId::parse(&format!("b-{number}")).unwrap();
            assert!(log.record(&room, &other, (1, false)));
        }
        assert!(log.record(&room, &member, (1, true)));
        for number in 0..200 {
            let other = ConnectionId::parse(&format!("c-{number}")).unwrap();
            assert!(log.record(&room, &other, (1, false)));
        }
        assert!(!log.record(&room, &member, (1, true)), "it was recorded just now");
        let latest = log.0.lock().unwrap();
        assert!(latest.known.len() <= PresenceLog::REMEMBERED && latest.order.len() <= PresenceLog::REMEMBERED);
    }
}
