//! Rooms and their members over Redis, under the keys of Actionhero.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use deadpool_redis::redis::{Script, cmd};
use phalanx_core::backend::{BackendError, CreateOutcome, JoinOutcome, LeaveOutcome, Member, Members, RoomStore};
use phalanx_core::{ConnectionId, Generation, Incarnation};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::client::RedisClient;
use crate::keys::Keys;

/// Members that one command reads or one script removes.
const BATCH: usize = 200;

/// The rooms that all nodes share, Actionhero nodes included.
pub struct RedisRooms {
    client: RedisClient,
    keys: Keys,
    host: String,
    create: Script,
    join: Script,
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
            leave: Script::new(include_str!("lua/rooms/leave.lua")),
            remove_members: Script::new(include_str!("lua/rooms/remove_members.lua")),
            close: Script::new(include_str!("lua/rooms/close.lua")),
            forget: Script::new(include_str!("lua/rooms/forget.lua")),
        }
    }

    /// Reads one page of the members of a room.
    async fn scan(&self, room: &str, cursor: &str) -> Result<(String, Vec<(String, String)>), BackendError> {
        let mut scan = cmd("HSCAN");
        scan.arg(self.keys.members(room)).arg(cursor).arg("COUNT").arg(BATCH);
        self.client.read(room, &scan).await
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
        script.key(self.keys.incarnations()).key(self.keys.closed()).arg(room);
        let incarnation: Option<u64> = self.client.run_idempotent(room, &script).await?;
        Ok(incarnation.map(Incarnation))
    }

    /// A node that dies half-way leaves some members behind. They are removed when the room is created again.
    async fn forget(&self, room: &str, incarnation: Incarnation) -> Result<(), BackendError> {
        let mut cursor = "0".to_owned();
        loop {
            let (next, members) = self.scan(room, &cursor).await?;
            if !members.is_empty() && !self.remove_members(room, &members).await? || next == "0" {
                break;
            }
            cursor = next;
        }
        self.client.run_idempotent(room, self.forget.key(self.keys.closed()).arg(room).arg(incarnation.0)).await
    }

    async fn join(&self, room: &str, member: &Member, of: Generation) -> Result<JoinOutcome, BackendError> {
        let in_redis = StoredMember {
            id: member.id.to_string(),
            joined_at: member.joined_at,
            host: self.host.clone(),
            generation: Some(of.to_string()),
        };
        let text = serde_json::to_string(&in_redis).expect("names and numbers are always JSON");
        let mut script = self.join.key(self.keys.leases());
        script.key(self.keys.rooms()).key(self.keys.members(room)).key(self.keys.memberships_of(of.as_str()));
        script.key(self.keys.incarnations());
        script.arg(of.as_str()).arg(room).arg(&in_redis.id).arg(text).arg(member.joined_at);
        let (joined, incarnation): (String, Option<u64>) = self.client.run(room, &script).await?;
        match (joined.as_str(), incarnation.map(Incarnation)) {
            ("new", Some(incarnation)) => Ok(JoinOutcome::New(incarnation)),
            ("anew", Some(incarnation)) => Ok(JoinOutcome::Replaced(incarnation)),
            ("already", Some(incarnation)) => Ok(JoinOutcome::Elsewhere(incarnation)),
            ("no room", _) => Ok(JoinOutcome::NoRoom),
            _ => Err(BackendError::unavailable("this node was reaped and is registering again")),
        }
    }

    async fn leave(&self, room: &str, member: &Member, of: Generation) -> Result<LeaveOutcome, BackendError> {
        let mut script = self.leave.key(self.keys.members(room));
        script.key(self.keys.memberships_of(of.as_str())).key(self.keys.rooms()).key(self.keys.incarnations());
        script.arg(room).arg(member.id.as_str());
        script.arg(format!("\"joinedAt\":{},", member.joined_at));
        let (was_member, incarnation): (bool, Option<u64>) = self.client.run(room, &script).await?;
        Ok(if was_member { LeaveOutcome::Removed } else { LeaveOutcome::NotAMember(incarnation.map(Incarnation)) })
    }

    async fn members(&self, room: &str, max: usize) -> Result<Option<Members>, BackendError> {
        if !self.exists(room).await? {
            return Ok(None);
        }
        let count: usize = self.client.read(room, cmd("HLEN").arg(self.keys.members(room))).await?;
        // A scan may return a member twice while the hash grows.
        let (mut listed, mut cursor) = (HashMap::new(), "0".to_owned());
        loop {
            let (next, members) = self.scan(room, &cursor).await?;
            for (id, member) in members {
                match read(&id, &member) {
                    Some(member) if listed.len() < max => drop(listed.insert(id, member)),
                    Some(_) => {}
                    None => warn!(room, id, "an unreadable member of a room is not listed"),
                }
            }
            if next == "0" || listed.len() >= max {
                return Ok(Some(Members { listed: listed.into_values().collect(), count }));
            }
            cursor = next;
        }
    }
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

fn read(id: &str, text: &str) -> Option<Member> {
    let member: StoredMember = serde_json::from_str(text).ok()?;
    Some(Member { id: ConnectionId::parse(id).ok()?, joined_at: member.joined_at })
}
