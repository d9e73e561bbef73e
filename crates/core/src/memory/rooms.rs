//! The rooms of one node.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::backend::{Added, BackendError, Joined, Left, Member, Members, RoomStore};
use crate::connection::ConnectionId;
use crate::node::Generation;

/// The rooms of one node and their members, behind one lock that is never held over a wait.
#[derive(Debug, Default)]
pub struct MemoryRooms {
    rooms: Mutex<Rooms>,
}

#[derive(Debug, Default)]
struct Rooms {
    open: HashMap<String, Room>,
    closed: HashMap<String, u64>,
    lives: u64,
}

#[derive(Debug, Default)]
struct Room {
    life: u64,
    members: HashMap<ConnectionId, (u64, Generation)>,
}

impl MemoryRooms {
    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl RoomStore for MemoryRooms {
    async fn add(&self, room: &str, max: usize) -> Result<Added, BackendError> {
        let mut rooms = self.rooms();
        if rooms.open.contains_key(room) {
            return Ok(Added::Existing);
        }
        if rooms.open.len() >= max {
            return Ok(Added::Full);
        }
        rooms.lives += 1;
        let made = Room { life: rooms.lives, members: HashMap::new() };
        rooms.open.insert(room.to_owned(), made);
        rooms.closed.remove(room);
        Ok(Added::New)
    }

    async fn exists(&self, room: &str) -> Result<bool, BackendError> {
        Ok(self.rooms().open.contains_key(room))
    }

    async fn list(&self) -> Result<Vec<String>, BackendError> {
        Ok(self.rooms().open.keys().cloned().collect())
    }

    async fn close(&self, room: &str) -> Result<Option<u64>, BackendError> {
        let mut rooms = self.rooms();
        let Some(closed) = rooms.open.remove(room) else { return Ok(rooms.closed.get(room).copied()) };
        rooms.closed.insert(room.to_owned(), closed.life);
        Ok(Some(closed.life))
    }

    async fn forget(&self, room: &str, life: u64) -> Result<(), BackendError> {
        let mut rooms = self.rooms();
        if rooms.closed.get(room) == Some(&life) {
            rooms.closed.remove(room);
        }
        Ok(())
    }

    async fn join(&self, room: &str, member: &Member, of: Generation) -> Result<Joined, BackendError> {
        let mut rooms = self.rooms();
        let Some(room) = rooms.open.get_mut(room) else { return Ok(Joined::NoRoom) };
        let listed = room.members.get(&member.id).map(|(_, of)| *of);
        if listed.is_some_and(|listed| listed != of) {
            return Ok(Joined::Already(room.life));
        }
        room.members.insert(member.id.clone(), (member.joined_at, of));
        Ok(if listed.is_some() { Joined::Anew(room.life) } else { Joined::New(room.life) })
    }

    async fn leave(&self, room: &str, member: &Member, _of: Generation) -> Result<Left, BackendError> {
        let mut rooms = self.rooms();
        let Some(Room { life, members }) = rooms.open.get_mut(room) else { return Ok(Left::Before(None)) };
        let is_it = members.get(&member.id).is_some_and(|(joined_at, _)| *joined_at == member.joined_at);
        if !is_it {
            return Ok(Left::Before(Some(*life)));
        }
        members.remove(&member.id);
        Ok(Left::Now)
    }

    async fn members(&self, room: &str, max: usize) -> Result<Option<Members>, BackendError> {
        let rooms = self.rooms();
        let Some(Room { members, .. }) = rooms.open.get(room) else { return Ok(None) };
        let member = |(id, (joined_at, _)): (&ConnectionId, &(u64, Generation))| Member {
            id: id.clone(),
            joined_at: *joined_at,
        };
        Ok(Some(Members { listed: members.iter().take(max).map(member).collect(), count: members.len() }))
    }
}
