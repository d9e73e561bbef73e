//! The rooms of one node.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use indexmap::IndexMap;

use crate::backend::{
    BackendError, CreateOutcome, HeldMember, JoinOutcome, LeaveOutcome, Member, Members, MembersCursor, RelistOutcome,
    Relisting, RoomStore, StoredMember,
};
use crate::id::{ConnectionId, Generation, Incarnation};

/// Rooms whose end is remembered.
const ENDED: usize = 1024;

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
    /// The last incarnation of each room that was closed, in the order in which they were closed.
    ended: IndexMap<String, Incarnation>,
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

impl RoomRecords {
    fn relist(&mut self, how: &Relisting, held: &HeldMember) -> RelistOutcome {
        let HeldMember { room, member, incarnation } = held;
        let ended = self.ended.get(&**room).is_some_and(|ended| ended >= incarnation);
        let is_open = self.open.get(&**room).is_some_and(|open| open.incarnation == *incarnation || !ended);
        if !is_open && self.closed.get(&**room) == Some(incarnation) {
            return RelistOutcome::Closing;
        }
        if !is_open && (ended || !how.creates_rooms) {
            return RelistOutcome::Destroyed;
        }
        self.last_incarnation = self.last_incarnation.max(incarnation.0);
        let new = || RoomRecord { incarnation: *incarnation, members: BTreeMap::new() };
        let record = self.open.entry(room.to_string()).or_insert_with(new);
        let as_held = (member.joined_at, how.of);
        let anew = (member.joined_at.max(how.renamed_ms), how.of);
        match record.members.get(&member.id) {
            Some(listed) if *listed == as_held => RelistOutcome::Kept(record.incarnation),
            Some(listed) if how.renamed_ms == 0 || *listed != anew => {
                record.members.insert(member.id.clone(), as_held);
                RelistOutcome::Listed(record.incarnation)
            }
            None if how.renamed_ms == 0 => {
                record.members.insert(member.id.clone(), as_held);
                RelistOutcome::Listed(record.incarnation)
            }
            _ => {
                record.members.insert(member.id.clone(), anew);
                RelistOutcome::Rejoined(record.incarnation)
            }
        }
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
        table.ended.shift_remove(room);
        table.ended.insert(room.to_owned(), closed.incarnation);
        if table.ended.len() > ENDED {
            table.ended.shift_remove_index(0);
        }
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
        self.leave(room, member, Incarnation(0), of).await.map(drop)
    }

    async fn leave(
        &self,
        room: &str,
        member: &Member,
        incarnation: Incarnation,
        _of: Generation,
    ) -> Result<LeaveOutcome, BackendError> {
        let mut table = self.table();
        if let Some(RoomRecord { members, .. }) = table.open.get_mut(room)
            && members.get(&member.id).is_some_and(|(joined_at, _)| *joined_at == member.joined_at)
        {
            members.remove(&member.id);
            return Ok(LeaveOutcome::Removed);
        }
        let is_destroyed = table.ended.get(room).is_some_and(|ended| *ended >= incarnation);
        Ok(if is_destroyed { LeaveOutcome::Destroyed } else { LeaveOutcome::Lost })
    }

    async fn relist(&self, how: &Relisting, members: &[HeldMember]) -> Result<Vec<RelistOutcome>, BackendError> {
        let mut table = self.table();
        if table.floors.get(&how.of).is_some_and(|floor| how.number <= *floor) {
            return Err(BackendError::unavailable("a later pass has begun"));
        }
        Ok(members.iter().map(|member| table.relist(how, member)).collect())
    }

    async fn stored(&self, of: Generation, _start: u64) -> Result<(Vec<StoredMember>, u64), BackendError> {
        let table = self.table();
        let stored = table.open.iter().flat_map(|(room, record)| {
            let of_node = record.members.iter().filter(move |(_, (_, node))| *node == of);
            of_node.map(|(id, (at, _))| StoredMember { room: room.clone(), id: id.clone(), joined_at: *at })
        });
        Ok((stored.collect(), 0))
    }

    async fn remove_stored(&self, of: Generation, floor: u64, members: &[StoredMember]) -> Result<u64, BackendError> {
        let mut table = self.table();
        let mut removed = 0;
        let known = table.floors.entry(of).or_default();
        *known = floor.max(*known);
        for stored in members {
            if let Some(RoomRecord { members, .. }) = table.open.get_mut(&stored.room)
                && members.get(&stored.id) == Some(&(stored.joined_at, of))
            {
                members.remove(&stored.id);
                removed += 1;
            }
        }
        Ok(removed)
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
