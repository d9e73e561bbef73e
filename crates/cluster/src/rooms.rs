//! Rooms and their members over Redis, under the keys of Actionhero.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::{Cmd, Script, cmd, pipe};
use phalanx_core::backend::{
    BackendError, CreateOutcome, HeldMember, JoinOutcome, LeaveOutcome, Member, Members, MembersCursor, RelistOutcome,
    Relisting, RoomStore, StoredMember,
};
use phalanx_core::{ConnectionId, Generation, Incarnation};
use serde::Deserialize;
use serde_json::Value;
use tracing::warn;

use crate::client::RedisClient;
use crate::keys::{Keys, generation_marker};
use crate::membership::us;
use crate::store_epoch::StoreEpoch;

/// Members that one command reads or one script removes.
const BATCH: usize = 200;

/// The most scans for one page. A scan finds few members where many have left; the next page goes on from there.
const MAX_SCANS: usize = 8;

/// Memberships that one step reads.
const STORED_STEP: usize = 500;

/// How long the end of a room is remembered. A node that is cut off for longer may create the room again.
const ENDED_TTL: Duration = Duration::from_secs(10 * 60);

/// How long the node that closes a room may take to publish its last message, before it counts as dead.
const LAST_MESSAGE: Duration = Duration::from_secs(10);

/// Ends of rooms that a close forgets at most.
const ENDED_PRUNED: usize = 100;

/// How long an undone join is refused if it arrives after all. The kernel gives up a connection within half an hour.
const FLOOR_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The rooms that all nodes share, Actionhero nodes included.
pub struct RedisRooms {
    client: RedisClient,
    keys: Keys,
    host: String,
    store_epoch: StoreEpoch,
    create: Script,
    join: Script,
    undo_join: Script,
    leave: Script,
    relist: Script,
    remove_stored: Script,
    remove_members: Script,
    close: Script,
    forget: Script,
}

impl RedisRooms {
    /// Stores rooms under these keys. Members are listed with `host`, the id of their node, which is registered in the data
    /// that `store_epoch` names.
    pub fn new(client: RedisClient, keys: Keys, host: impl Into<String>, store_epoch: StoreEpoch) -> Self {
        Self {
            client,
            keys,
            host: host.into(),
            store_epoch,
            create: Script::new(include_str!("lua/rooms/create.lua")),
            join: Script::new(include_str!("lua/rooms/join.lua")),
            undo_join: Script::new(include_str!("lua/rooms/undo_join.lua")),
            leave: Script::new(include_str!("lua/rooms/leave.lua")),
            relist: Script::new(include_str!("lua/rooms/relist.lua")),
            remove_stored: Script::new(include_str!("lua/rooms/remove_stored.lua")),
            remove_members: Script::new(include_str!("lua/rooms/remove_members.lua")),
            close: Script::new(include_str!("lua/rooms/close.lua")),
            forget: Script::new(include_str!("lua/rooms/forget.lua")),
        }
    }

    /// Fails for some seconds after a node has noticed a loss of data: a node that holds the room may not have restored it. A
    /// node that is registered in other data has not noticed yet.
    async fn check_not_recovering(&self, room: &str) -> Result<(), BackendError> {
        let mut read = pipe();
        read.cmd("EXISTS").arg(self.keys.lost()).cmd("GET").arg(self.keys.store_epoch());
        let (is_recovering, epoch): (bool, Option<String>) = self.client.read_all(room, &read).await?;
        if is_recovering || epoch.as_ref() != Some(&self.store_epoch.get()) { Err(recovering()) } else { Ok(()) }
    }

    /// The command for a step of a scan over the members of a room.
    fn scan_from(&self, room: &str, cursor: u64, count: usize) -> Cmd {
        let mut scan = cmd("HSCAN");
        scan.arg(self.keys.members(room)).arg(cursor).arg("COUNT").arg(count.max(1));
        scan
    }

    /// The JSON of members of a generation after the time of the join.
    fn json_after(&self, of: Generation) -> String {
        format!(",\"host\":{},\"generation\":\"{of}\"}}", Value::from(&*self.host))
    }

    async fn remove_members(&self, room: &str, members: &[(String, String)]) -> Result<bool, BackendError> {
        let mut script = self.remove_members.key(self.keys.rooms());
        script.key(self.keys.members(room)).arg(room);
        for (id, member) in members {
            let generation = serde_json::from_str::<MemberJson>(member).ok().and_then(|member| member.generation);
            script.key(self.keys.memberships_of(generation.as_deref().unwrap_or_default())).arg(id);
        }
        self.client.run(room, &script).await
    }
}

