//! What rooms hear of who comes and goes, and what becomes of them after a fault.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use super::listing::Listing;
use super::stays::Stay;
use super::{Rooms, Unwritten, payload};
use crate::backend::{BackendError, Departed, Joined, Left, Member, Message, MessageKind};
use crate::connection::{Connection, ConnectionId, Frame};
use crate::event::Event;
use crate::hooks::Leaving;
use crate::lease::{Restoring, unless_of_all};
use crate::metrics::bound_reached;
use crate::node::Generation;

/// How long listing a connection again waits for a join or a leave of it that is under way.
const RESTORE_WAIT: Duration = Duration::from_secs(5);

/// What members heard lately of who came and went, so that nothing is heard twice or after something later.
#[derive(Default)]
pub(super) struct Told(Mutex<Latest>);

#[derive(Default)]
struct Latest {
    known: HashMap<Who, Presence>,
    /// What became known, in order; of one that changed since, the last counts.
    order: VecDeque<(Who, Presence)>,
}

type Who = (Arc<str>, ConnectionId);

/// When it joined, and whether it has left: what is later is more.
type Presence = (u64, bool);

impl Told {
    /// A reaper tells 200 at a time, and its successor begins with those.
    const REMEMBERED: usize = 4096;

    pub(super) fn is_new(&self, room: &Arc<str>, who: &ConnectionId, presence: Presence) -> bool {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = &mut *latest;
        let who = (room.clone(), who.clone());
        match latest.known.entry(who.clone()) {
            Entry::Occupied(known) if *known.get() >= presence => return false,
            Entry::Occupied(mut known) => drop(known.insert(presence)),
            Entry::Vacant(place) => drop(place.insert(presence)),
        }
        latest.order.push_back((who, presence));
        if latest.order.len() > Self::REMEMBERED
            && let Some((who, presence)) = latest.order.pop_front()
            && latest.known.get(&who) == Some(&presence)
        {
            latest.known.remove(&who);
        }
        true
    }
}

impl Rooms {
    /// Tells a room who came, if it asked for that.
    pub(super) async fn tell_join(&self, stay: &Stay, who: &ConnectionId) {
        let told = self.tell_presence(&stay.room, who, "join", MessageKind::Joined(stay.joined_at)).await;
        told.unwrap_or_else(|error| unheard(&stay.room, &error));
    }

    /// Tells a room who left, if it asked for that.
    pub(super) async fn tell_leave(&self, room: &Arc<str>, member: &Member) -> Result<(), BackendError> {
        let told = self.tell_presence(room, &member.id, "leave", MessageKind::Left(member.joined_at)).await;
        told.inspect_err(|error| unheard(room, error))
    }

    /// Whether there are leaves to write or rooms to tell of their end, or messages were missed.
    pub(crate) fn need_mending(&self) -> bool {
        self.table().missed.load(Relaxed) || !self.unwritten().is_empty() || !self.untold().is_empty()
    }

    /// Messages were missed.
    pub(crate) fn misses(&self) {
        self.table().missed.store(true, Relaxed);
    }

    /// Whether messages were missed since this was asked last.
    pub(crate) fn takes_missed(&self) -> bool {
        self.table().missed.swap(false, Relaxed)
    }

    /// Writes the leaves that could not be written when they happened.
    pub(crate) async fn settle_leaves(&self) -> Result<(), BackendError> {
        loop {
            let Some(leave) = self.unwritten().last().cloned() else { return Ok(()) };
            let left = self.node.room_store().leave(&leave.room, &leave.member, self.node.generation()).await;
            let is_to_tell = match left {
                Ok(Left::Now) => leave.heard.is_some(),
                // It may have been this node, whose answer was lost: who heard it from a reaper drops it.
                Ok(Left::Before(life)) => life.is_some() && life == leave.heard,
                Err(error) => unless_of_all(error, &leave.room).map(|()| leave.heard.is_some())?,
            };
            if is_to_tell {
                self.tell_leave(&leave.room, &leave.member).await?;
            }
            let mut unwritten = self.unwritten();
            if let Some(at) = unwritten.iter().rposition(|other| *other == leave) {
                unwritten.swap_remove(at);
            }
        }
    }

    pub(super) fn unwritten(&self) -> MutexGuard<'_, Vec<Unwritten>> {
        self.table().unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell_presence(
        &self,
        room: &Arc<str>,
        who: &ConnectionId,
        event: &'static str,
        kind: MessageKind,
    ) -> Result<(), BackendError> {
        if !self.node.config().rooms.presence.iter().any(|name| **name == **room) {
            return Ok(());
        }
        let payload = payload::presence(room, who.as_str(), event);
        self.node.bus().publish(Message { room: room.clone(), kind, who: Some(who.clone()), payload }).await
    }

    /// Tells of a member whose node died: the hooks, then the room.
    pub(crate) async fn departed(&self, departed: &Departed) -> Result<(), BackendError> {
        let room: Arc<str> = departed.room.as_str().into();
        self.ask_leave_hooks(&departed.id, &room, Leaving::NodeDied).await;
        let member = Member { id: departed.id.clone(), joined_at: departed.joined_at };
        self.tell_leave(&room, &member).await
    }

