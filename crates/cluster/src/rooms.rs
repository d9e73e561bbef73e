//! Rooms and their members over Redis, under the keys of Actionhero.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::{Cmd, Script, cmd, pipe};
use phalanx_core::backend::{
    BackendError, CreateOutcome, JoinOutcome, LeaveOutcome, Member, Members, MembersCursor, RoomStore,
};
use phalanx_core::{ConnectionId, Generation, Incarnation};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::client::RedisClient;
use crate::keys::Keys;

/// Members that one command reads or one script removes.
const BATCH: usize = 200;

/// The most scans for one page. A scan finds few members where many have left; the next page goes on from there.
const MAX_SCANS: usize = 8;

/// How long an undone join is refused if it arrives after all. The kernel gives up a connection within half an hour.
const FLOOR_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The rooms that all nodes share, Actionhero nodes included.
pub struct RedisRooms {
    client: RedisClient,
    keys: Keys,
    host: String,
    create: Script,
    join: Script,
    undo_join: Script,
    leave: Script,
    remove_members: Script,
    close: Script,
    forget: Script,
}

impl RedisRooms {
    /// Stores rooms under these keys. Members are listed with `host`, the id of their node.
    pub fn new(client: RedisClient, keys: Keys, host: impl Into<String>) -> Self {
        Self {
            client,
            keys,
            host: host.into(),
            create: Script::new(include_str!("lua/rooms/create.lua")),
            join: Script::new(include_str!("lua/rooms/join.lua")),
            undo_join: Script::new(include_str!("lua/rooms/undo_join.lua")),
            leave: Script::new(include_str!("lua/rooms/leave.lua")),
            remove_members: Script::new(include_str!("lua/rooms/remove_members.lua")),
            close: Script::new(include_str!("lua/rooms/close.lua")),
            forget: Script::new(include_str!("lua/rooms/forget.lua")),
        }
    }

    /// The command for a step of a scan over the members of a room.
    fn scan_from(&self, room: &str, cursor: u64, count: usize) -> Cmd {
        let mut scan = cmd("HSCAN");
        scan.arg(self.keys.members(room)).arg(cursor).arg("COUNT").arg(count.max(1));
        scan
    }

    async fn remove_members(&self, room: &str, members: &[(String, String)]) -> Result<bool, BackendError> {
        let mut script = self.remove_members.key(self.keys.rooms());
        script.key(self.keys.members(room)).arg(room);
        for (id, member) in members {
            let generation = serde_json::from_str::<StoredMember>(member).ok().and_then(|member| member.generation);
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
        self.client.read(room, cmd("SISMEMBER").arg(self.keys.rooms()).arg(room)).await
    }

    async fn list(&self) -> Result<Vec<String>, BackendError> {
        self.client.read("rooms", cmd("SMEMBERS").arg(self.keys.rooms())).await
    }

    async fn close(&self, room: &str) -> Result<Option<Incarnation>, BackendError> {
        let mut script = self.close.key(self.keys.rooms());
        script.key(self.keys.incarnations()).key(self.keys.closed()).key(self.keys.unused()).arg(room);
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
        let in_redis = StoredMember {
            id: member.id.to_string(),
            joined_at: member.joined_at,
            host: self.host.clone(),
            generation: Some(of.to_string()),
        };
        let text = serde_json::to_string(&in_redis).expect("names and numbers are always JSON");
        let mut script = self.join.key(self.keys.leases());
        script.key(self.keys.rooms()).key(self.keys.members(room)).key(self.keys.memberships_of(of.as_str()));
        script.key(self.keys.incarnations()).key(self.keys.join_floor(of)).key(self.keys.names());
        script.arg(of.as_str()).arg(room).arg(&in_redis.id).arg(text).arg(member.joined_at).arg(number);
        let (joined, incarnation): (String, Option<u64>) = self.client.run(room, &script).await?;
        match (joined.as_str(), incarnation.map(Incarnation)) {
            ("new", Some(incarnation)) => Ok(JoinOutcome::New(incarnation)),
            ("anew", Some(incarnation)) => Ok(JoinOutcome::Replaced(incarnation)),
            ("already", Some(incarnation)) => Ok(JoinOutcome::Elsewhere(incarnation)),
            ("no room", _) => Ok(JoinOutcome::NoRoom),
            ("late", _) => Ok(JoinOutcome::Late),
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

    async fn leave(&self, room: &str, member: &Member, of: Generation) -> Result<LeaveOutcome, BackendError> {
        let mut script = self.leave.key(self.keys.members(room));
        script.key(self.keys.memberships_of(of.as_str())).key(self.keys.rooms()).key(self.keys.incarnations());
        script.arg(room).arg(member.id.as_str());
        script.arg(joined_at_marker(member));
        let (was_member, incarnation): (bool, Option<u64>) = self.client.run(room, &script).await?;
        Ok(if was_member { LeaveOutcome::Removed } else { LeaveOutcome::NotAMember(incarnation.map(Incarnation)) })
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

/// A member as Actionhero stores it, and the generation of its node.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredMember {
    id: String,
    joined_at: u64,
    #[serde(default)]
    host: String,
    #[serde(default)]
    generation: Option<String>,
}

/// The part of a member's JSON with the time of its join.
fn joined_at_marker(member: &Member) -> String {
    format!("\"joinedAt\":{},", member.joined_at)
}

fn read(id: &str, text: &str) -> Option<Member> {
    let member: StoredMember = serde_json::from_str(text).ok()?;
    Some(Member { id: ConnectionId::parse(id).ok()?, joined_at: member.joined_at })
}
