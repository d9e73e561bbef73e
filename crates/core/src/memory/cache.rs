//! The cache of one node: a sorted map behind one lock, with what expires beside it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::locks::MemoryLocks;
use crate::backend::{BackendError, CacheStore, Dumped, Page, Stored};
use crate::metrics::bound_reached;

#[cfg(test)]
mod tests;

/// Most bytes of all keys and values together; beyond, writes are refused, since nothing accepted is lost silently.
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// How many expired keys a write removes.
const SWEPT_PER_WRITE: usize = 16;

/// Keys of one page.
const PAGE: usize = 256;

/// The cache of one node. Expired keys are invisible at once, and removed a few with each write.
#[derive(Debug)]
pub struct MemoryCache {
    shelves: Mutex<Shelves>,
    locks: Arc<MemoryLocks>,
}

#[derive(Debug, Default)]
struct Shelves {
    keys: BTreeMap<String, Entry>,
    expiring: BTreeSet<(Instant, String)>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    held: Holding,
    expires: Option<Instant>,
}

#[derive(Debug)]
enum Holding {
    Value(Bytes),
    List(VecDeque<Bytes>),
}

impl Holding {
    fn bytes(&self) -> usize {
        match self {
            Self::Value(value) => value.len(),
            Self::List(items) => items.iter().map(|item| item.len() + 32).sum(),
        }
    }
}

impl MemoryCache {
    /// Makes an empty cache that respects these locks.
    pub fn new(locks: Arc<MemoryLocks>) -> Self {
        Self { shelves: Mutex::default(), locks }
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asked while the shelves are held: who takes the lock meanwhile sees what is written now.
    fn check_lock(&self, key: &str, holder: Option<&str>) -> Result<(), BackendError> {
        match self.locks.owner_of(key) {
            Some(owner) if Some(owner.as_str()) != holder => Err(BackendError::Locked { key: key.to_owned() }),
            _ => Ok(()),
        }
    }
}

impl Shelves {
    fn live(&mut self, key: &str) -> Option<&mut Entry> {
        let now = Instant::now();
        self.keys.get_mut(key).filter(|entry| entry.expires.is_none_or(|at| at > now))
    }

    fn remove(&mut self, key: &str) -> Option<Entry> {
        let (key, entry) = self.keys.remove_entry(key)?;
        self.bytes -= key.len() + entry.held.bytes();
        if let Some(at) = entry.expires {
            self.expiring.remove(&(at, key));
        }
        Some(entry)
    }

    fn put(&mut self, key: &str, held: Holding, ttl: Option<Duration>) -> Result<(), BackendError> {
        self.sweep();
        let before = self.keys.get(key).map_or(0, |entry| key.len() + entry.held.bytes());
        let after = key.len() + held.bytes();
        if self.bytes - before + after > MOST_BYTES {
            return Err(full());
        }
        self.remove(key);
        let expires = ttl.map(|ttl| Instant::now() + ttl);
        if let Some(at) = expires {
            self.expiring.insert((at, key.to_owned()));
        }
        self.bytes += after;
        self.keys.insert(key.to_owned(), Entry { held, expires });
        Ok(())
    }

    fn touch(&mut self, key: &str, ttl: Duration) {
        let at = Instant::now() + ttl;
        if let Some(entry) = self.keys.get_mut(key) {
            if let Some(before) = entry.expires.replace(at) {
                self.expiring.remove(&(before, key.to_owned()));
            }
            self.expiring.insert((at, key.to_owned()));
        }
    }

    fn sweep(&mut self) {
        let now = Instant::now();
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
            Some(Entry { held: Holding::List(items), .. }) => Ok(Some(items)),
            Some(Entry { held: Holding::Value(_), .. }) => Err(BackendError::WrongKind { key: key.to_owned() }),
        }
    }
}

fn full() -> BackendError {
    bound_reached("memory_cache");
    BackendError::Full
}

fn left(expires: Option<Instant>) -> Option<Duration> {
    expires.map(|at| at.saturating_duration_since(Instant::now()))
}

#[async_trait]
impl CacheStore for MemoryCache {
    async fn get(
        &self,
        key: &str,
        touch: Option<Duration>,
        holder: Option<&str>,
    ) -> Result<Option<Stored>, BackendError> {
        let mut shelves = self.shelves();
        self.check_lock(key, holder)?;
        let stored = match shelves.live(key) {
            None => return Ok(None),
            Some(Entry { held: Holding::Value(value), expires }) => {
                Stored { value: value.clone(), ttl: touch.or_else(|| left(*expires)) }
            }
            Some(Entry { held: Holding::List(_), .. }) => {
                return Err(BackendError::WrongKind { key: key.to_owned() });
            }
        };
        if let Some(ttl) = touch {
            shelves.touch(key, ttl);
        }
        Ok(Some(stored))
    }

