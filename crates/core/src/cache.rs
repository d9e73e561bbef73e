//! The cache that nodes share: values with a ttl, lists, counters.
//!
//! Values are stored as `{"value":…,"createdAt":ms}`, list items as `{"data":…}`: the format of Actionhero.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::backend::{BackendError, CacheStore, Clock, Page, Stored};
use crate::error::{ActionError, Detail, ErrorKind};
use crate::locks::{LockGuard, retry_pause};

mod dump;
#[cfg(test)]
mod tests;

/// The longest ttl; beyond, clocks overflow.
const MAX_TTL: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The cache that nodes share. Cheap to clone. Each operation on a key is atomic.
///
/// ```
/// use std::time::Duration;
///
/// use phalanx_core::{ActionError, Cache};
/// # use phalanx_core::backend::Backend;
/// # use phalanx_core::config::Config;
///
/// async fn count_visit(cache: &Cache, user: &str) -> Result<i64, ActionError> {
///     cache.save(&format!("last-user:{user}"), user, Some(Duration::from_secs(60))).await?;
///     cache.push("visits", user).await?;
///     cache.increment("visit-count", 1).await
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), ActionError> {
/// # let backend = Backend::memory(&Config::default());
/// # let cache = Cache::new(backend.cache, backend.clock);
///
/// assert_eq!(count_visit(&cache, "ann").await?, 1);
/// assert_eq!(count_visit(&cache, "bob").await?, 2);
/// let saved = cache.load::<String>("last-user:ann").await?.expect("it has not expired");
/// assert_eq!(saved.value, "ann");
/// assert_eq!(cache.list::<String>("visits", 0, 10).await?, ["ann", "bob"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Cache {
    store: Arc<dyn CacheStore>,
    clock: Arc<dyn Clock>,
    lock_owner: Option<Arc<str>>,
    retry: Duration,
}

/// A saved value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// The key.
    pub key: String,
    /// The value.
    pub value: T,
    /// The time at which it was saved, Unix time in milliseconds.
    pub created_at: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CachedValue<T> {
    value: T,
    created_at: u64,
}

#[derive(Serialize, Deserialize)]
struct CachedItem<T> {
    data: T,
}

impl Cache {
    /// Most bytes of a key.
    pub const MAX_KEY: usize = 512;
    /// Most bytes of one value or item, encoded.
    pub const MAX_VALUE: usize = 8 * 1024 * 1024;

    /// The longest wait for a key's lock.
    pub const MAX_RETRY: Duration = Duration::from_secs(60);