    /// Tells every member on this node that messages may have been missed.
    pub(crate) fn gap(&self) {
        let rooms: Vec<_> = {
            let rooms = self.table().rooms.read().unwrap_or_else(PoisonError::into_inner);
            rooms.iter().map(|(room, local)| (room.clone(), local.clone())).collect()
        };
        for (room, local) in rooms {
            let frame = payload::gap(&room);
            for member in local.members().values() {
                member.push(Frame::Text(frame.clone()));
            }
            self.node.tell(&Event::Gap(room));
        }
        self.node.connections().all().iter().for_each(Connection::all_spoken);
    }

    /// Lists a connection again in all rooms it is in, as one of the node `of`. One that a hook holds up is left to the next
    /// pass, and holds up none of the others.
    pub(crate) async fn restore(
        &self,
        connection: &Connection,
        of: Generation,
        why: Restoring,
    ) -> Result<(), BackendError> {
        if connection.joined().ended {
            return Ok(()); // it is being taken off all lists
        }
        let Ok(_alone) = timeout(RESTORE_WAIT, connection.membership().lock()).await else {
            bound_reached("restore_wait");
            self.node.lease().is_to_restore(why);
            return Ok(());
        };
        let stays: Vec<Stay> = connection.joined().standing().cloned().collect();
        for stay in stays {
            self.restore_in(connection, &stay, of, why).await.or_else(|error| unless_of_all(error, &stay.room))?;
        }
        Ok(())
    }

    /// A room that is gone is made again only if all was `lost`: otherwise somebody destroyed it, also where there is a new
    /// one of its name by now. A member of a node that was renamed joins anew: others may have heard it leave, and its
    /// next leave is another one.
    async fn restore_in(
        &self,
        connection: &Connection,
        stay: &Stay,
        of: Generation,
        why: Restoring,
    ) -> Result<(), BackendError> {
        let room = &stay.room;
        let joined_at = stay.joined_at.max(why.renamed_ms);
        // Before it is written: a leave must find the join that may be listed, whatever becomes of the answer.
        connection.joined().begins_anew(room, joined_at, stay.life);
        if why.lost {
            self.node.room_store().add(room, self.node.config().rooms.max_rooms).await?;
        }
        let member = Member { id: connection.id().clone(), joined_at };
        let is_another = |life| !why.lost && life != stay.life;
        match self.node.room_store().join(room, &member, of).await? {
            Joined::New(life) | Joined::Anew(life) if is_another(life) => {
                Listing::unheard(self, room, member).end(life).await;
                self.ends_with_room(connection, stay).await;
            }
            Joined::Already(life) if is_another(life) => self.ends_with_room(connection, stay).await,
            Joined::New(life) => {
                connection.joined().begins_anew(room, joined_at, life);
                self.tell_join(&Stay::new(room.clone(), joined_at, life), connection.id()).await;
            }
            Joined::Anew(life) => connection.joined().begins_anew(room, joined_at, life),
            Joined::Already(_) => {}
            Joined::NoRoom => self.ends_with_room(connection, stay).await,
        }
        Ok(())
    }

    /// A stay is over because its room was destroyed, which nobody heard.
    async fn ends_with_room(&self, connection: &Connection, stay: &Stay) {
        self.exit(connection, stay);
        self.ask_leave_hooks(connection.id(), &stay.room, Leaving::RoomDestroyed(connection)).await;
        self.node.tell(&Event::Left(stay.room.clone(), connection.clone()));
    }
}

fn unheard(room: &str, error: &BackendError) {
    warn!(%error, room, "a presence message was not published");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_who_comes_and_goes_nothing_is_heard_twice_or_after_something_later() {
        let told = Told::default();
        let (room, who): (Arc<str>, _) = ("lobby".into(), ConnectionId::parse("a-1").unwrap());
        let told_of = |joined_at, left| told.is_new(&room, &who, (joined_at, left));
        assert!(told_of(1, false) && !told_of(1, false));
        assert!(told_of(1, true) && !told_of(1, true));
        assert!(!told_of(1, false), "it has left");
        assert!(told_of(3, false));
        assert!(!told_of(2, false) && !told_of(2, true) && !told_of(1, true), "it came again since");
        assert!(told_of(3, true));
        assert!(told_of(5, true), "the join was not heard");
    }

    #[test]
    fn what_is_remembered_of_presence_is_bounded_and_the_latest_stays() {
        let told = Told::default();
        let (room, who): (Arc<str>, _) = ("lobby".into(), ConnectionId::parse("a-1").unwrap());
        assert!(told.is_new(&room, &who, (1, false)));
        for number in 0..Told::REMEMBERED as u64 - 1 {
            let other = ConnectionId::parse(&format!("b-{number}")).unwrap();
            assert!(told.is_new(&room, &other, (1, false)));
        }
        assert!(told.is_new(&room, &who, (1, true)));
        for number in 0..200 {
            let other = ConnectionId::parse(&format!("c-{number}")).unwrap();
            assert!(told.is_new(&room, &other, (1, false)));
        }
        assert!(!told.is_new(&room, &who, (1, true)), "it was told just now");
        let latest = told.0.lock().unwrap();
        assert!(latest.known.len() <= Told::REMEMBERED && latest.order.len() <= Told::REMEMBERED);
    }
}
