//! The reaping of a dead generation, step by step. A claim that expires decides which node does it.

use deadpool_redis::redis::{Script, ScriptInvocation, cmd};
use phalanx_core::backend::{BackendError, CLAIM_WINDOW, EXPIRY_GRACE, LEASE, LeaveBatch, ReapedMember};
use phalanx_core::{ConnectionId, Generation};

use crate::client::RedisClient;
use crate::keys::{Keys, generation_marker};
use crate::membership::us;

/// Members that one script removes, and leaves that are announced before the list is trimmed.
const BATCH: usize = 200;

/// In all methods `by` is the generation that reaps.
pub(crate) struct Reaper {
    client: RedisClient,
    keys: Keys,
    claim: Script,
    renew_claim: Script,
    collect: Script,
    pending_leaves: Script,
    trim_leaves: Script,
    finish: Script,
}

impl Reaper {
    pub(crate) fn new(client: RedisClient, keys: Keys) -> Self {
        Self {
            client,
            keys,
            claim: Script::new(include_str!("lua/reap/claim.lua")),
            renew_claim: Script::new(include_str!("lua/reap/renew_claim.lua")),
            collect: Script::new(include_str!("lua/reap/collect.lua")),
            pending_leaves: Script::new(include_str!("lua/reap/pending_leaves.lua")),
            trim_leaves: Script::new(include_str!("lua/reap/trim_leaves.lua")),
            finish: Script::new(include_str!("lua/reap/finish.lua")),
        }
    }

    /// Takes the claim on a dead generation, if it is free and what was seen at `seen_us` is recent enough.
    pub(crate) async fn claim(&self, by: Generation, dead: Generation, seen_us: u64) -> Result<bool, BackendError> {
        let mut script = self.claim.key(self.keys.leases());
        script.key(self.keys.names()).key(self.keys.nodes()).key(self.keys.epoch());
        script.key(self.keys.claims()).key(self.keys.reapers()).key(self.keys.names_of(dead));
        script.key(self.keys.memberships_of(dead.as_str())).key(self.keys.leaves(dead)).key(self.keys.links());
        script
            .key(self.keys.join_floor(dead))
            .key(self.keys.beats())
            .key(self.keys.running(dead))
            .key(self.keys.registered())
            .key(self.keys.unused());
        script
            .arg(by.as_str())
            .arg(dead.as_str())
            .arg(us(LEASE))
            .arg(us(EXPIRY_GRACE))
            .arg(seen_us)
            .arg(us(CLAIM_WINDOW));
        self.run(&script).await
    }

    /// Gives the claim its full length again; `false` if it was lost.
    pub(crate) async fn renew_claim(&self, by: Generation, dead: Generation) -> Result<bool, BackendError> {
        let mut script = self.renew_claim.key(self.keys.claims());
        script.key(self.keys.reapers()).key(self.keys.unused()).arg(by.as_str()).arg(dead.as_str()).arg(us(LEASE));
        self.run(&script).await
    }

    /// Returns the next leaves to announce. All members are removed from their rooms before the first leave is
    /// returned: that takes only as long as Redis does, while each announcement waits for hooks.
    pub(crate) async fn leaves(&self, by: Generation, dead: Generation) -> Result<LeaveBatch, BackendError> {
        if !self.collect_all(by, dead).await? {
            return Ok(LeaveBatch::ClaimLost);
        }
        loop {
            let range = cmd("LRANGE").arg(self.keys.leaves(dead)).arg(0).arg(BATCH - 1).to_owned();
            let entries: Vec<String> = self.client.read("leaves", &range).await?;
            if entries.is_empty() {
                return Ok(if self.finish(by, dead).await? { LeaveBatch::Done } else { LeaveBatch::ClaimLost });
            }
            let leaves: Vec<ReapedMember> = entries.iter().map_while(|entry| parse_leave(entry)).collect();
            if leaves.is_empty() {
                // The first entry is unreadable: it is dropped, or it would block the list forever.
                if !self.trim_leaves(by, dead, 1).await? {
                    return Ok(LeaveBatch::ClaimLost);
                }
                continue;
            }
            let Some(leaves) = self.pending_leaves(by, dead, &entries, &leaves).await? else {
                return Ok(LeaveBatch::ClaimLost);
            };
            if !leaves.is_empty() {
                return Ok(LeaveBatch::Members(leaves));
            }
        }
    }

