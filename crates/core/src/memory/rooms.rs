//! The rooms of one node.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::backend::{Added, BackendError, Joined, Member, Members, RoomStore};
use crate::connection::ConnectionId;
use crate::node::Generation;

/// The rooms of one node and their members, behind one lock that is never held over a wait.
#[derive(Debug, Default)]
pub struct MemoryRooms {
    rooms: Mutex<HashMap<String, HashMap<ConnectionId, u64>>>,
}

impl MemoryRooms {
    fn rooms(&self) -> MutexGuard<'_, HashMap<String, HashMap<ConnectionId, u64>>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl RoomStore for MemoryRooms {
    async fn add(&self, room: &str, max: usize) -> Result<Added, BackendError> {
        let mut rooms = self.rooms();
        if rooms.contains_key(room) {
            return Ok(Added::Existing);
        }
        if rooms.len() >= max {
            return Ok(Added::Full);
        }
        rooms.insert(room.to_owned(), HashMap::new());
        Ok(Added::New)
    }

    async fn exists(&self, room: &str) -> Result<bool, BackendError> {
        Ok(self.rooms().contains_key(room))
    }

    async fn list(&self) -> Result<Vec<String>, BackendError> {
        Ok(self.rooms().keys().cloned().collect())
    }

    async fn remove(&self, room: &str) -> Result<bool, BackendError> {
        Ok(self.rooms().remove(room).is_some())
    }

    async fn join(&self, room: &str, member: &Member, _of: Generation) -> Result<Joined, BackendError> {
        let mut rooms = self.rooms();
        let Some(members) = rooms.get_mut(room) else { return Ok(Joined::NoRoom) };
        if members.contains_key(&member.id) {
            return Ok(Joined::Already);
        }
        members.insert(member.id.clone(), member.joined_at);
        Ok(Joined::New)
    }

    async fn leave(&self, room: &str, member: &Member, _of: Generation) -> Result<bool, BackendError> {
        let mut rooms = self.rooms();
        let Some(members) = rooms.get_mut(room) else { return Ok(false) };
        let is_it = members.get(&member.id) == Some(&member.joined_at);
        Ok(is_it && members.remove(&member.id).is_some())
    }

    async fn members(&self, room: &str, max: usize) -> Result<Option<Members>, BackendError> {
        let rooms = self.rooms();
        let Some(members) = rooms.get(room) else { return Ok(None) };
        let member = |(id, joined_at): (&ConnectionId, &u64)| Member { id: id.clone(), joined_at: *joined_at };
        Ok(Some(Members { listed: members.iter().take(max).map(member).collect(), count: members.len() }))
    }
}