    /// Makes a cache over a store.
    pub fn new(store: Arc<dyn CacheStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, lock_owner: None, retry: Duration::ZERO }
    }

    /// The same cache for the owner of a lock: it may use the key of the lock's name, which is closed to all others.
    pub fn holding(&self, guard: &LockGuard) -> Self {
        Self { lock_owner: Some(guard.owner().into()), ..self.clone() }
    }

    /// The same cache, which waits for a key's lock instead of failing with `locked`: at most `retry`, and at most
    /// [`Cache::MAX_RETRY`].
    pub fn retrying(&self, retry: Duration) -> Self {
        Self { retry: retry.min(Self::MAX_RETRY), ..self.clone() }
    }

    /// Repeats an operation until the key's lock is free, for as long as this cache waits. It never ignores the lock.
    async fn retry_locked<T, F>(&self, operation: impl Fn() -> F) -> Result<T, BackendError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        let end = Instant::now() + self.retry;
        loop {
            let locked = match operation().await {
                Err(locked @ BackendError::Locked { .. }) => locked,
                result => return result,
            };
            let pause = retry_pause();
            if Instant::now() + pause > end {
                return Err(locked);
            }
            sleep(pause).await;
        }
    }

    /// Saves a value and its ttl; without one the value remains until it is destroyed.
    ///
    /// # Errors
    ///
    /// `locked` if another owner has the key's lock, `payload_too_large` beyond [`Cache::MAX_VALUE`].
    pub async fn save<T: Serialize + ?Sized>(
        &self,
        key: &str,
        value: &T,
        ttl: Option<Duration>,
    ) -> Result<(), ActionError> {
        check_key(key)?;
        let text = encode(&CachedValue { value, created_at: self.clock.now_ms() })?;
        let ttl = ttl.map(bounded);
        Ok(self.retry_locked(|| self.store.set(key, text.clone(), ttl, self.lock_owner.as_deref())).await?)
    }

    /// Loads a value; `None` if it does not exist or has expired.
    ///
    /// # Errors
    ///
    /// `locked` if another owner has the key's lock, `internal` if the stored value is not a `T`.
    pub async fn load<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Entry<T>>, ActionError> {
        self.read(key, None).await
    }

    /// Loads a value and gives it a new ttl, atomically.
    ///
    /// # Errors
    ///
    /// Those of [`Cache::load`].
    pub async fn load_and_extend<T: DeserializeOwned>(
        &self,
        key: &str,
        ttl: Duration,
    ) -> Result<Option<Entry<T>>, ActionError> {
        self.read(key, Some(bounded(ttl))).await
    }

    async fn read<T: DeserializeOwned>(
        &self,
        key: &str,
        touch: Option<Duration>,
    ) -> Result<Option<Entry<T>>, ActionError> {
        check_key(key)?;
        let stored = self.retry_locked(|| self.store.get(key, touch, self.lock_owner.as_deref())).await?;
        let Some(Stored { value, .. }) = stored else { return Ok(None) };
        let CachedValue { value, created_at } = decode(&value)?;
        Ok(Some(Entry { key: key.to_owned(), value, created_at }))
    }

    /// Destroys a key; returns whether it existed.
    ///
    /// # Errors
    ///
    /// `locked` if another owner has the key's lock.
    pub async fn destroy(&self, key: &str) -> Result<bool, ActionError> {
        check_key(key)?;
        Ok(self.retry_locked(|| self.store.delete(key, self.lock_owner.as_deref())).await?)
    }

    /// Adds to a counter, which starts at zero, and returns its new value.
    ///
    /// # Errors
    ///
    /// `internal` if the key is not a counter, or the counter would overflow 64 bits.
    pub async fn increment(&self, key: &str, by: i64) -> Result<i64, ActionError> {
        check_key(key)?;
        Ok(self.store.add(key, by).await?)
    }

    /// Reads a counter; one that does not exist is zero.
    ///
    /// # Errors
    ///
    /// `locked` if another owner has the key's lock, `internal` if the key is not a counter.
    pub async fn counter(&self, key: &str) -> Result<i64, ActionError> {
        check_key(key)?;
        let stored = self.retry_locked(|| self.store.get(key, None, self.lock_owner.as_deref())).await?;
        stored.map_or(Ok(0), |stored| decode(&stored.value))
    }

    /// Appends to a list and returns its length.
    ///
    /// # Errors
    ///
    /// `internal` if the key is not a list.
    pub async fn push<T: Serialize + ?Sized>(&self, key: &str, item: &T) -> Result<u64, ActionError> {
        check_key(key)?;
        Ok(self.store.push(key, encode(&CachedItem { data: item })?).await?)
    }

    /// Removes and returns the first item of a list.
    ///
    /// # Errors
    ///
    /// `internal` if the key is not a list, or the item is not a `T`: the item is removed all the same.
    pub async fn pop<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ActionError> {
        check_key(key)?;
        let item = self.store.pop(key).await?;
        item.map(|item| decode::<CachedItem<T>>(&item).map(|item| item.data)).transpose()
    }

    /// Reads `count` items of a list from `start` on.
    ///
    /// # Errors
    ///
    /// `internal` if the key is not a list, or an item is not a `T`.
    pub async fn list<T: DeserializeOwned>(&self, key: &str, start: u64, count: u64) -> Result<Vec<T>, ActionError> {
        check_key(key)?;
        let items = self.store.range(key, start, count).await?;
        items.iter().map(|item| decode::<CachedItem<T>>(item).map(|item| item.data)).collect()
    }

    /// The length of a list.
    ///
    /// # Errors
    ///
    /// `internal` if the key is not a list.
    pub async fn list_length(&self, key: &str) -> Result<u64, ActionError> {
        check_key(key)?;
        Ok(self.store.len(key).await?)
    }

    /// Lists keys with a prefix, a page at a time. `from` is [`Page::next`] of the page before.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn keys(&self, prefix: &str, from: Option<&str>) -> Result<Page, ActionError> {
        Ok(self.store.scan(prefix, from).await?)
    }

    /// Counts all keys.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn size(&self) -> Result<u64, ActionError> {
        let (mut count, mut from) = (0, None);
        loop {
            let page = self.keys("", from.as_deref()).await?;
            count += page.keys.len() as u64;
            match page.next {
                Some(next) => from = Some(next),
                None => return Ok(count),
            }
        }
    }

    /// Destroys every key with a prefix, except those locked by others; returns how many.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer; some keys may be destroyed by then.
    pub async fn clear(&self, prefix: &str) -> Result<u64, ActionError> {
        let (mut count, mut from) = (0, None);
        loop {
            let page = self.keys(prefix, from.as_deref()).await?;
            for key in &page.keys {
                match self.store.delete(key, self.lock_owner.as_deref()).await {
                    Ok(deleted) => count += u64::from(deleted),
                    Err(BackendError::Locked { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            match page.next {
                Some(next) => from = Some(next),
                None => return Ok(count),
            }
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cache")
    }
}

fn bounded(ttl: Duration) -> Duration {
    ttl.min(MAX_TTL)
}

fn check_key(key: &str) -> Result<(), ActionError> {
    if (1..=Cache::MAX_KEY).contains(&key.len()) && !key.contains(char::is_control) {
        return Ok(());
    }
    let detail = Detail::new("key", "length", "must have 1 to 512 bytes, none of them control characters");
    Err(ActionError::invalid_input(vec![detail]))
}

fn encode<T: Serialize>(value: &T) -> Result<Bytes, ActionError> {
    let text = serde_json::to_vec(value).map_err(ActionError::internal)?;
    if text.len() > Cache::MAX_VALUE {
        return Err(ActionError::of(ErrorKind::PayloadTooLarge, "the value is too large for the cache"));
    }
    Ok(text.into())
}

fn decode<T: DeserializeOwned>(text: &[u8]) -> Result<T, ActionError> {
    serde_json::from_slice(text).map_err(ActionError::internal)
}