impl fmt::Debug for RedisRooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisRooms")
    }
}

#[async_trait]
impl RoomStore for RedisRooms {
    async fn create(&self, room: &str, max: usize) -> Result<CreateOutcome, BackendError> {
        let mut script = self.create.key(self.keys.rooms());
        script.key(self.keys.members(room)).key(self.keys.incarnations()).key(self.keys.closed());
        script.arg(room).arg(max);
        let added: String = self.client.run(room, &script).await?;
        Ok(match added.as_str() {
            "new" => CreateOutcome::New,
            "full" => CreateOutcome::Full,
            _ => CreateOutcome::Existing,
        })
    }

    async fn exists(&self, room: &str) -> Result<bool, BackendError> {
        let exists: bool = self.client.read(room, cmd("SISMEMBER").arg(self.keys.rooms()).arg(room)).await?;
        if !exists {
            self.check_not_recovering(room).await?;
        }
        Ok(exists)
    }

    async fn list(&self) -> Result<Vec<String>, BackendError> {
        self.client.read("rooms", cmd("SMEMBERS").arg(self.keys.rooms())).await
    }

    async fn close(&self, room: &str) -> Result<Option<Incarnation>, BackendError> {
        let mut script = self.close.key(self.keys.rooms());
        script.key(self.keys.incarnations()).key(self.keys.closed()).key(self.keys.ended()).key(self.keys.ended_at());
        script.key(self.keys.unused()).arg(room).arg(us(ENDED_TTL)).arg(ENDED_PRUNED);
        let incarnation: Option<u64> = self.client.run_idempotent(room, &script).await?;
        Ok(incarnation.map(Incarnation))
    }

    /// A node that dies half-way leaves some members behind. They are removed when the room is created again.
    async fn forget(&self, room: &str, incarnation: Incarnation) -> Result<(), BackendError> {
        let mut cursor = 0;
        loop {
            let (next, members): ScanStep = self.client.read(room, &self.scan_from(room, cursor, BATCH)).await?;
            if !members.is_empty() && !self.remove_members(room, &members).await? || next == 0 {
                break;
            }
            cursor = next;
        }
        self.client.run_idempotent(room, self.forget.key(self.keys.closed()).arg(room).arg(incarnation.0)).await
    }

    async fn join(
        &self,
        room: &str,
        member: &Member,
        of: Generation,
        number: u64,
    ) -> Result<JoinOutcome, BackendError> {
        let text = format!("{}{}{}", json_before(member), member.joined_at, self.json_after(of));
        let mut script = self.join.key(self.keys.leases());
        script.key(self.keys.rooms()).key(self.keys.members(room)).key(self.keys.memberships_of(of.as_str()));
        script.key(self.keys.incarnations()).key(self.keys.join_floor(of)).key(self.keys.names());
        script.key(self.keys.lost());
        script.arg(of.as_str()).arg(room).arg(member.id.as_str()).arg(text).arg(member.joined_at).arg(number);
        let (joined, incarnation): (String, Option<u64>) = self.client.run(room, &script).await?;
        match (joined.as_str(), incarnation.map(Incarnation)) {
            ("new", Some(incarnation)) => Ok(JoinOutcome::New(incarnation)),
            ("anew", Some(incarnation)) => Ok(JoinOutcome::Replaced(incarnation)),
            ("already", Some(incarnation)) => Ok(JoinOutcome::Elsewhere(incarnation)),
            ("no room", _) => Ok(JoinOutcome::NoRoom),
            ("late", _) => Ok(JoinOutcome::Late),
            ("recovering", _) => Err(recovering()),
            _ => Err(BackendError::refused("this node was reaped and is registering again")),
        }
    }

    async fn undo_join(&self, room: &str, member: &Member, of: Generation, number: u64) -> Result<(), BackendError> {
        let mut script = self.undo_join.key(self.keys.members(room));
        script.key(self.keys.memberships_of(of.as_str())).key(self.keys.join_floor(of)).key(self.keys.unused());
        script
            .arg(room)
            .arg(member.id.as_str())
            .arg(joined_at_marker(member))
            .arg(number)
            .arg(FLOOR_TTL.as_millis() as u64);
        self.client.run_idempotent(room, &script).await
    }

