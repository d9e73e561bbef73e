//! What rooms hear of who comes and goes, and what becomes of them after a fault.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::warn;

use super::stays::Stay;
use super::{Rooms, payload};
use crate::backend::{BackendError, Departed, Joined, Member, Message, MessageKind};
use crate::connection::{Connection, ConnectionId, Frame};
use crate::event::Event;
use crate::hooks::Leaving;
use crate::lease::{Restoring, unless_of_all};
use crate::node::Generation;

/// Leaves that wait for a backend that is away; beyond, a member stays listed until its node ends, which is counted.
const UNWRITTEN: usize = 65_536;

/// Leaves that members heard of lately, so that one that is told again, because who told it died, is heard once.
#[derive(Default)]
pub(super) struct Told(Mutex<Latest>);

#[derive(Default)]
struct Latest {
    known: HashSet<Leave>,
    order: VecDeque<Leave>,
}

type Leave = (Arc<str>, ConnectionId, u64);

impl Told {
    /// A reaper tells 200 at a time, and its successor begins with those.
    const REMEMBERED: usize = 4096;

    pub(super) fn is_new(&self, room: &Arc<str>, who: &ConnectionId, joined_at: u64) -> bool {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let leave = (room.clone(), who.clone(), joined_at);
        if !latest.known.insert(leave.clone()) {
            return false;
        }
        latest.order.push_back(leave);
        if latest.order.len() > Self::REMEMBERED
            && let Some(oldest) = latest.order.pop_front()
        {
            latest.known.remove(&oldest);
        }
        true
    }
}

impl Rooms {
    /// Tells a room who came, if it asked for that.
    pub(super) async fn tell_join(&self, room: &Arc<str>, who: &ConnectionId) {
        self.tell_presence(room, who, "join", MessageKind::Notice).await.unwrap_or_else(|error| unheard(room, &error));
    }

    /// Tells a room who left, if it asked for that.
    pub(super) async fn tell_leave(&self, room: &Arc<str>, who: &ConnectionId) {
        self.tell_presence(room, who, "leave", MessageKind::Notice).await.unwrap_or_else(|error| unheard(room, &error));
    }

    /// Takes a member off the list and tells the room; later, if the backend is away.
    pub(super) async fn write_leave(&self, room: &Arc<str>, member: Member) {
        match self.node.room_store().leave(room, &member, self.node.generation()).await {
            Ok(_) => self.tell_leave(room, &member.id).await,
            Err(error) => self.write_later(room, member, &error),
        }
    }

    /// Takes a member off the list that nobody heard of; later, if the backend is away.
    pub(super) async fn unlist(&self, room: &Arc<str>, member: Member) {
        if let Err(error) = self.node.room_store().leave(room, &member, self.node.generation()).await {
            self.write_later(room, member, &error);
        }
    }

    fn write_later(&self, room: &Arc<str>, member: Member, error: &BackendError) {
        let mut unwritten = self.unwritten();
        if unwritten.len() < UNWRITTEN {
            return unwritten.push((room.clone(), member));
        }
        metrics::counter!("phalanx_room_leaves_lost_total").increment(1);
        warn!(%error, room = &**room, id = %member.id, "a member that left stays listed until this node ends");
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
            let Some((room, member)) = self.unwritten().last().cloned() else { return Ok(()) };
            let left = self.node.room_store().leave(&room, &member, self.node.generation()).await;
            left.map(drop).or_else(|error| unless_of_all(error, &room))?;
            self.unwritten().retain(|(other, written)| *other != room || *written != member);
            self.tell_leave(&room, &member.id).await;
        }
    }

    fn unwritten(&self) -> MutexGuard<'_, Vec<(Arc<str>, Member)>> {
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
        self.tell_presence(&room, &departed.id, "leave", MessageKind::Left(departed.joined_at)).await
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

    /// Lists a connection again in all rooms it is in, as one of the node `of`.
    pub(crate) async fn restore(
        &self,
        connection: &Connection,
        of: Generation,
        why: Restoring,
    ) -> Result<(), BackendError> {
        let _alone = connection.membership().lock().await;
        let stays: Vec<Stay> = connection.joined().standing().cloned().collect();
        for stay in stays {
            self.restore_in(connection, &stay, of, why).await.or_else(|error| unless_of_all(error, &stay.room))?;
        }
        Ok(())
    }

    /// A room that is gone is made again only if all was `lost`: otherwise somebody destroyed it. A member of a node that
    /// was renamed joins anew: others may have heard it leave, and its next leave is another one.
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
        match self.node.room_store().join(room, &member, of).await? {
            Joined::New(life) => {
                connection.joined().begins_anew(room, joined_at, life);
                self.tell_join(room, connection.id()).await;
            }
            Joined::Anew(life) => connection.joined().begins_anew(room, joined_at, life),
            Joined::Already => {}
            Joined::NoRoom => {
                self.exit(connection, stay);
                self.ask_leave_hooks(connection.id(), room, Leaving::RoomDestroyed(connection)).await;
                self.node.tell(&Event::Left(room.clone(), connection.clone()));
            }
        }
        Ok(())
    }
}

fn unheard(room: &str, error: &BackendError) {
    warn!(%error, room, "a presence message was not published");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leave_is_heard_once_and_so_is_the_next_one_of_the_same_member() {
        let told = Told::default();
        let (room, who): (Arc<str>, _) = ("lobby".into(), ConnectionId::parse("a-1").unwrap());
        assert!(told.is_new(&room, &who, 1));
        assert!(!told.is_new(&room, &who, 1));
        assert!(told.is_new(&room, &who, 2));
        for later in 3..3 + Told::REMEMBERED as u64 {
            assert!(told.is_new(&room, &who, later));
        }
        assert!(told.0.lock().unwrap().known.len() <= Told::REMEMBERED);
    }
}