    /// Drops the leaves of members that a node which came back under another generation has listed again meanwhile, and
    /// returns the rest, with which the list then starts. `None` if the claim was lost.
    async fn pending_leaves(
        &self,
        by: Generation,
        dead: Generation,
        entries: &[String],
        leaves: &[ReapedMember],
    ) -> Result<Option<Vec<ReapedMember>>, BackendError> {
        let mut script = self.pending_leaves.key(self.keys.reapers());
        script.key(self.keys.leaves(dead)).arg(by.as_str()).arg(dead.as_str());
        for (entry, leave) in entries.iter().zip(leaves) {
            script.key(self.keys.members(&leave.room)).arg(entry).arg(leave.id.as_str());
        }
        let pending: Option<Vec<String>> = self.client.run_idempotent("leaves", &script).await?;
        Ok(pending.map(|pending| pending.iter().filter_map(|entry| parse_leave(entry)).collect()))
    }

    /// Removes all memberships; `false` if the claim was lost. No membership is added to a dead generation, so one scan
    /// finds all of them.
    async fn collect_all(&self, by: Generation, dead: Generation) -> Result<bool, BackendError> {
        let mut cursor = "0".to_owned();
        loop {
            if !self.renew_claim(by, dead).await? {
                return Ok(false);
            }
            let mut scan = cmd("HSCAN");
            scan.arg(self.keys.memberships_of(dead.as_str())).arg(&cursor).arg("COUNT").arg(BATCH);
            let (next, memberships): (String, Vec<(String, String)>) = self.client.read("held", &scan).await?;
            for batch in memberships.chunks(BATCH) {
                if !self.collect(by, dead, batch).await? {
                    return Ok(false);
                }
            }
            if next == "0" {
                return Ok(true);
            }
            cursor = next;
        }
    }

    async fn collect(
        &self,
        by: Generation,
        dead: Generation,
        batch: &[(String, String)],
    ) -> Result<bool, BackendError> {
        let mut script = self.collect.key(self.keys.reapers());
        script.key(self.keys.memberships_of(dead.as_str())).key(self.keys.leaves(dead));
        script.arg(by.as_str()).arg(dead.as_str()).arg(generation_marker(dead));
        for (membership, joined_at) in batch {
            let (room, id) = membership.split_once(' ').unwrap_or(("", membership));
            script.key(self.keys.members(room)).arg(membership).arg(id).arg(joined_at);
        }
        script.key(self.keys.unused());
        self.run(&script).await
    }

    /// Removes the first `count` leaves, which were announced; `false` if the claim was lost.
    pub(crate) async fn trim_leaves(
        &self,
        by: Generation,
        dead: Generation,
        count: usize,
    ) -> Result<bool, BackendError> {
        let mut script = self.trim_leaves.key(self.keys.reapers());
        script.key(self.keys.leaves(dead)).arg(by.as_str()).arg(dead.as_str()).arg(count);
        self.run(&script).await
    }

    async fn finish(&self, by: Generation, dead: Generation) -> Result<bool, BackendError> {
        let mut script = self.finish.key(self.keys.claims());
        script.key(self.keys.reapers()).key(self.keys.memberships_of(dead.as_str())).key(self.keys.leaves(dead));
        script.key(self.keys.links()).key(self.keys.running(dead)).arg(by.as_str()).arg(dead.as_str());
        self.run(&script).await
    }

    async fn run(&self, script: &ScriptInvocation<'_>) -> Result<bool, BackendError> {
        self.client.run("reaped", script).await
    }
}

/// Parses `<room> <connection> <joined at>`.
fn parse_leave(entry: &str) -> Option<ReapedMember> {
    let mut parts = entry.splitn(3, ' ');
    let (room, id, joined_at) = (parts.next()?, parts.next()?, parts.next()?);
    Some(ReapedMember { room: room.to_owned(), id: ConnectionId::parse(id).ok()?, joined_at: joined_at.parse().ok()? })
}
