//! What rooms hear of who comes and goes, and what becomes of them after a fault.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;

use super::{Rooms, payload};
use crate::backend::{BackendError, Departed, Joined, Member, Message, MessageKind};
use crate::connection::{Connection, ConnectionId, Frame};
use crate::event::Event;
use crate::hooks::Leaving;

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
    pub(super) async fn tell_leave(&self, room: &Arc<str>, who: &ConnectionId, joined_at: u64) {
        let told = self.tell_presence(room, who, "leave", MessageKind::Left(joined_at)).await;
        told.unwrap_or_else(|error| unheard(room, &error));
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
        let rooms = self.table().rooms.read().unwrap_or_else(PoisonError::into_inner);
        let rooms: Vec<_> = rooms.iter().map(|(room, local)| (room.clone(), local.clone())).collect();
        for (room, local) in rooms {
            let frame = payload::gap(&room);
            for member in local.members().values() {
                member.push(Frame::Text(frame.clone()));
            }
            self.node.tell(&Event::Gap(room));
        }
        self.node.connections().all().iter().for_each(Connection::all_spoken);
    }

    /// Lists a connection again in all rooms it is in, after its node was reaped or the backend lost everything.
    ///
    /// A room that is gone is made again only if `lost`: otherwise somebody destroyed it.
    pub(crate) async fn restore(&self, connection: &Connection, lost: bool) -> Result<(), BackendError> {
        let _alone = connection.membership().lock().await;
        let joined = connection.joined().names.clone();
        for (room, joined_at) in joined {
            let member = Member { id: connection.id().clone(), joined_at };
            if lost {
                self.node.room_store().add(&room, self.node.config().rooms.max_rooms).await?;
            }
            match self.node.room_store().join(&room, &member, self.node.generation()).await? {
                Joined::New => self.tell_join(&room, connection.id()).await,
                Joined::Already => {}
                Joined::NoRoom => {
                    self.exit(connection, &room);
                    self.node.tell(&Event::Left(room.clone(), connection.clone()));
                }
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
