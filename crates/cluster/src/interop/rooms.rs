//! Removes the connections of Actionhero nodes from rooms.
//!
//! An Actionhero node shuts down when it is requested to remove a connection that has just left by itself, or that a
//! middleware of its own refuses to let go, and no check beforehand rules that out. So the node is never requested to:
//! instead the connection's list of rooms is overwritten, which cannot fail there, and its membership is deleted in
//! Redis. A join or leave of the connection between the read of its list and the write is undone by the write. So the
//! list is read again until every room in it lists the connection as a member.

use std::collections::HashSet;
use std::time::Duration;

use deadpool_redis::redis::cmd;
use futures_util::future::join_all;
use phalanx_core::backend::{BackendError, InteropError};
use phalanx_core::protocol::RoomMessage;
use phalanx_core::{ActionError, bound_reached};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::warn;

use super::RedisInterop;

/// The time for a member's node to reply; after it the node counts as dead. Actionhero never removes the members of a
/// dead node, so a room may well list some.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// The time for the removal of all members of a room, while others still join.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(15);

/// The most members that are removed concurrently.
const BATCH: usize = 256;

/// How often the list of rooms of a connection is read before the attempt fails.
const MAX_ATTEMPTS: usize = 8;

/// A member of an Actionhero node, with the text of its membership in Redis.
#[derive(Clone, PartialEq, Eq, Hash)]
struct InteropMember {
    id: String,
    membership: String,
}

impl RedisInterop {
    /// Removes a connection from a room.
    pub(super) async fn leave(&self, room: &str, id: &str, deadline: Instant) -> Result<(), InteropError> {
        let mut memberships = self.memberships(id, &[room.to_owned()]).await.map_err(ActionError::from)?;
        let is_member = |membership: &String| !membership.is_empty() && is_of_actionhero(membership);
        let Some(membership) = memberships.pop().filter(is_member) else {
            return Err(ActionError::not_found("no such connection is in such a room").into());
        };
        if self.settle_rooms(id, Some((room, &membership)), deadline).await? { Ok(()) } else { Err(InteropError::Late) }
    }

    /// Deletes a membership, if `leaves` names one, and removes from the connection's own list of rooms all those that
    /// do not list the connection. Returns whether a node replied for the connection; if none did, nothing was changed.
    pub(super) async fn settle_rooms(
        &self,
        id: &str,
        leaves: Option<(&str, &str)>,
        deadline: Instant,
    ) -> Result<bool, InteropError> {
        for attempt in 0..MAX_ATTEMPTS {
            let mut details = match self.call(id, "", Value::Null, deadline).await? {
                Some(details) => details,
                None if attempt == 0 => return Ok(false),
                None => return Err(InteropError::Late),
            };
            // A connection that has closed meanwhile has no list of rooms.
            let rooms = details.get_mut("rooms").map(Value::take).unwrap_or_else(|| json!([]));
            let rooms: Vec<String> = serde_json::from_value(rooms).map_err(ActionError::internal)?;
            let memberships = self.memberships(id, &rooms).await.map_err(ActionError::from)?;
            let is_kept = |room: &str, membership: &str| !membership.is_empty() && leaves != Some((room, membership));
            let pairs = rooms.iter().zip(&memberships);
            let kept: Vec<&String> =
                pairs.filter(|(room, membership)| is_kept(room, membership)).map(|(room, _)| room).collect();
            let mut is_settled = kept.len() == rooms.len();
            if !is_settled {
                self.call(id, "set", json!(["rooms", kept]), deadline).await?.ok_or(InteropError::Late)?;
            }
            if let Some((room, membership)) = leaves {
                is_settled &= !self.delete_membership(room, id, membership).await.map_err(ActionError::from)?;
            }
            if is_settled {
                return Ok(true);
            }
        }
        bound_reached("interop_looks");
        Err(ActionError::conflict("the connection joins and leaves too fast").into())
    }

    /// Reads the memberships of a connection in these rooms, in their order; an empty text if it is not a member.
    async fn memberships(&self, id: &str, rooms: &[String]) -> Result<Vec<String>, BackendError> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let mut script = self.memberships.key(self.keys.rooms());
        script.arg(id);
        for room in rooms {
            script.key(self.keys.members(room)).arg(room);
        }
        self.client.run_idempotent(id, &script).await
    }

    /// Deletes a membership, unless a later one has replaced it; returns whether it was deleted.
    async fn delete_membership(&self, room: &str, id: &str, membership: &str) -> Result<bool, BackendError> {
        self.client.run(room, self.leave.key(self.keys.members(room)).arg(id).arg(membership)).await
    }

    /// Sends the destroy message to Actionhero's members of a room and removes them, including those that join
    /// meanwhile.
    pub(super) async fn evict_members_of(&self, destroy_message: &RoomMessage) -> Result<(), BackendError> {
        let room = &*destroy_message.room;
        let end = Instant::now() + EVICTION_TIMEOUT;
        let (mut tried, mut unanswered) = (HashSet::new(), 0);
        loop {
            let members = self.members(room, BATCH.min(self.channel.max_calls), &tried).await?;
            if members.is_empty() {
                break;
            }
            if Instant::now() > end {
                bound_reached("interop_dismissal");
                return Err(BackendError::unavailable("members of Actionhero nodes are still in the room"));
            }
            if tried.is_empty() {
                let chat = self.channel.encode_chat(destroy_message);
                self.publisher.publish_interop(self.channel.name.clone(), chat).await?;
            }
            let deadline = Instant::now() + REPLY_TIMEOUT;
            let settling =
                members.iter().map(|member| self.settle_rooms(&member.id, Some((room, &member.membership)), deadline));
            for is_answered in join_all(settling).await {
                unanswered += usize::from(!is_answered.map_err(BackendError::unavailable)?);
            }
            tried.extend(members);
        }
        if unanswered > 0 {
            warn!(room, unanswered, "members of Actionhero nodes were not removed: no node replied for them in time");
        }
        Ok(())
    }

    /// Reads at most `max` of Actionhero's members of a room, except those in `tried`.
    async fn members(
        &self,
        room: &str,
        max: usize,
        tried: &HashSet<InteropMember>,
    ) -> Result<Vec<InteropMember>, BackendError> {
        // A set, because a scan may return a member twice.
        let (mut found, mut cursor) = (HashSet::new(), "0".to_owned());
        loop {
            let mut scan = cmd("HSCAN");
            scan.arg(self.keys.members(room)).arg(&cursor).arg("COUNT").arg(BATCH);
            let (next, members): (String, Vec<(String, String)>) = self.client.read(room, &scan).await?;
            let members = members.into_iter().filter(|(_, membership)| is_of_actionhero(membership));
            let members = members.map(|(id, membership)| InteropMember { id, membership });
            found.extend(members.filter(|member| !tried.contains(member)));
            if next == "0" || found.len() >= max {
                return Ok(found.into_iter().take(max).collect());
            }
            cursor = next;
        }
    }
}

/// Whether a membership belongs to an Actionhero node: ours contain the generation of the node.
fn is_of_actionhero(membership: &str) -> bool {
    !membership.contains("\"generation\":")
}
