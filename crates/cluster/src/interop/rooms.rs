//! Takes connections of foreign nodes out of rooms.
//!
//! A node of theirs shuts down when it is asked to remove a connection that has just left by itself, or that a
//! middleware of its own keeps, and no look beforehand rules that out. So it is never asked: the connection's list of
//! rooms is written anew, which cannot be an error there, and its membership taken off the list in Redis. What the
//! connection does between the look at its list and the writing is undone by that. So the list is looked at again
//! until it names no room that does not list the connection.

use std::collections::HashSet;
use std::time::Duration;

use deadpool_redis::redis::cmd;
use futures_util::future::join_all;
use phalanx_core::backend::{BackendError, Message};
use phalanx_core::{ActionError, ApplyError, bound_reached};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::warn;

use super::Interop;

/// How long a member's node has to answer before it is taken for dead: nobody else takes its members off the list.
const SILENCE: Duration = Duration::from_secs(5);

/// How long members are taken out of a room while others join.
const DISMISSAL: Duration = Duration::from_secs(15);

/// Members that are taken out at once.
const AT_ONCE: usize = 256;

/// How often a list of rooms is looked at before it is left as it is.
const LOOKS: usize = 8;

/// A membership of theirs, as it is written.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Membership {
    id: String,
    member: String,
}

impl Interop {
    /// Takes a connection out of a room.
    pub(super) async fn leave(&self, room: &str, id: &str, by: Instant) -> Result<(), ApplyError> {
        let mut listed = self.listed(id, &[room.to_owned()]).await.map_err(ActionError::from)?;
        let Some(member) = listed.pop().filter(|member| !member.is_empty() && is_theirs(member)) else {
            return Err(ActionError::not_found("no such connection is in such a room").into());
        };
        if self.settle(id, Some((room, &member)), by).await? { Ok(()) } else { Err(ApplyError::Late) }
    }

    /// Ends a membership, if there is one to end, and brings the connection's own list of rooms to what they list.
    /// Says whether any node answered for the connection; if none did, nothing was changed.
    pub(super) async fn settle(&self, id: &str, leaves: Option<(&str, &str)>, by: Instant) -> Result<bool, ApplyError> {
        for look in 0..LOOKS {
            let mut details = match self.ask(id, "", Value::Null, by).await? {
                Some(details) => details,
                None if look == 0 => return Ok(false),
                None => return Err(ApplyError::Late),
            };
            let rooms = details.get_mut("rooms").map(Value::take).unwrap_or_else(|| json!([])); // it may be gone by now
            let rooms: Vec<String> = serde_json::from_value(rooms).map_err(ActionError::internal)?;
            let listed = self.listed(id, &rooms).await.map_err(ActionError::from)?;
            let stays = |room: &str, member: &str| !member.is_empty() && leaves != Some((room, member));
            let kept: Vec<&String> =
                rooms.iter().zip(&listed).filter(|(room, member)| stays(room, member)).map(|(room, _)| room).collect();
            let mut settled = kept.len() == rooms.len();
            if !settled {
                self.ask(id, "set", json!(["rooms", kept]), by).await?.ok_or(ApplyError::Late)?;
            }
            if let Some((room, member)) = leaves {
                settled &= !self.unlist(room, id, member).await.map_err(ActionError::from)?;
            }
            if settled {
                return Ok(true);
            }
        }
        bound_reached("interop_looks");
        Err(ActionError::conflict("the connection joins and leaves too fast").into())
    }

    /// What rooms say of a connection, in their order; nothing, where it is no member.
    async fn listed(&self, id: &str, rooms: &[String]) -> Result<Vec<String>, BackendError> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let mut script = self.listed.key(self.keys.rooms());
        script.arg(id);
        for room in rooms {
            script.key(self.keys.members(room)).arg(room);
        }
        self.client.run_again(id, &script).await
    }

    /// Takes a membership off the list, unless it is another one by now.
    async fn unlist(&self, room: &str, id: &str, member: &str) -> Result<bool, BackendError> {
        self.client.run(room, self.leave.key(self.keys.members(room)).arg(id).arg(member)).await
    }

    /// Tells their members of a room a last message and takes them out, and those who join meanwhile.
    pub(super) async fn empty(&self, farewell: &Message) -> Result<(), BackendError> {
        let room = &*farewell.room;
        let end = Instant::now() + DISMISSAL;
        let (mut asked, mut silent) = (HashSet::new(), 0);
        loop {
            let theirs = self.members(room, AT_ONCE.min(self.ear.max_calls), &asked).await?;
            if theirs.is_empty() {
                break;
            }
            if Instant::now() > end {
                bound_reached("interop_dismissal");
                return Err(BackendError::unavailable("members of foreign nodes are still in the room"));
            }
            if asked.is_empty()
                && let Some(said) = self.ear.said(farewell)
            {
                self.publisher.publish_in_clear(self.ear.channel.clone(), said).await?;
            }
            let by = Instant::now() + SILENCE;
            let settling = theirs.iter().map(|theirs| self.settle(&theirs.id, Some((room, &theirs.member)), by));
            for answered in join_all(settling).await {
                silent += usize::from(!answered.map_err(BackendError::unavailable)?);
            }
            asked.extend(theirs);
        }
        if silent > 0 {
            warn!(room, silent, "members of foreign nodes did not leave: their nodes are taken for dead");
        }
        Ok(())
    }

    /// Their members of a room, at most so many, but those who were asked already.
    async fn members(
        &self,
        room: &str,
        most: usize,
        asked: &HashSet<Membership>,
    ) -> Result<Vec<Membership>, BackendError> {
        let (mut theirs, mut cursor) = (HashSet::new(), "0".to_owned()); // a scan may tell of one twice
        loop {
            let mut scan = cmd("HSCAN");
            scan.arg(self.keys.members(room)).arg(&cursor).arg("COUNT").arg(AT_ONCE);
            let (next, members): (String, Vec<(String, String)>) = self.client.read(room, &scan).await?;
            let members = members.into_iter().filter(|(_, member)| is_theirs(member));
            let members = members.map(|(id, member)| Membership { id, member });
            theirs.extend(members.filter(|membership| !asked.contains(membership)));
            if next == "0" || theirs.len() >= most {
                return Ok(theirs.into_iter().take(most).collect());
            }
            cursor = next;
        }
    }
}

/// Ours name the generation of their node.
fn is_theirs(member: &str) -> bool {
    !member.contains("\"generation\":")
}