    async fn leave(
        &self,
        room: &str,
        member: &Member,
        incarnation: Incarnation,
        of: Generation,
    ) -> Result<LeaveOutcome, BackendError> {
        let mut script = self.leave.key(self.keys.members(room));
        script.key(self.keys.memberships_of(of.as_str())).key(self.keys.nodes()).key(self.keys.registered());
        script.key(self.keys.ended()).arg(room).arg(member.id.as_str()).arg(joined_at_marker(member));
        script.arg(of.as_str()).arg(incarnation.0);
        let outcome: String = self.client.run(room, &script).await?;
        Ok(match outcome.as_str() {
            "removed" => LeaveOutcome::Removed,
            "reaped" => LeaveOutcome::Reaped,
            "destroyed" => LeaveOutcome::Destroyed,
            _ => LeaveOutcome::Lost,
        })
    }

    async fn relist(&self, how: &Relisting, members: &[HeldMember]) -> Result<Vec<RelistOutcome>, BackendError> {
        let mut outcomes = Vec::with_capacity(members.len());
        for batch in members.chunks(BATCH) {
            let mut script = self.relist.key(self.keys.leases());
            script.key(self.keys.rooms()).key(self.keys.memberships_of(how.of.as_str())).key(self.keys.incarnations());
            script.key(self.keys.join_floor(how.of)).key(self.keys.names()).key(self.keys.ended());
            script.key(self.keys.ended_at()).key(self.keys.closed());
            script.arg(how.of.as_str()).arg(how.number).arg(how.renamed_ms).arg(u8::from(how.creates_rooms));
            script.arg(us(LAST_MESSAGE)).arg(self.json_after(how.of));
            // Each room once: of large rooms and many members the strings cost Redis more than what it does with them.
            let mut numbers = HashMap::new();
            let mut rooms = Vec::new();
            for HeldMember { room, .. } in batch {
                numbers.entry(&**room).or_insert_with(|| {
                    rooms.push(room);
                    rooms.len()
                });
            }
            script.arg(rooms.len());
            for room in rooms {
                script.key(self.keys.members(room)).arg(&**room);
            }
            for HeldMember { room, member, incarnation } in batch {
                script.arg(numbers[&**room]).arg(member.id.as_str()).arg(member.joined_at);
                script.arg(incarnation.0).arg(json_before(member));
            }
            let replies: Vec<String> = self.client.run("held", script.key(self.keys.unused())).await?;
            if replies.len() != batch.len() {
                return Err(BackendError::unavailable("a listing has another number of outcomes than of members"));
            }
            outcomes.extend(replies.iter().map(|reply| parse_relisted(reply)));
        }
        Ok(outcomes)
    }

    async fn stored(&self, of: Generation, start: u64) -> Result<(Vec<StoredMember>, u64), BackendError> {
        let mut scan = cmd("HSCAN");
        scan.arg(self.keys.memberships_of(of.as_str())).arg(start).arg("COUNT").arg(STORED_STEP);
        let (next, entries): (u64, Vec<(String, String)>) = self.client.read("held", &scan).await?;
        let parse = |(entry, joined_at): (String, String)| {
            let (room, id) = entry.split_once(' ')?;
            Some(StoredMember {
                room: room.to_owned(),
                id: ConnectionId::parse(id).ok()?,
                joined_at: joined_at.parse().ok()?,
            })
        };
        Ok((entries.into_iter().filter_map(parse).collect(), next))
    }

    async fn remove_stored(&self, of: Generation, floor: u64, members: &[StoredMember]) -> Result<u64, BackendError> {
        let mut script = self.remove_stored.key(self.keys.memberships_of(of.as_str()));
        script.key(self.keys.join_floor(of));
        script.arg(generation_marker(of)).arg(floor).arg(FLOOR_TTL.as_millis() as u64);
        for StoredMember { room, id, joined_at } in members {
            script.key(self.keys.members(room)).arg(room).arg(id.as_str()).arg(joined_at);
        }
        self.client.run_idempotent("held", script.key(self.keys.unused())).await
    }

