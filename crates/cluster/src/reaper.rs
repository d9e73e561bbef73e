//! Cleans up after a dead generation, step by step; who may do so is told by a claim that lapses.

use deadpool_redis::redis::{Script, ScriptInvocation, cmd};
use phalanx_core::backend::{BackendError, Departed, LEASE, Leaves, OVERDUE, SEEN};
use phalanx_core::{ConnectionId, Generation};

use crate::client::Client;
use crate::keys::{Keys, mark};
use crate::membership::us;

/// Members that one script removes, and leaves that are told before they are trimmed.
const BATCH: usize = 200;

pub(crate) struct Reaper {
    client: Client,
    keys: Keys,
    claim: Script,
    hold: Script,
    collect: Script,
    still: Script,
    told: Script,
    finish: Script,
}

impl Reaper {
    pub(crate) fn new(client: Client, keys: Keys) -> Self {
        Self {
            client,
            keys,
            claim: Script::new(include_str!("lua/reap/claim.lua")),
            hold: Script::new(include_str!("lua/reap/renew_claim.lua")),
            collect: Script::new(include_str!("lua/reap/collect.lua")),
            still: Script::new(include_str!("lua/reap/pending_leaves.lua")),
            told: Script::new(include_str!("lua/reap/trim_leaves.lua")),
            finish: Script::new(include_str!("lua/reap/finish.lua")),
        }
    }

    pub(crate) async fn claim(&self, by: Generation, dead: Generation, seen_us: u64) -> Result<bool, BackendError> {
        let mut script = self.claim.key(self.keys.leases());
        script.key(self.keys.names()).key(self.keys.nodes()).key(self.keys.epoch());
        script.key(self.keys.reaped()).key(self.keys.reapers()).key(self.keys.borne_by(dead));
        script.key(self.keys.held(dead.as_str())).key(self.keys.leaves(dead));
        script.arg(by.as_str()).arg(dead.as_str()).arg(us(LEASE)).arg(us(OVERDUE)).arg(seen_us).arg(us(SEEN));
        self.run(&script).await
    }

    pub(crate) async fn hold(&self, by: Generation, dead: Generation) -> Result<bool, BackendError> {
        let mut script = self.hold.key(self.keys.reaped());
        script.key(self.keys.reapers()).arg(by.as_str()).arg(dead.as_str()).arg(us(LEASE));
        self.run(&script).await
    }

    /// First all are removed from their rooms, which takes no longer than Redis does; telling waits for hooks.
    pub(crate) async fn leaves(&self, by: Generation, dead: Generation) -> Result<Leaves, BackendError> {
        if !self.collect_all(by, dead).await? {
            return Ok(Leaves::Lost);
        }
        loop {
            let listed = cmd("LRANGE").arg(self.keys.leaves(dead)).arg(0).arg(BATCH - 1).to_owned();
            let listed: Vec<String> = self.client.read("leaves", &listed).await?;
            if listed.is_empty() {
                return Ok(if self.finish(by, dead).await? { Leaves::Done } else { Leaves::Lost });
            }
            let leaves: Vec<Departed> = listed.iter().map_while(|leave| departed(leave)).collect();
            if leaves.is_empty() {
                if !self.told(by, dead, 1).await? {
                    return Ok(Leaves::Lost); // nobody can read the first one, and it is another's by now
                }
                continue;
            }
            let Some(leaves) = self.still(by, dead, &listed, &leaves).await? else { return Ok(Leaves::Lost) };
            if !leaves.is_empty() {
                return Ok(Leaves::Some(leaves));
            }
        }
    }

    /// Those who are not listed again meanwhile, by a node that came back under another name; the list begins with them.
    async fn still(
        &self,
        by: Generation,
        dead: Generation,
        listed: &[String],
        leaves: &[Departed],
    ) -> Result<Option<Vec<Departed>>, BackendError> {
        let mut script = self.still.key(self.keys.reapers());
        script.key(self.keys.leaves(dead)).arg(by.as_str()).arg(dead.as_str());
        for (text, leave) in listed.iter().zip(leaves) {
            script.key(self.keys.members(&leave.room)).arg(text).arg(leave.id.as_str());
        }
        let still: Option<Vec<String>> = self.client.run_again("leaves", &script).await?;
        Ok(still.map(|still| still.iter().filter_map(|leave| departed(leave)).collect()))
    }

    /// Nothing is added to what a dead generation holds, so one walk through it finds all.
    async fn collect_all(&self, by: Generation, dead: Generation) -> Result<bool, BackendError> {
        let mut cursor = "0".to_owned();
        loop {
            if !self.hold(by, dead).await? {
                return Ok(false);
            }
            let mut scan = cmd("HSCAN");
            scan.arg(self.keys.held(dead.as_str())).arg(&cursor).arg("COUNT").arg(BATCH);
            let (next, held): (String, Vec<(String, String)>) = self.client.read("held", &scan).await?;
            for batch in held.chunks(BATCH) {
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

    async fn collect(&self, by: Generation, dead: Generation, held: &[(String, String)]) -> Result<bool, BackendError> {
        let mut script = self.collect.key(self.keys.reapers());
        script.key(self.keys.held(dead.as_str())).key(self.keys.leaves(dead));
        script.arg(by.as_str()).arg(dead.as_str()).arg(mark(dead));
        for (place, joined_at) in held {
            let (room, id) = place.split_once(' ').unwrap_or(("", place));
            script.key(self.keys.members(room)).arg(place).arg(id).arg(joined_at);
        }
        self.run(&script).await
    }

    pub(crate) async fn told(&self, by: Generation, dead: Generation, count: usize) -> Result<bool, BackendError> {
        let mut script = self.told.key(self.keys.reapers());
        script.key(self.keys.leaves(dead)).arg(by.as_str()).arg(dead.as_str()).arg(count);
        self.run(&script).await
    }

    async fn finish(&self, by: Generation, dead: Generation) -> Result<bool, BackendError> {
        let mut script = self.finish.key(self.keys.reaped());
        script.key(self.keys.reapers()).key(self.keys.held(dead.as_str())).key(self.keys.leaves(dead));
        script.arg(by.as_str()).arg(dead.as_str());
        self.run(&script).await
    }

    async fn run(&self, script: &ScriptInvocation<'_>) -> Result<bool, BackendError> {
        self.client.run("reaped", script).await
    }
}

/// `<room> <connection> <joined at>`.
fn departed(leave: &str) -> Option<Departed> {
    let mut parts = leave.splitn(3, ' ');
    let (room, id, joined_at) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Departed { room: room.to_owned(), id: ConnectionId::parse(id).ok()?, joined_at: joined_at.parse().ok()? })
}
