//! Leases and the records of nodes over Redis, and cleaning up after the dead.
//!
//! # Why each interleaving is safe
//!
//! A generation is *alive* while it stands in the sorted set of leases, expired or not. One script, `claim.lua`, takes it
//! out, and every script that writes what a reaper must clean asks in its first line whether it still stands there.
//! Scripts run one after the other, so a write lies either before the reap, and is found by it, or after it, and is
//! refused.
//!
//! - **Frozen before a write.** The node thaws and its write arrives after the reap: refused, and the caller is told
//!   `unavailable`. It arrives after the lease ran out but before the reap: accepted, and the reap finds it.
//! - **Frozen before a claim**, or the claim waited where Redis stood still: it says when its sender saw what lapsed, and
//!   counts for 2 s of Redis's time, so nobody is reaped on what was so before everybody had to stand still.
//! - **Frozen during a reap.** The claim on the work-list is a lease of its own. It lapses, another node claims it, and
//!   whatever the thawed reaper sends then finds another's name under `reapers` and changes nothing.
//! - **A reaper killed half-way.** Members are removed and their leaves appended to the list of leaves in one script; only
//!   when none is left is the list told, and it is trimmed after it was told. The next reaper goes on removing, and begins
//!   with what is left of the list, so a leave is told once or, within one batch of 200, twice; receivers drop a leave
//!   they have heard.
//! - **A node found dead comes back before all its leaves are told.** Whoever it has listed again under its new name when
//!   a batch is read is dropped from the list of leaves: to others it never left.
//! - **Redis stalled for all.** Every lease runs out at once. Nobody reaps: a node may only after it has renewed for a
//!   whole lease without a gap, and by then everybody else has renewed as well, which revives what was not reaped.
//! - **Redis's clock set back.** Living nodes renew by the new time; each renewal cuts every other lease and claim to what
//!   a full one would be, so the dead lapse as ever. Nobody reaps for the length of a lease after it.
//! - **Redis empty.** Renewals find no lease. Each node registers under a new generation; `register.lua` answers another
//!   life than before, which tells that rooms must be made again, and not only memberships.
//! - **The answer to a registration lost.** The node registers again under the same name before it renews it, so it lists
//!   its members whichever registration arrived. If the first began a lease that ran out and is being cleaned up after,
//!   the second is refused, and the node takes yet another name.
//! - **A registration that arrives late**, after its sender gave it up: it begins a lease that nobody renews, and is
//!   reaped like any other.
//! - **A node stops while members are still listed**, because Redis was away when they left: its record goes at once, its
//!   lease is left as one that ran out, and the reap finds them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::{Script, cmd};
use phalanx_core::Generation;
use phalanx_core::backend::{BackendError, LEASE, Leaves, Membership, NodeRecord, OVERDUE, Renewal, Standing};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;

use crate::client::Client;
use crate::clock::RedisClock;
use crate::envelope::{Spoken, VERSION};
use crate::keys::Keys;
use crate::reaper::Reaper;

/// Most lapsed generations that one renewal tells of.
const TOLD_AT_ONCE: usize = 16;

/// The nodes that share a Redis.
pub struct RedisMembership {
    client: Client,
    keys: Keys,
    clock: Arc<RedisClock>,
    spoken: Spoken,
    reaper: Reaper,
    register: Script,
    renew: Script,
    unregister: Script,
}

impl RedisMembership {
    /// Keeps records and leases under these keys, and sets the clock by Redis's and the version of envelopes by what the
    /// nodes on record speak.
    pub fn new(client: Client, keys: Keys, clock: Arc<RedisClock>, spoken: Spoken) -> Self {
        Self {
            reaper: Reaper::new(client.clone(), keys.clone()),
            client,
            keys,
            clock,
            spoken,
            register: Script::new(include_str!("lua/lease/register.lua")),
            renew: Script::new(include_str!("lua/lease/renew.lua")),
            unregister: Script::new(include_str!("lua/lease/unregister.lua")),
        }
    }

    /// Takes what names no node out of the leases, or it would stand before those that lapsed.
    async fn forget(&self, name: &str) {
        warn!(name, "what stood among the leases names no node");
        for key in [self.keys.leases(), self.keys.reaped()] {
            let forgotten: Result<(), BackendError> = self.client.ask(&key, cmd("ZREM").arg(&key).arg(name)).await;
            if let Err(error) = forgotten {
                warn!(%error, name, "it is not taken out yet");
            }
        }
    }
}

impl fmt::Debug for RedisMembership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisMembership")
    }
}