    async fn members_page(
        &self,
        room: &str,
        after: Option<&MembersCursor>,
        max: usize,
    ) -> Result<Option<Members>, BackendError> {
        let mut cursor = after.cloned().unwrap_or_default();
        let mut first = pipe();
        first.cmd("SISMEMBER").arg(self.keys.rooms()).arg(room);
        first.cmd("HLEN").arg(self.keys.members(room));
        first.add_command(self.scan_from(room, cursor.scan, max));
        let (exists, count, mut step): (bool, usize, ScanStep) = self.client.read_all(room, &first).await?;
        if !exists {
            self.check_not_recovering(room).await?;
            return Ok(None);
        }
        let (mut listed, mut wanted) = (BTreeMap::new(), max);
        for scans in 1.. {
            let (end, members) = step;
            let listed_before = cursor.last.as_ref().filter(|_| cursor.end == end);
            let mut members = readable(room, members, listed_before);
            members.retain(|id, _| !listed.contains_key(id));
            let over = (listed.len() + members.len()).saturating_sub(max);
            if over == 0 {
                listed.append(&mut members);
                cursor = MembersCursor { scan: end, ..MembersCursor::default() };
                if end == 0 || listed.len() >= max || scans >= MAX_SCANS {
                    break;
                }
                wanted = max - listed.len();
            } else if listed.is_empty() && (cursor.last.is_none() || wanted == 1) {
                listed.extend(members.into_iter().take(max));
                cursor = MembersCursor { end, last: listed.keys().next_back().cloned(), ..cursor };
                break;
            } else if !listed.is_empty() && (wanted <= over || scans >= MAX_SCANS) {
                break; // the next page begins with this step
            } else {
                wanted = if scans < MAX_SCANS { wanted.saturating_sub(over).max(1) } else { 1 };
            }
            step = self.client.read(room, &self.scan_from(room, cursor.scan, wanted)).await?;
        }
        let next = Some(cursor).filter(|cursor| *cursor != MembersCursor::default());
        Ok(Some(Members { listed: listed.into_values().collect(), count, next }))
    }
}

/// The reply to a step of a scan: where the next one starts, or zero at the end, and the members of this one.
///
/// A step ends at the end of a bucket of Redis's, so it may have more members than its COUNT. The first step of a page
/// is then divided by the ids of its members. The next page repeats the step and leaves out those that were listed, if it
/// ends at the same position: only then does it cover the same buckets, since its length depends on the members that have
/// joined and left. Otherwise some members are listed twice, and the step is not divided again, so that pages get on even
/// if it changes each time.
type ScanStep = (u64, Vec<(String, String)>);

/// Returns the members of a step in the order of their ids, from after `last`.
fn readable(room: &str, members: Vec<(String, String)>, last: Option<&ConnectionId>) -> BTreeMap<ConnectionId, Member> {
    let readable = members.into_iter().filter_map(|(id, member)| {
        let parsed = read(&id, &member);
        if parsed.is_none() {
            warn!(room, id, "an unreadable member of a room is not listed");
        }
        parsed
    });
    let after = |member: &Member| last.is_none_or(|last| member.id > *last);
    readable.filter(after).map(|member| (member.id.clone(), member)).collect()
}

/// The parts of a member's JSON that are read. Actionhero nodes store no generation.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MemberJson {
    joined_at: u64,
    #[serde(default)]
    generation: Option<String>,
}

fn recovering() -> BackendError {
    BackendError::refused("rooms are being restored after a loss of data")
}

/// The JSON of a member is in three parts, because a script may change the middle one, the time of the join.
fn json_before(member: &Member) -> String {
    format!("{{\"id\":{},\"joinedAt\":", Value::from(member.id.as_str()))
}

/// Parses an outcome and the incarnation of the room.
fn parse_relisted(reply: &str) -> RelistOutcome {
    let (outcome, incarnation) = reply.split_once(' ').unwrap_or((reply, ""));
    let incarnation = incarnation.parse().map(Incarnation);
    match (outcome, incarnation) {
        ("kept", Ok(incarnation)) => RelistOutcome::Kept(incarnation),
        ("listed", Ok(incarnation)) => RelistOutcome::Listed(incarnation),
        ("rejoined", Ok(incarnation)) => RelistOutcome::Rejoined(incarnation),
        ("closing", _) => RelistOutcome::Closing,
        ("destroyed", _) => RelistOutcome::Destroyed,
        ("elsewhere", _) => RelistOutcome::Elsewhere,
        _ => RelistOutcome::Unreadable,
    }
}

/// The part of a member's JSON with the time of its join.
fn joined_at_marker(member: &Member) -> String {
    format!("\"joinedAt\":{},", member.joined_at)
}

fn read(id: &str, text: &str) -> Option<Member> {
    let member: MemberJson = serde_json::from_str(text).ok()?;
    Some(Member { id: ConnectionId::parse(id).ok()?, joined_at: member.joined_at })
}
