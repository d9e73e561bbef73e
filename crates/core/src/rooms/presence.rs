//! Announcements of joins and leaves, each delivered once.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tracing::warn;

use super::{Leaver, Rooms};
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

/// Members that one message announces at most. A frame of them has 27 KB if their ids are as long as they may be.
pub(super) const ANNOUNCED_AT_ONCE: usize = 200;

/// Messages of one announcement that are under way at once.
const IN_FLIGHT: usize = 32;

impl Rooms {
    /// Announces a leave, if the room wants that.
    pub(super) async fn announce_leave(&self, room: &Arc<str>, member: &Member) -> Result<(), BackendError> {
        self.announce(room, PresenceChange::Leave, std::slice::from_ref(member)).await
    }

    /// Announces joins or leaves, if the room wants that: with one message for many, unless a node of the last release is in
    /// the cluster.
    pub(super) async fn announce(
        &self,
        room: &Arc<str>,
        change: PresenceChange,
        members: &[Member],
    ) -> Result<(), BackendError> {
        if !self.has_presence(room) {
            return Ok(());
        }
        if let [member] = members {
            return self.publish_presence(single(room, change, member)).await;
        }
        let most = if self.bus().all_read_lists() { ANNOUNCED_AT_ONCE } else { 1 };
        let messages = members.chunks(most).map(|members| match members {
            [member] => single(room, change, member),
            many => list(room, change, many),
        });
        stream::iter(messages.map(Ok))
            .try_for_each_concurrent(IN_FLIGHT, |message| self.publish_presence(message))
            .await
    }

    async fn publish_presence(&self, message: Publication) -> Result<(), BackendError> {
        let room = message.room.clone();
        let published = self.bus().publish(message).await;
        published.inspect_err(|error| warn!(%error, room = &*room, "a presence message was not published"))
    }

    /// Delivers a join or a leave, unless that was done.
    pub(super) fn deliver_presence(&self, publication: &Publication, stamp: (u64, bool)) {
        let Some(local) = self.local(&publication.room) else { return };
        if let Some(member) = &publication.connection
            && !self.0.presence.record(&publication.room, member, stamp)
        {
            return;
        }
        self.deliver_to_all(&local, &publication.payload);
    }

    /// Delivers the joins or the leaves of a list that were not delivered yet.
    pub(super) fn deliver_list(&self, publication: &Publication, change: PresenceChange) {
        let room = &publication.room;
        let Some(local) = self.local(room) else { return };
        let Ok(changes) = serde_json::from_slice::<Vec<(&str, u64)>>(&publication.payload) else {
            return warn!(room = &**room, "a list of joins or leaves is unreadable");
        };
        let mut members: Vec<&str> = Vec::with_capacity(changes.len());
        for (id, joined_at) in changes {
            let Ok(member) = ConnectionId::parse(id) else { continue };
            if self.0.presence.record(room, &member, (joined_at, change == PresenceChange::Leave)) {
                members.push(id);
            }
        }
        for members in members.chunks(ANNOUNCED_AT_ONCE) {
            self.deliver_to_all(&local, &protocol::encode(&PresenceEvent::new(change, room, members)));
        }
    }

    /// Whether the room wants joins and leaves announced.
    pub(super) fn has_presence(&self, room: &str) -> bool {
        self.config().rooms.presence.iter().any(|name| **name == *room)
    }

    /// Runs the `after_leave` hooks of members whose node was reaped, `at_once` of them at a time, and announces their leaves. One
    /// whose hook waits delays none whose hook is done.
    pub(crate) async fn on_reaped(&self, reaped: &[ReapedMember], at_once: usize) -> Result<(), BackendError> {
        let run_hook = |member: &'_ ReapedMember| {
            let (room, id) = (Arc::from(&*member.room), member.id.clone());
            let member = Member { id: id.clone(), joined_at: member.joined_at };
            async move {
                self.run_left(&room, || Leaver::of_dead_node(id)).await;
                (room, member)
            }
        };
        let hooks = stream::iter(reaped.iter().map(run_hook)).buffer_unordered(at_once);
        let mut done = pin!(hooks.ready_chunks(ANNOUNCED_AT_ONCE));
        while let Some(left) = done.next().await {
            for (room, members) in by_room(left) {
                self.announce(&room, PresenceChange::Leave, &members).await?;
            }
        }
        Ok(())
    }
}

/// The members of each room.
pub(super) fn by_room(all: impl IntoIterator<Item = (Arc<str>, Member)>) -> HashMap<Arc<str>, Vec<Member>> {
    let mut rooms = HashMap::<_, Vec<Member>>::new();
    for (room, member) in all {
        rooms.entry(room).or_default().push(member);
    }
    rooms
}

/// The join or the leave of one member, with the frame that others receive.
fn single(room: &Arc<str>, change: PresenceChange, member: &Member) -> Publication {
    let kind = match change {
        PresenceChange::Join => PublicationKind::Joined(member.joined_at),
        PresenceChange::Leave => PublicationKind::Left(member.joined_at),
    };
    let payload = protocol::encode(&PresenceEvent::new(change, room, &[member.id.as_str()]));
    Publication { room: room.clone(), kind, connection: Some(member.id.clone()), payload }
}

/// The joins or the leaves of several members: `[["<id>",<time of the join>],…]`. Each node writes the frame, of those that
/// its members have not received.
fn list(room: &Arc<str>, change: PresenceChange, members: &[Member]) -> Publication {
    let kind = match change {
        PresenceChange::Join => PublicationKind::Joins,
        PresenceChange::Leave => PublicationKind::Leaves,
    };
    let listed: Vec<(&str, u64)> = members.iter().map(|member| (member.id.as_str(), member.joined_at)).collect();
    Publication { room: room.clone(), kind, connection: None, payload: protocol::encode(&listed) }
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