    async fn set(
        &self,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
        holder: Option<&str>,
    ) -> Result<(), BackendError> {
        let mut shelves = self.shelves();
        self.check_lock(key, holder)?;
        shelves.put(key, Holding::Value(value), ttl)
    }

    async fn delete(&self, key: &str, holder: Option<&str>) -> Result<bool, BackendError> {
        let mut shelves = self.shelves();
        self.check_lock(key, holder)?;
        let lived = shelves.live(key).is_some();
        shelves.remove(key);
        Ok(lived)
    }

    async fn add(&self, key: &str, by: i64) -> Result<i64, BackendError> {
        let mut shelves = self.shelves();
        let wrong = || BackendError::WrongKind { key: key.to_owned() };
        let (before, ttl) = match shelves.live(key) {
            None => (0, None),
            Some(Entry { held: Holding::Value(value), expires }) => {
                let text = std::str::from_utf8(value).map_err(|_| wrong())?;
                (text.parse::<i64>().map_err(|_| wrong())?, left(*expires))
            }
            Some(Entry { held: Holding::List(_), .. }) => return Err(wrong()),
        };
        let after = before.checked_add(by).ok_or_else(wrong)?;
        shelves.put(key, Holding::Value(after.to_string().into()), ttl)?;
        Ok(after)
    }

    async fn push(&self, key: &str, item: Bytes) -> Result<u64, BackendError> {
        let mut shelves = self.shelves();
        let cost = item.len() + 32;
        shelves.sweep();
        if shelves.bytes + cost + key.len() > MOST_BYTES {
            return Err(full());
        }
        if let Some(items) = shelves.list(key)? {
            items.push_back(item);
            let len = items.len() as u64;
            shelves.bytes += cost;
            return Ok(len);
        }
        shelves.put(key, Holding::List(VecDeque::from([item])), None)?;
        Ok(1)
    }

    async fn pop(&self, key: &str) -> Result<Option<Bytes>, BackendError> {
        let mut shelves = self.shelves();
        let Some(items) = shelves.list(key)? else { return Ok(None) };
        let item = items.pop_front();
        let is_empty = items.is_empty();
        shelves.bytes -= item.as_ref().map_or(0, |item| item.len() + 32);
        if is_empty {
            shelves.remove(key);
        }
        Ok(item)
    }

    async fn range(&self, key: &str, start: u64, count: u64) -> Result<Vec<Bytes>, BackendError> {
        let mut shelves = self.shelves();
        let Some(items) = shelves.list(key)? else { return Ok(Vec::new()) };
        let (start, count) =
            (usize::try_from(start).unwrap_or(usize::MAX), usize::try_from(count).unwrap_or(usize::MAX));
        Ok(items.iter().skip(start).take(count).cloned().collect())
    }

    async fn len(&self, key: &str) -> Result<u64, BackendError> {
        Ok(self.shelves().list(key)?.map_or(0, |items| items.len() as u64))
    }

    async fn scan(&self, prefix: &str, from: Option<&str>) -> Result<Page, BackendError> {
        let shelves = self.shelves();
        let now = Instant::now();
        let start = match from {
            Some(last) => Bound::Excluded(last.to_owned()),
            None => Bound::Included(prefix.to_owned()),
        };
        let range = shelves.keys.range((start, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(prefix));
        let mut page = Page::default();
        for (seen, (key, entry)) in range.enumerate() {
            if seen == PAGE {
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
        let mut shelves = self.shelves();
        Ok(shelves.live(key).map(|entry| match &entry.held {
            Holding::Value(value) => Dumped::Value(Stored { value: value.clone(), ttl: left(entry.expires) }),
            Holding::List(items) => Dumped::List(items.iter().cloned().collect(), left(entry.expires)),
        }))
    }

    async fn restore(&self, key: &str, dumped: Dumped) -> Result<(), BackendError> {
        let mut shelves = self.shelves();
        match dumped {
            Dumped::Value(stored) => shelves.put(key, Holding::Value(stored.value), stored.ttl),
            Dumped::List(items, ttl) => shelves.put(key, Holding::List(items.into()), ttl),
        }
    }
}
