//! Locks over Redis.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::{Script, cmd};
use phalanx_core::Generation;
use phalanx_core::backend::{BackendError, LockRecord, LockStore};

use crate::client::RedisClient;
use crate::current_generation::CurrentGeneration;
use crate::keys::{Keys, prefix_pattern};

/// Keys that one step of a scan examines.
const SCAN_COUNT: u64 = 1000;

/// How long the last token of a lock is stored beyond its lease. Afterwards tokens still rise, because a token is at least
/// the time in microseconds; only a clock that was set back by more than this could give a lower one.
const FENCE_MEMORY: Duration = Duration::from_secs(5 * 60);

/// The locks that all nodes share. Actionhero nodes see and respect them.
pub struct RedisLocks {
    client: RedisClient,
    keys: Keys,
    current: CurrentGeneration,
    acquire: Script,
    renew: Script,
    release: Script,
}

impl RedisLocks {
    /// Stores locks under these keys, for the node of this generation.
    pub fn new(client: RedisClient, keys: Keys, current: CurrentGeneration) -> Self {
        Self {
            client,
            keys,
            current,
            acquire: Script::new(include_str!("lua/locks/acquire.lua")),
            renew: Script::new(include_str!("lua/locks/renew.lua")),
            release: Script::new(include_str!("lua/locks/release.lua")),
        }
    }

    async fn read(&self, name: &str) -> Result<Option<LockRecord>, BackendError> {
        let key = self.keys.lock(name);
        let owner: Option<String> = self.client.read(name, cmd("GET").arg(&key)).await?;
        let Some(owner) = owner else { return Ok(None) };
        let left_ms: i64 = self.client.read(name, cmd("PTTL").arg(&key)).await?;
        // A lock without a ttl was left by an Actionhero node that died between SET and EXPIRE. The lock expired
        // between the two commands here if PTTL answers -2.
        let ttl = u64::try_from(left_ms).map_or(Duration::MAX, Duration::from_millis);
        Ok((left_ms != -2).then(|| LockRecord { name: name.to_owned(), owner, ttl }))
    }
}

impl fmt::Debug for RedisLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisLocks")
    }
}

#[async_trait]
impl LockStore for RedisLocks {
    async fn acquire(&self, name: &str, owner: &str, lease: Duration) -> Result<Option<u64>, BackendError> {
        let mut script = self.acquire.key(self.keys.lock(name));
        script
            .key(self.keys.fence(name))
            .key(self.keys.leases())
            .arg(owner)
            .arg(ms(lease))
            .arg(ms(lease + FENCE_MEMORY));
        script.arg(self.current.get().as_ref().map_or("", Generation::as_str));
        self.client.run(name, &script).await
    }

    async fn renew(&self, name: &str, owner: &str, lease: Duration) -> Result<bool, BackendError> {
        let mut script = self.renew.key(self.keys.lock(name));
        script.key(self.keys.fence(name)).arg(owner).arg(ms(lease)).arg(ms(lease + FENCE_MEMORY));
        self.client.run_idempotent(name, &script).await
    }

    async fn release(&self, name: &str, owner: &str) -> Result<bool, BackendError> {
        self.client.run_idempotent(name, self.release.key(self.keys.lock(name)).arg(owner)).await
    }

    async fn holder(&self, name: &str) -> Result<Option<LockRecord>, BackendError> {
        self.read(name).await
    }

    async fn list(&self, prefix: &str, most: usize) -> Result<Vec<LockRecord>, BackendError> {
        let key_prefix = self.keys.lock_prefix();
        let pattern = prefix_pattern(&format!("{key_prefix}{prefix}"));
        let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
            let (next, keys): (String, Vec<String>) = self.client.read(prefix, &scan).await?;
            for name in keys.iter().filter_map(|key| key.strip_prefix(&key_prefix)) {
                if found.len() == most {
                    return Ok(found);
                }
                found.extend(self.read(name).await?);
            }
            if next == "0" {
                return Ok(found);
            }
            cursor = next;
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
