//! Values, lists and counters over Redis.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use deadpool_redis::redis::{Script, cmd};
use phalanx_core::backend::{BackendError, CacheStore, Dumped, Page, Stored};

use crate::client::RedisClient;
use crate::keys::{Keys, prefix_pattern};

/// Keys that one step of a scan examines.
const SCAN_COUNT: u64 = 1000;

/// The cache that all nodes share, Actionhero nodes included.
pub struct RedisCache {
    client: RedisClient,
    keys: Keys,
    get: Script,
    set: Script,
    delete: Script,
    dump: Script,
    restore: Script,
}

impl RedisCache {
    /// Stores values under these keys.
    pub fn new(client: RedisClient, keys: Keys) -> Self {
        Self {
            client,
            keys,
            get: Script::new(include_str!("lua/cache/get.lua")),
            set: Script::new(include_str!("lua/cache/set.lua")),
            delete: Script::new(include_str!("lua/cache/delete.lua")),
            dump: Script::new(include_str!("lua/cache/dump.lua")),
            restore: Script::new(include_str!("lua/cache/restore.lua")),
        }
    }
}

impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisCache")
    }
}

#[async_trait]
impl CacheStore for RedisCache {
    async fn get(
        &self,
        key: &str,
        touch: Option<Duration>,
        holder: Option<&str>,
    ) -> Result<Option<Stored>, BackendError> {
        let mut script = self.get.key(self.keys.cache(key));
        script.key(self.keys.lock(key)).arg(holder.unwrap_or_default()).arg(ttl_argument(touch));
        let (value, left_ms): (Option<Vec<u8>>, i64) = self.client.run_idempotent(key, &script).await?;
        Ok(value.map(|value| Stored { value: value.into(), ttl: parse_pttl(left_ms) }))
    }

    async fn set(
        &self,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
        holder: Option<&str>,
    ) -> Result<(), BackendError> {
        let mut script = self.set.key(self.keys.cache(key));
        script.key(self.keys.lock(key)).arg(holder.unwrap_or_default()).arg(&*value).arg(ttl_argument(ttl));
        self.client.run(key, &script).await
    }

    async fn delete(&self, key: &str, holder: Option<&str>) -> Result<bool, BackendError> {
        let mut script = self.delete.key(self.keys.cache(key));
        script.key(self.keys.lock(key)).arg(holder.unwrap_or_default());
        self.client.run(key, &script).await
    }

    async fn add(&self, key: &str, by: i64) -> Result<i64, BackendError> {
        self.client.query(key, cmd("INCRBY").arg(self.keys.cache(key)).arg(by)).await
    }

    async fn push(&self, key: &str, item: Bytes) -> Result<u64, BackendError> {
        self.client.query(key, cmd("RPUSH").arg(self.keys.cache(key)).arg(&*item)).await
    }

    async fn pop(&self, key: &str) -> Result<Option<Bytes>, BackendError> {
        let item: Option<Vec<u8>> = self.client.query(key, cmd("LPOP").arg(self.keys.cache(key))).await?;
        Ok(item.map(Bytes::from))
    }

    async fn range(&self, key: &str, start: u64, count: u64) -> Result<Vec<Bytes>, BackendError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let start = i64::try_from(start).unwrap_or(i64::MAX);
        let last = start.saturating_add(i64::try_from(count - 1).unwrap_or(i64::MAX));
        let range = cmd("LRANGE").arg(self.keys.cache(key)).arg(start).arg(last).to_owned();
        let items: Vec<Vec<u8>> = self.client.read(key, &range).await?;
        Ok(items.into_iter().map(Bytes::from).collect())
    }

    async fn len(&self, key: &str) -> Result<u64, BackendError> {
        self.client.read(key, cmd("LLEN").arg(self.keys.cache(key))).await
    }

    async fn scan(&self, prefix: &str, from: Option<&str>) -> Result<Page, BackendError> {
        let key_prefix = self.keys.cache_prefix();
        let pattern = prefix_pattern(&format!("{key_prefix}{prefix}"));
        let mut scan = cmd("SCAN");
        scan.arg(from.unwrap_or("0")).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT);
        let (next, found): (String, Vec<String>) = self.client.read(prefix, &scan).await?;
        let keys = found.iter().filter_map(|key| key.strip_prefix(&key_prefix)).map(str::to_owned).collect();
        Ok(Page { keys, next: (next != "0").then_some(next) })
    }

    async fn dump(&self, key: &str) -> Result<Option<Dumped>, BackendError> {
        let script = self.dump.key(self.keys.cache(key));
        let (kind, left_ms, mut items): (String, i64, Vec<Vec<u8>>) = self.client.run_idempotent(key, &script).await?;
        Ok(match kind.as_str() {
            "list" => Some(Dumped::List(items.into_iter().map(Bytes::from).collect(), parse_pttl(left_ms))),
            _ => items.pop().map(|value| Dumped::Value(Stored { value: value.into(), ttl: parse_pttl(left_ms) })),
        })
    }

    async fn restore(&self, key: &str, dumped: Dumped) -> Result<(), BackendError> {
        let (kind, items, ttl) = match dumped {
            Dumped::Value(stored) => ("string", vec![stored.value], stored.ttl),
            Dumped::List(items, ttl) => ("list", items, ttl),
        };
        let mut script = self.restore.key(self.keys.cache(key));
        script.arg(kind).arg(ttl_argument(ttl));
        for item in &items {
            script.arg(&**item);
        }
        self.client.run(key, &script).await
    }
}

/// A ttl as scripts take it: milliseconds, or an empty text for none. Redis refuses a ttl of zero.
fn ttl_argument(ttl: Option<Duration>) -> String {
    ttl.map_or_else(String::new, |ttl| ttl.as_millis().max(1).to_string())
}

/// Parses the reply of PTTL: less than zero means no ttl.
fn parse_pttl(left_ms: i64) -> Option<Duration> {
    u64::try_from(left_ms).ok().map(Duration::from_millis)
}
