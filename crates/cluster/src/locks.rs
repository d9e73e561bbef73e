//! Locks over Redis.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::{Script, cmd};
use phalanx_core::Generation;
use phalanx_core::backend::{BackendError, Held, LockStore};

use crate::client::Client;
use crate::current_generation::OwnName;
use crate::keys::{Keys, beginning_with};

/// Keys that one step of a scan looks at.
const SCANNED: u64 = 1000;

/// How long the last token of a lock is remembered. Beyond, the time in microseconds keeps tokens rising.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// The locks that nodes share. Actionhero nodes see them, and respect them.
pub struct RedisLocks {
    client: Client,
    keys: Keys,
    own: OwnName,
    acquire: Script,
    renew: Script,
    release: Script,
}

impl RedisLocks {
    /// Keeps locks under these keys, for the node that bears this name.
    pub fn new(client: Client, keys: Keys, own: OwnName) -> Self {
        Self {
            client,
            keys,
            own,
            acquire: Script::new(include_str!("lua/locks/acquire.lua")),
            renew: Script::new(include_str!("lua/locks/renew.lua")),
            release: Script::new(include_str!("lua/locks/release.lua")),
        }
    }

    async fn held(&self, name: &str) -> Result<Option<Held>, BackendError> {
        let key = self.keys.lock(name);
        let owner: Option<String> = self.client.read(name, cmd("GET").arg(&key)).await?;
        let Some(owner) = owner else { return Ok(None) };
        let left: i64 = self.client.read(name, cmd("PTTL").arg(&key)).await?;
        // A lock without a lease is one that an Actionhero node left when it died between two commands.
        let ttl = u64::try_from(left).map_or(Duration::MAX, Duration::from_millis);
        Ok((left != -2).then(|| Held { name: name.to_owned(), owner, ttl }))
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
        script.key(self.keys.fence(name)).key(self.keys.leases()).arg(owner).arg(ms(lease)).arg(ms(REMEMBERED));
        script.arg(self.own.get().as_ref().map_or("", Generation::as_str));
        self.client.run(name, &script).await
    }

    async fn renew(&self, name: &str, owner: &str, lease: Duration) -> Result<bool, BackendError> {
        self.client.run_again(name, self.renew.key(self.keys.lock(name)).arg(owner).arg(ms(lease))).await
    }

    async fn release(&self, name: &str, owner: &str) -> Result<bool, BackendError> {
        self.client.run_again(name, self.release.key(self.keys.lock(name)).arg(owner)).await
    }

    async fn holder(&self, name: &str) -> Result<Option<Held>, BackendError> {
        self.held(name).await
    }

    async fn list(&self, prefix: &str, most: usize) -> Result<Vec<Held>, BackendError> {
        let begin = self.keys.lock_prefix();
        let pattern = beginning_with(&format!("{begin}{prefix}"));
        let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCANNED);
            let (next, keys): (String, Vec<String>) = self.client.read(prefix, &scan).await?;
            for name in keys.iter().filter_map(|key| key.strip_prefix(&begin)) {
                if found.len() == most {
                    return Ok(found);
                }
                found.extend(self.held(name).await?);
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