#[async_trait]
impl Membership for RedisMembership {
    async fn register(&self, record: &NodeRecord) -> Result<Option<String>, BackendError> {
        let generation = record.generation;
        let mut script = self.register.key(self.keys.leases());
        script.key(self.keys.names()).key(self.keys.nodes()).key(self.keys.epoch()).key(self.keys.life());
        script.key(self.keys.borne_by(generation)).key(self.keys.reaped());
        script.arg(generation.as_str()).arg(write(record)).arg(us(LEASE)).arg(Generation::random().as_str());
        script.arg(generation.as_str());
        for earlier in &record.earlier {
            script.arg(earlier.as_str());
        }
        let sent = Instant::now();
        let answer: Option<(String, u64)> = self.client.run_again("leases", &script).await?;
        let Some((life, now_us)) = answer else { return Ok(None) };
        self.clock.set(now_us, sent.elapsed());
        Ok(Some(life))
    }

    async fn renew(&self, generation: Generation) -> Result<Renewal, BackendError> {
        let mut script = self.renew.key(self.keys.leases());
        script.key(self.keys.reaped()).key(self.keys.epoch());
        script.arg(generation.as_str()).arg(us(LEASE)).arg(TOLD_AT_ONCE).arg(us(OVERDUE));
        let sent = Instant::now();
        let answer: Option<(u64, String, Vec<String>)> = self.client.run_again("leases", &script).await?;
        let Some((now_us, epoch, names)) = answer else { return Ok(Renewal::Gone) };
        self.clock.set(now_us, sent.elapsed());
        let mut lapsed = Vec::with_capacity(names.len());
        for name in names {
            match Generation::parse(&name) {
                Some(dead) => lapsed.push(dead),
                None => self.forget(&name).await,
            }
        }
        Ok(Renewal::Standing(Standing { now_us, epoch: epoch.parse().unwrap_or_default(), lapsed }))
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, BackendError> {
        let all: Vec<(String, String)> = self.client.read("nodes", cmd("HGETALL").arg(self.keys.nodes())).await?;
        let read = |(generation, text): &(String, String)| {
            let record = Generation::parse(generation).and_then(|generation| read(generation, text));
            if record.is_none() {
                warn!(generation, "a record of a node cannot be read");
            }
            record
        };
        let (protocols, nodes): (Vec<_>, Vec<_>) = all.iter().filter_map(read).unzip();
        self.spoken.agree(protocols);
        Ok(nodes)
    }

    async fn leave(&self, generation: Generation) -> Result<(), BackendError> {
        let mut script = self.unregister.key(self.keys.leases());
        script.key(self.keys.names()).key(self.keys.nodes()).key(self.keys.epoch());
        script.key(self.keys.borne_by(generation)).key(self.keys.held(generation.as_str()));
        script.arg(generation.as_str());
        self.client.run("leases", &script).await
    }

    async fn claim(&self, by: Generation, dead: Generation, seen_us: u64) -> Result<bool, BackendError> {
        self.reaper.claim(by, dead, seen_us).await
    }

    async fn hold(&self, by: Generation, dead: Generation) -> Result<bool, BackendError> {
        self.reaper.hold(by, dead).await
    }

    async fn leaves(&self, by: Generation, dead: Generation) -> Result<Leaves, BackendError> {
        self.reaper.leaves(by, dead).await
    }

    async fn told(&self, by: Generation, dead: Generation, count: usize) -> Result<bool, BackendError> {
        self.reaper.told(by, dead, count).await
    }
}

/// A record as it stands in Redis.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordInRedis {
    id: String,
    version: String,
    started_at: u64,
    roles: Vec<String>,
    #[serde(default)]
    earlier: Vec<String>,
    /// The newest version of envelopes that the node reads and writes.
    protocol: u32,
}

fn write(record: &NodeRecord) -> String {
    let record = RecordInRedis {
        id: record.id.clone(),
        version: record.version.clone(),
        started_at: record.started_at,
        roles: record.roles.clone(),
        earlier: record.earlier.iter().map(Generation::to_string).collect(),
        protocol: VERSION,
    };
    serde_json::to_string(&record).expect("names and numbers are always JSON")
}

/// A record, and the protocol of its node.
fn read(generation: Generation, text: &str) -> Option<(u32, NodeRecord)> {
    let record: RecordInRedis = serde_json::from_str(text).ok()?;
    let earlier = record.earlier.iter().filter_map(|name| Generation::parse(name)).collect();
    let RecordInRedis { id, version, started_at, roles, protocol, .. } = record;
    Some((protocol, NodeRecord { generation, id, version, started_at, roles, earlier }))
}

pub(crate) fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
