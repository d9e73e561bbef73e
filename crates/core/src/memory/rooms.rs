//! The rooms of one node.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::backend::{Added, BackendError, Joined, Left, Member, Members, RoomStore};
use crate::connection::ConnectionId;
use crate::node::Generation;

/// The rooms of one node and their members, behind a mutex that is never locked across an await.
#[derive(Debug, Default)]
pub struct MemoryRooms {
    table: Mutex<RoomRecords>,
}

#[derive(Debug, Default)]
struct RoomRecords {
    open: HashMap<String, RoomRecord>,
    /// Rooms whose removal is pending, with their incarnation.
    closed: HashMap<String, u64>,
    /// The number of the latest incarnation of any room.
    last_incarnation: u64,
}

#[derive(Debug, Default)]
struct RoomRecord {
    incarnation: u64,
    members: HashMap<ConnectionId, (u64, Generation)>,
}

impl MemoryRooms {
    fn table(&self) -> MutexGuard<'_, RoomRecords> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl RoomStore for MemoryRooms {
    async fn add(&self, room: &str, max: usize) -> Result<Added, BackendError> {
        let mut table = self.table();
        if table.open.contains_key(room) {
            return Ok(Added::Existing);
        }
        if table.open.len() >= max {
            return Ok(Added::Full);
        }
        table.last_incarnation += 1;
        let created = RoomRecord { incarnation: table.last_incarnation, members: HashMap::new() };
        table.open.insert(room.to_owned(), created);
        table.closed.remove(room);
        Ok(Added::New)
    }

    async fn exists(&self, room: &str) -> Result<bool, BackendError> {
        Ok(self.table().open.contains_key(room))
    }

    async fn list(&self) -> Result<Vec<String>, BackendError> {
        Ok(self.table().open.keys().cloned().collect())
    }

    async fn close(&self, room: &str) -> Result<Option<u64>, BackendError> {
        let mut table = self.table();
        let Some(closed) = table.open.remove(room) else { return Ok(table.closed.get(room).copied()) };
        table.closed.insert(room.to_owned(), closed.incarnation);
        Ok(Some(closed.incarnation))
    }

    async fn forget(&self, room: &str, incarnation: u64) -> Result<(), BackendError> {
        let mut table = self.table();
        if table.closed.get(room) == Some(&incarnation) {
            table.closed.remove(room);
        }
        Ok(())
    }

    async fn join(&self, room: &str, member: &Member, of: Generation) -> Result<Joined, BackendError> {
        let mut table = self.table();
        let Some(room) = table.open.get_mut(room) else { return Ok(Joined::NoRoom) };
        let listed = room.members.get(&member.id).map(|(_, of)| *of);
        if listed.is_some_and(|listed| listed != of) {
            return Ok(Joined::Already(room.incarnation));
        }
        room.members.insert(member.id.clone(), (member.joined_at, of));
        Ok(if listed.is_some() { Joined::Anew(room.incarnation) } else { Joined::New(room.incarnation) })
    }

    async fn leave(&self, room: &str, member: &Member, _of: Generation) -> Result<Left, BackendError> {
        let mut table = self.table();
        let Some(RoomRecord { incarnation, members }) = table.open.get_mut(room) else { return Ok(Left::Before(None)) };
        let is_listed = members.get(&member.id).is_some_and(|(joined_at, _)| *joined_at == member.joined_at);
        if !is_listed {
            return Ok(Left::Before(Some(*incarnation)));
        }
        members.remove(&member.id);
        Ok(Left::Now)
    }

    async fn members(&self, room: &str, max: usize) -> Result<Option<Members>, BackendError> {
        let table = self.table();
        let Some(RoomRecord { members, .. }) = table.open.get(room) else { return Ok(None) };
        let member = |(id, (joined_at, _)): (&ConnectionId, &(u64, Generation))| Member {
            id: id.clone(),
            joined_at: *joined_at,
        };
        Ok(Some(Members { listed: members.iter().take(max).map(member).collect(), count: members.len() }))
    }
}
