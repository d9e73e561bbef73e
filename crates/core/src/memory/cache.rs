//! The cache of one node: a sorted map behind one lock, with an index of expiry times.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::locks::MemoryLocks;
use crate::backend::{BackendError, CacheStore, Clock, Dumped, Page, Stored};
use crate::metrics::bound_reached;

#[cfg(test)]
mod tests;

/// Most bytes of all keys and values together; beyond, writes are refused: accepted values are never evicted silently.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// Most expired keys that one write removes.
const SWEPT_PER_WRITE: usize = 16;

/// Most keys of one page.
const PAGE: usize = 256;

/// The cache of one node. Expired keys are invisible at once, and each write removes a few of them.
pub struct MemoryCache {
    table: Mutex<CacheTable>,
    locks: Arc<MemoryLocks>,
}

struct CacheTable {
    /// Times are its, in microseconds.
    clock: Arc<dyn Clock>,
    keys: BTreeMap<String, CachedKey>,
    expiring: BTreeSet<(u64, String)>,
    bytes: usize,
}

#[derive(Debug)]
struct CachedKey {
    content: KeyContent,
    expires: Option<u64>,
}

#[derive(Clone, Debug)]
enum KeyContent {
    Value(Bytes),
    List(VecDeque<Bytes>),
}

impl KeyContent {
    fn bytes(&self) -> usize {
        match self {
            Self::Value(value) => value.len(),
            Self::List(items) => items.iter().map(|item| item.len() + 32).sum(),
        }
    }
}

impl MemoryCache {
    /// Makes an empty cache that respects these locks, and follows their clock.
    pub fn new(locks: Arc<MemoryLocks>) -> Self {
        let clock = locks.clock().clone();
        let table = CacheTable { clock, keys: BTreeMap::new(), expiring: BTreeSet::new(), bytes: 0 };
        Self { table: Mutex::new(table), locks }
    }

    fn table(&self) -> MutexGuard<'_, CacheTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks the key's lock. Called under the table's mutex, so that an owner who acquires the lock after this check
    /// sees the write that follows it.
    fn check_lock(&self, key: &str, lock_owner: Option<&str>) -> Result<(), BackendError> {
        match self.locks.owner_of(key) {
            Some(owner) if Some(owner.as_str()) != lock_owner => Err(BackendError::Locked { key: key.to_owned() }),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryCache({})", self.table().keys.len())
    }
}

impl CacheTable {
    /// The end of a lifetime that begins now.
    fn expiry(&self, ttl: Duration) -> u64 {
        self.clock.now_us().saturating_add(u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX))
    }

    fn remaining(&self, expires: Option<u64>) -> Option<Duration> {
        expires.map(|at| Duration::from_micros(at.saturating_sub(self.clock.now_us())))
    }

    fn live(&mut self, key: &str) -> Option<&mut CachedKey> {
        let now = self.clock.now_us();
        self.keys.get_mut(key).filter(|entry| entry.expires.is_none_or(|at| at > now))
    }

    fn remove(&mut self, key: &str) -> Option<CachedKey> {
        let (key, entry) = self.keys.remove_entry(key)?;
        self.bytes -= key.len() + entry.content.bytes();
        if let Some(at) = entry.expires {
            self.expiring.remove(&(at, key));
        }
        Some(entry)
    }

    fn put(&mut self, key: &str, content: KeyContent, ttl: Option<Duration>) -> Result<(), BackendError> {
        self.sweep();
        let before = self.keys.get(key).map_or(0, |entry| key.len() + entry.content.bytes());
        let after = key.len() + content.bytes();
        if self.bytes - before + after > MAX_BYTES {
            return Err(full());
        }
        self.remove(key);
        let expires = ttl.map(|ttl| self.expiry(ttl));
        if let Some(at) = expires {
            self.expiring.insert((at, key.to_owned()));
        }
        self.bytes += after;
        self.keys.insert(key.to_owned(), CachedKey { content, expires });
        Ok(())
    }

    fn touch(&mut self, key: &str, ttl: Duration) {
        let at = self.expiry(ttl);
        if let Some(entry) = self.keys.get_mut(key) {
            if let Some(before) = entry.expires.replace(at) {
                self.expiring.remove(&(before, key.to_owned()));
            }
            self.expiring.insert((at, key.to_owned()));
        }
    }

    fn sweep(&mut self) {
        let now = self.clock.now_us();
        for _ in 0..SWEPT_PER_WRITE {
            match self.expiring.first() {
                Some((at, key)) if *at <= now => {
                    let key = key.clone();
                    self.remove(&key);
                }
                _ => break,
            }
        }
    }

    fn list(&mut self, key: &str) -> Result<Option<&mut VecDeque<Bytes>>, BackendError> {
        match self.live(key) {
            None => Ok(None),
            Some(CachedKey { content: KeyContent::List(items), .. }) => Ok(Some(items)),
            Some(CachedKey { content: KeyContent::Value(_), .. }) => {
                Err(BackendError::WrongKind { key: key.to_owned() })
            }
        }
    }
}

fn full() -> BackendError {
    bound_reached("memory_cache");
    BackendError::Full
}

