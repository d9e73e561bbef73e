//! The rooms of one node.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::backend::{
    BackendError, CreateOutcome, JoinOutcome, LeaveOutcome, Member, Members, MembersCursor, RoomStore,
};
use crate::id::{ConnectionId, Generation, Incarnation};

/// The rooms of one node and their members, behind a mutex that is never locked across an await.
#[derive(Debug, Default)]
pub struct MemoryRooms {
    table: Mutex<RoomRecords>,
}

#[derive(Debug, Default)]
struct RoomRecords {
    open: HashMap<String, RoomRecord>,
    /// Rooms whose removal is pending, with their incarnation.
    closed: HashMap<String, Incarnation>,
    /// The number of the latest incarnation of any room.
    last_incarnation: u64,
    /// The highest number of a join that was undone, by node.
    floors: HashMap<Generation, u64>,
}

#[derive(Debug)]
struct RoomRecord {
    incarnation: Incarnation,
    /// In the order of their ids, so that pages go on where the one before ended, also if others join and leave meanwhile.
    members: BTreeMap<ConnectionId, (u64, Generation)>,
}

impl MemoryRooms {
    fn table(&self) -> MutexGuard<'_, RoomRecords> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl RoomStore for MemoryRooms {
    async fn create(&self, room: &str, max: usize) -> Result<CreateOutcome, BackendError> {
        let mut table = self.table();
        if table.open.contains_key(room) {
            return Ok(CreateOutcome::Existing);
        }
        if table.open.len() >= max {
            return Ok(CreateOutcome::Full);
        }
        table.last_incarnation += 1;
        let created = RoomRecord { incarnation: Incarnation(table.last_incarnation), members: BTreeMap::new() };
        table.open.insert(room.to_owned(), created);
        table.closed.remove(room);
        Ok(CreateOutcome::New)
    }

    async fn exists(&self, room: &str) -> Result<bool, BackendError> {
        Ok(self.table().open.contains_key(room))
    }

    async fn list(&self) -> Result<Vec<String>, BackendError> {
        Ok(self.table().open.keys().cloned().collect())
    }

    async fn close(&self, room: &str) -> Result<Option<Incarnation>, BackendError> {
        let mut table = self.table();
        let Some(closed) = table.open.remove(room) else { return Ok(table.closed.get(room).copied()) };
        table.closed.insert(room.to_owned(), closed.incarnation);
        Ok(Some(closed.incarnation))
    }

    async fn forget(&self, room: &str, incarnation: Incarnation) -> Result<(), BackendError> {
        let mut table = self.table();
        if table.closed.get(room) == Some(&incarnation) {
            table.closed.remove(room);
        }
        Ok(())
    }

    async fn join(
        &self,
        room: &str,
        member: &Member,
        of: Generation,
        number: u64,
    ) -> Result<JoinOutcome, BackendError> {
        let mut table = self.table();
        if table.floors.get(&of).is_some_and(|floor| number <= *floor) {
            return Ok(JoinOutcome::Late);
        }
        let Some(room) = table.open.get_mut(room) else { return Ok(JoinOutcome::NoRoom) };
        let listed = room.members.get(&member.id).map(|(_, of)| *of);
        if listed.is_some_and(|listed| listed != of) {
            return Ok(JoinOutcome::Elsewhere(room.incarnation));
        }
        room.members.insert(member.id.clone(), (member.joined_at, of));
        Ok(if listed.is_some() { JoinOutcome::Replaced(room.incarnation) } else { JoinOutcome::New(room.incarnation) })
    }

    async fn undo_join(&self, room: &str, member: &Member, of: Generation, number: u64) -> Result<(), BackendError> {
        {
            let mut table = self.table();
            let floor = table.floors.entry(of).or_default();
            *floor = number.max(*floor);
        }
        self.leave(room, member, of).await.map(drop)
    }

    async fn leave(&self, room: &str, member: &Member, _of: Generation) -> Result<LeaveOutcome, BackendError> {
        let mut table = self.table();
        let Some(RoomRecord { incarnation, members }) = table.open.get_mut(room) else {
            return Ok(LeaveOutcome::NotAMember(None));
        };
        let is_listed = members.get(&member.id).is_some_and(|(joined_at, _)| *joined_at == member.joined_at);
        if !is_listed {
            return Ok(LeaveOutcome::NotAMember(Some(*incarnation)));
        }
        members.remove(&member.id);
        Ok(LeaveOutcome::Removed)
    }

    async fn members_page(
        &self,
        room: &str,
        after: Option<&MembersCursor>,
        max: usize,
    ) -> Result<Option<Members>, BackendError> {
        let table = self.table();
        let Some(RoomRecord { members, .. }) = table.open.get(room) else { return Ok(None) };
        let member = |(id, (joined_at, _)): (&ConnectionId, &(u64, Generation))| Member {
            id: id.clone(),
            joined_at: *joined_at,
        };
        let last = after.and_then(|after| after.last.as_ref()).map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = members.range::<ConnectionId, _>((last, Bound::Unbounded));
        let listed: Vec<Member> = rest.by_ref().take(max).map(member).collect();
        let last = listed.last().map(|member| member.id.clone());
        let next = rest.next().map(|_| MembersCursor { last, ..MembersCursor::default() });
        Ok(Some(Members { listed, count: members.len(), next }))
    }
}
