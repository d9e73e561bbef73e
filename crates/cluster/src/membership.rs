//! The leases and records of nodes over Redis, and the reaping of dead generations.
//!
//! # Why each interleaving is safe
//!
//! A generation is *alive* while it is in the sorted set of leases, whether its lease has expired or not. A reap removes
//! it from there in a single script, `reap/claim.lua`, and every script that writes something a reaper must clean up
//! first checks that the generation is still in the set. Redis runs scripts one after the other, so a write comes either
//! before the reap, which then finds it, or after the reap, and is refused.
//!
//! - **A node is frozen before a write.** If it thaws and the write arrives after the reap, the write is refused, and
//!   the caller gets `unavailable`. If the write arrives after the lease expired but before the reap, it is accepted,
//!   and the reap finds it.
//! - **A node is frozen before a claim**, or the claim is delayed because Redis stalled. A claim carries the time at
//!   which its sender saw the expired lease, and is valid for 2 s of Redis's time from then on. So no node is reaped on
//!   a list that was read before a stall that kept all nodes from renewing.
//! - **A reaper is frozen during a reap.** The claim on the dead generation is a lease of its own. It expires, another
//!   node claims the generation, and all later steps of the thawed reaper find another generation under `reapers` and
//!   change nothing.
//! - **A reaper is killed half-way.** One script removes members and appends their leaves to the list of leaves. The
//!   leaves are announced only after all members are removed, and the list is trimmed after each announcement. The next
//!   reaper continues the removal and then starts with the rest of the list, so a leave is announced once, or twice
//!   within one batch of 200; receivers drop a leave that they have already received.
//! - **A reaped node comes back before all its leaves are announced.** Members that it has listed again under its new
//!   generation when a batch is read are dropped from the list of leaves: for all others they never left.
//! - **Redis stalls for all nodes.** All leases expire at once. No node reaps: a node may do so only after it has
//!   renewed for the length of a lease without a gap, and by then all others have renewed as well, which revives their
//!   leases.
//! - **Redis's clock is set back.** Live nodes renew by the new time. Each renewal shortens every other lease and claim
//!   to at most a full one, so the leases of dead nodes expire as usual. For the length of one lease nothing is reaped.
//! - **Redis comes back empty**, or with data from before a node registered. Its renewals find no lease, and its registration
//!   finds that this data never had the generation. So it was not reaped: the generation stays, and rooms are created again.
//!   One that was reaped is remembered for a day.
//! - **Redis comes back with older data.** A renewal that Redis has forgotten, or a new connection, shows that. The node
//!   reaps nothing for the length of a lease, since live nodes may have expired leases there. A generation whose record is
//!   there was not reaped: a claim removes lease and record in one step. Names that a node has given up may have leases
//!   there: a registration removes those of its own boot, and a join counts their members as its own.
//! - **A member leaves whose entry is gone.** If the record of its generation is gone too, and this data has had it, a reaper
//!   took both and announces the leave. Otherwise Redis has lost the entry, and others have received the
//!   join: the node announces the leave, unless the end of the room is on record.
//! - **Redis is full** (`maxmemory`, `noeviction`). It refuses joins; scripts that renew, free or hand on run, because they
//!   begin with the removal of a key that is never set ([`Keys::unused`]). They read before they write, so that an error
//!   of type ends them before they change anything.
//! - **The reply to a registration is lost.** The node registers again under the same generation before it renews, so
//!   its members are listed whichever registration arrived. If the first one created a lease that has expired and is
//!   being reaped, the second one is refused, and the node takes yet another generation.
//! - **A join arrives late**, after its sender gave it up: its undo has raised the floor of the generation to the number of
//!   the join, and the script refuses it. No clock is involved, and a join that its client repeated has a higher number.
//! - **A registration arrives late**, after its sender timed out: it creates a lease that no node renews and that is
//!   reaped like any other.
//! - **A node stops while members or attempts are still listed**, because Redis was unavailable when they ended: its record
//!   is removed at once, its lease is set to expired, and the reap finds them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::{Script, cmd, pipe};
use phalanx_core::Generation;
use phalanx_core::backend::{
    BackendError, EXPIRY_GRACE, LEASE, LeaseStatus, LeaveBatch, Membership, NodeRecord, RESTORED, RegisterOutcome,
    Renewal,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::client::RedisClient;
use crate::clock::RedisClock;
use crate::envelope::{EnvelopeVersion, VERSION};
use crate::keys::Keys;
use crate::link::PublisherLink;
use crate::reaper::Reaper;
use crate::store_epoch::StoreEpoch;

/// How long a generation without a lease is remembered. A node that was away for longer takes a new one, reaped or not.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// The number of expired leases and of expired claims that one renewal returns at most.
const MAX_EXPIRED: usize = 16;

/// How often a node looks for other clusters under its prefix.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// How long a cluster counts as one that uses the prefix after it was last marked.
pub(crate) const MARK_TTL: Duration = Duration::from_secs(180);

/// The number of other clusters that are named at most.
const MAX_CLUSTERS: usize = 16;

/// Redis's time, the epoch of nodes, expired leases and claims, the link of the node, the last beat that Redis knew, the
/// number of memberships, when data was found lost.
type RenewalReply = (u64, String, Vec<String>, String, u64, u64, String);

/// The numbers of renewals of the present generation. One that Redis has forgotten shows that it came back with older data.
#[derive(Debug, Default)]
struct Beats {
    generation: Option<Generation>,
    last: u64,
    confirmed: u64,
}

impl Beats {
    /// The number of the next renewal, and the last that was confirmed.
    fn next(&mut self, generation: Generation) -> (u64, u64) {
        if self.generation.replace(generation) != Some(generation) {
            self.confirmed = 0;
        }
        self.last += 1;
        (self.last, self.confirmed)
    }

    /// Records a confirmed renewal; 0 if the generation is to be registered again.
    fn confirm(&mut self, generation: Generation, beat: u64) {
        if self.generation == Some(generation) {
            self.confirmed = beat;
        }
    }
}

/// The nodes that share a Redis.
pub struct RedisMembership {
    client: RedisClient,
    keys: Keys,
    clock: Arc<RedisClock>,
    version: EnvelopeVersion,
    link: PublisherLink,
    reaper: Reaper,
    /// When to look again for other clusters under the shared prefix.
    look_at: Mutex<Option<Instant>>,
    has_warned_of_old: AtomicBool,
    register: Script,
    renew: Script,
    unregister: Script,
    clusters: Script,
    beats: Mutex<Beats>,
    store_epoch: StoreEpoch,
    /// Redis's time in the last registration or renewal that was confirmed; 0 before the first.
    confirmed_us: AtomicU64,
}

impl RedisMembership {
    /// Stores records and leases under these keys. Sets the clock by Redis's, and the version of envelopes by those
    /// that the registered nodes can read. Has the link announced again if Redis lost it.
    pub fn new(
        client: RedisClient,
        keys: Keys,
        clock: Arc<RedisClock>,
        version: EnvelopeVersion,
        link: PublisherLink,
    ) -> Self {
        Self {
            reaper: Reaper::new(client.clone(), keys.clone()),
            look_at: Mutex::default(),
            has_warned_of_old: AtomicBool::new(false),
            client,
            keys,
            clock,
            version,
            link,
            register: Script::new(include_str!("lua/lease/register.lua")),
            renew: Script::new(include_str!("lua/lease/renew.lua")),
            unregister: Script::new(include_str!("lua/lease/unregister.lua")),
            clusters: Script::new(include_str!("lua/lease/clusters.lua")),
            beats: Mutex::default(),
            store_epoch: StoreEpoch::default(),
            confirmed_us: AtomicU64::new(0),
        }
    }

    /// The data in which this node is registered.
    pub fn store_epoch(&self) -> StoreEpoch {
        self.store_epoch.clone()
    }

    /// Marks this cluster, once a minute, as one that uses the shared prefix, and warns of others that do.
    async fn look_for_other_clusters(&self) {
        let now = Instant::now();
        {
            let mut look_at = self.look_at.lock().unwrap_or_else(PoisonError::into_inner);
            if look_at.is_some_and(|due| now < due) {
                return;
            }
            *look_at = Some(now + LOOK_INTERVAL);
        }
        let mut script = self.clusters.key(self.keys.clusters());
        script.arg(self.keys.cluster()).arg(MARK_TTL.as_secs()).arg(MAX_CLUSTERS);
        match self.client.run_idempotent::<Vec<String>>("clusters", &script).await {
            Ok(others) if others.is_empty() => {}
            Ok(others) => warn!(
                ?others,
                "other clusters use the same keys for cache, locks and rooms: give each its own redis.prefix"
            ),
            Err(error) => debug!(%error, "the clusters of this prefix are not known"),
        }
    }

    /// Warns of nodes of the first release, whose channels have no number of the database.
    fn warn_of_old(&self, records: &[(u32, NodeRecord, bool)]) {
        let old = records.iter().find(|(_, _, is_old)| *is_old);
        if self.client.database() != 0
            && let Some((_, node, _)) = old
            && !self.has_warned_of_old.swap(true, Relaxed)
        {
            warn!(
                node = node.id,
                "a node of an earlier release is in this cluster, and in another database than 0 both exchange no messages: \
                 stop all nodes, then start the new ones"
            );
        }
    }

    /// Publishes nothing on a channel that no node subscribes to. If a right for that is missing, the log says so now, and
    /// not only when a client publishes.
    async fn check_right_to_publish(&self) {
        let channel = self.keys.room("");
        let published: Result<u64, _> = self.client.query(&channel, cmd("PUBLISH").arg(&channel).arg("")).await;
        if let Err(error) = published {
            debug!(%error, "a publish on a channel without subscribers");
        }
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes an entry that is not a generation from leases and claims: it would use up one of the entries that a renewal
    /// returns.
    async fn remove_invalid(&self, name: &str) {
        warn!(name, "an entry among the leases is not a generation and is removed");
        for key in [self.keys.leases(), self.keys.claims()] {
            let removed: Result<(), BackendError> = self.client.query(&key, cmd("ZREM").arg(&key).arg(name)).await;
            if let Err(error) = removed {
                warn!(%error, name, "the invalid entry among the leases is not removed yet");
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
    async fn register(&self, record: &NodeRecord, was_registered: bool) -> Result<RegisterOutcome, BackendError> {
        let generation = record.generation;
        let mut script = self.register.key(self.keys.leases());
        script.key(self.keys.names()).key(self.keys.nodes()).key(self.keys.epoch()).key(self.keys.store_epoch());
        script.key(self.keys.names_of(generation)).key(self.keys.claims()).key(self.keys.reapers());
        script
            .key(self.keys.leaves(generation))
            .key(self.keys.lost())
            .key(self.keys.registered())
            .key(self.keys.unused());
        script.arg(generation.as_str()).arg(write(record)).arg(us(LEASE)).arg(Generation::random().as_str());
        script.arg(u8::from(was_registered)).arg(ms(RESTORED)).arg(us(REMEMBERED)).arg(self.confirmed_us.load(Relaxed));
        script.arg(generation.as_str());
        for earlier in &record.earlier {
            script.arg(earlier.as_str());
        }
        let sent = Instant::now();
        let reply: Option<(String, u64, bool)> = self.client.run_idempotent("leases", &script).await?;
        let Some((store_epoch, now_us, is_lost)) = reply else { return Ok(RegisterOutcome::Reaped) };
        self.clock.set(now_us, sent.elapsed());
        let before = self.store_epoch.get();
        self.store_epoch.set(&store_epoch);
        self.confirmed_us.store(now_us, Relaxed);
        self.check_right_to_publish().await;
        // The generation may be a new one, and the data lost all the same.
        let is_other = !before.is_empty() && before != store_epoch;
        Ok(if is_lost || is_other { RegisterOutcome::Lost } else { RegisterOutcome::Registered })
    }

    async fn renew(&self, generation: Generation) -> Result<Renewal, BackendError> {
        let mut script = self.renew.key(self.keys.leases());
        script.key(self.keys.claims()).key(self.keys.epoch()).key(self.keys.links()).key(self.keys.beats());
        script.key(self.keys.memberships_of(generation.as_str())).key(self.keys.lost()).key(self.keys.unused());
        let (beat, confirmed) = self.beats().next(generation);
        script.arg(generation.as_str()).arg(us(LEASE)).arg(MAX_EXPIRED).arg(us(EXPIRY_GRACE)).arg(beat);
        script.arg(confirmed).arg(ms(RESTORED));
        let (sent, announced) = (Instant::now(), self.link.announced());
        let reply: Option<RenewalReply> = self.client.run_idempotent("leases", &script).await?;
        let connection = *self.client.connection_number().borrow();
        let Some((now_us, epoch, names, link, known_beat, stored, lost)) = reply else {
            self.beats().confirm(generation, 0);
            return Ok(Renewal::Gone);
        };
        self.beats().confirm(generation, beat);
        self.confirmed_us.store(now_us, Relaxed);
        self.clock.set(now_us, sent.elapsed());
        self.link.check(&link, announced);
        self.look_for_other_clusters().await;
        let mut expired = Vec::with_capacity(names.len());
        for name in names {
            match Generation::parse(&name) {
                Some(dead) => expired.push(dead),
                None => self.remove_invalid(&name).await,
            }
        }
        Ok(Renewal::Renewed(LeaseStatus {
            now_us,
            epoch: epoch.parse().unwrap_or_default(),
            expired,
            connection,
            is_behind: known_beat < confirmed,
            stored: Some(stored),
            lost_us: lost.parse().ok(),
        }))
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, BackendError> {
        let mut looks = pipe();
        looks.cmd("HGETALL").arg(self.keys.nodes()).cmd("TIME");
        let sent = Instant::now();
        type Looks = (Vec<(String, String)>, (u64, u64));
        let (all, (s, us)): Looks = self.client.read_all("nodes", &looks).await?;
        self.clock.set(s * 1_000_000 + us, sent.elapsed()); // a guest renews no lease
        let read = |(generation, text): &(String, String)| {
            let record = Generation::parse(generation).and_then(|generation| read(generation, text));
            if record.is_none() {
                warn!(generation, "an unreadable record of a node is ignored");
            }
            record
        };
        let records: Vec<_> = all.iter().filter_map(read).collect();
        self.warn_of_old(&records);
        let (versions, nodes): (Vec<_>, Vec<_>) = records.into_iter().map(|(version, node, _)| (version, node)).unzip();
        self.version.agree(versions);
        Ok(nodes)
    }

    async fn leave(&self, generation: Generation) -> Result<(), BackendError> {
        let mut script = self.unregister.key(self.keys.leases());
        script.key(self.keys.names()).key(self.keys.nodes()).key(self.keys.epoch());
        script.key(self.keys.names_of(generation)).key(self.keys.memberships_of(generation.as_str()));
        script.key(self.keys.links()).key(self.keys.join_floor(generation)).key(self.keys.claims());
        script.key(self.keys.beats()).key(self.keys.running(generation)).key(self.keys.unused());
        script.arg(generation.as_str());
        self.client.run("leases", &script).await
    }

    async fn claim(&self, by: Generation, dead: Generation, seen_us: u64) -> Result<bool, BackendError> {
        self.reaper.claim(by, dead, seen_us).await
    }

    async fn renew_claim(&self, by: Generation, dead: Generation) -> Result<bool, BackendError> {
        self.reaper.renew_claim(by, dead).await
    }

    async fn next_leaves(&self, by: Generation, dead: Generation) -> Result<LeaveBatch, BackendError> {
        self.reaper.leaves(by, dead).await
    }

    async fn acknowledge_leaves(&self, by: Generation, dead: Generation, count: usize) -> Result<bool, BackendError> {
        self.reaper.trim_leaves(by, dead, count).await
    }
}

/// A record as it is stored in Redis.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredRecord {
    id: String,
    version: String,
    started_at: u64,
    roles: Vec<String>,
    #[serde(default)]
    earlier: Vec<String>,
    /// Its first generation; the records of the first release have none.
    #[serde(default)]
    boot: Option<String>,
    /// The newest version of envelopes that the node reads and writes.
    protocol: u32,
}

fn write(record: &NodeRecord) -> String {
    let record = StoredRecord {
        id: record.id.clone(),
        version: record.version.clone(),
        started_at: record.started_at,
        roles: record.roles.clone(),
        earlier: record.earlier.iter().map(Generation::to_string).collect(),
        boot: Some(record.boot.to_string()),
        protocol: VERSION,
    };
    serde_json::to_string(&record).expect("names and numbers are always JSON")
}

/// Parses a record; also returns the newest version of envelopes that its node reads, and whether it is of the first
/// release.
fn read(generation: Generation, text: &str) -> Option<(u32, NodeRecord, bool)> {
    let record: StoredRecord = serde_json::from_str(text).ok()?;
    let earlier: Vec<_> = record.earlier.iter().filter_map(|name| Generation::parse(name)).collect();
    let record_boot = record.boot.as_deref().and_then(Generation::parse);
    let boot = record_boot.or_else(|| earlier.first().copied()).unwrap_or(generation);
    let StoredRecord { id, version, started_at, roles, protocol, .. } = record;
    let is_old = record_boot.is_none();
    Some((protocol, NodeRecord { generation, boot, id, version, started_at, roles, earlier }, is_old))
}

fn ms(duration: Duration) -> u64 {
    us(duration) / 1000
}

pub(crate) fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