#[async_trait]
impl CacheStore for MemoryCache {
    async fn get(
        &self,
        key: &str,
        touch: Option<Duration>,
        lock_owner: Option<&str>,
    ) -> Result<Option<Stored>, BackendError> {
        let mut table = self.table();
        self.check_lock(key, lock_owner)?;
        let (value, expires) = match table.live(key) {
            None => return Ok(None),
            Some(CachedKey { content: KeyContent::Value(value), expires }) => (value.clone(), *expires),
            Some(CachedKey { content: KeyContent::List(_), .. }) => {
                return Err(BackendError::WrongKind { key: key.to_owned() });
            }
        };
        if let Some(ttl) = touch {
            table.touch(key, ttl);
        }
        Ok(Some(Stored { value, ttl: touch.or_else(|| table.remaining(expires)) }))
    }

    async fn set(
        &self,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
        lock_owner: Option<&str>,
    ) -> Result<(), BackendError> {
        let mut table = self.table();
        self.check_lock(key, lock_owner)?;
        table.put(key, KeyContent::Value(value), ttl)
    }

    async fn delete(&self, key: &str, lock_owner: Option<&str>) -> Result<bool, BackendError> {
        let mut table = self.table();
        self.check_lock(key, lock_owner)?;
        let existed = table.live(key).is_some();
        table.remove(key);
        Ok(existed)
    }

    async fn add(&self, key: &str, by: i64) -> Result<i64, BackendError> {
        let mut table = self.table();
        let wrong = || BackendError::WrongKind { key: key.to_owned() };
        let (before, expires) = match table.live(key) {
            None => (0, None),
            Some(CachedKey { content: KeyContent::Value(value), expires }) => {
                let text = std::str::from_utf8(value).map_err(|_| wrong())?;
                (text.parse::<i64>().map_err(|_| wrong())?, *expires)
            }
            Some(CachedKey { content: KeyContent::List(_), .. }) => return Err(wrong()),
        };
        let after = before.checked_add(by).ok_or_else(wrong)?;
        let ttl = table.remaining(expires);
        table.put(key, KeyContent::Value(after.to_string().into()), ttl)?;
        Ok(after)
    }

    async fn push(&self, key: &str, item: Bytes) -> Result<u64, BackendError> {
        let mut table = self.table();
        let cost = item.len() + 32;
        table.sweep();
        if table.bytes + cost + key.len() > MAX_BYTES {
            return Err(full());
        }
        if let Some(items) = table.list(key)? {
            items.push_back(item);
            let len = items.len() as u64;
            table.bytes += cost;
            return Ok(len);
        }
        table.put(key, KeyContent::List(VecDeque::from([item])), None)?;
        Ok(1)
    }

    async fn pop(&self, key: &str) -> Result<Option<Bytes>, BackendError> {
        let mut table = self.table();
        let Some(items) = table.list(key)? else { return Ok(None) };
        let item = items.pop_front();
        let is_empty = items.is_empty();
        table.bytes -= item.as_ref().map_or(0, |item| item.len() + 32);
        if is_empty {
            table.remove(key);
        }
        Ok(item)
    }

    async fn range(&self, key: &str, start: u64, count: u64) -> Result<Vec<Bytes>, BackendError> {
        let mut table = self.table();
        let Some(items) = table.list(key)? else { return Ok(Vec::new()) };
        let (start, count) =
            (usize::try_from(start).unwrap_or(usize::MAX), usize::try_from(count).unwrap_or(usize::MAX));
        Ok(items.iter().skip(start).take(count).cloned().collect())
    }

    async fn len(&self, key: &str) -> Result<u64, BackendError> {
        Ok(self.table().list(key)?.map_or(0, |items| items.len() as u64))
    }

    async fn scan(&self, prefix: &str, from: Option<&str>) -> Result<Page, BackendError> {
        let table = self.table();
        let now = table.clock.now_us();
        let start = match from {
            Some(last) => Bound::Excluded(last.to_owned()),
            None => Bound::Included(prefix.to_owned()),
        };
        let range = table.keys.range((start, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(prefix));
        let mut page = Page::default();
        for (index, (key, entry)) in range.enumerate() {
            if index == PAGE {
                return Ok(page);
            }
            page.next = Some(key.clone());
            if entry.expires.is_none_or(|at| at > now) {
                page.keys.push(key.clone());
            }
        }
        page.next = None;
        Ok(page)
    }

    async fn dump(&self, key: &str) -> Result<Option<Dumped>, BackendError> {
        let mut table = self.table();
        let Some(CachedKey { content, expires }) = table.live(key) else { return Ok(None) };
        let (content, expires) = (content.clone(), *expires);
        let ttl = table.remaining(expires);
        Ok(Some(match content {
            KeyContent::Value(value) => Dumped::Value(Stored { value, ttl }),
            KeyContent::List(items) => Dumped::List(items.into(), ttl),
        }))
    }

    async fn restore(&self, key: &str, dumped: Dumped) -> Result<(), BackendError> {
        let mut table = self.table();
        match dumped {
            Dumped::Value(stored) => table.put(key, KeyContent::Value(stored.value), stored.ttl),
            Dumped::List(items, ttl) => table.put(key, KeyContent::List(items.into()), ttl),
        }
    }
}
