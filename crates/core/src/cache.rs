//! What nodes share: values with a lifetime, lists, counters.
//!
//! Values travel in the envelope `{"value":…,"createdAt":ms}`, list items in `{"data":…}`, as Actionhero keeps them.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::backend::{BackendError, CacheStore, Clock, Dumped, Page, Stored};
use crate::error::{ActionError, Detail, ErrorKind};
use crate::locks::{LockGuard, look_away};

#[cfg(test)]
mod tests;

/// The longest lifetime; beyond, clocks overflow.
const LONGEST_LIFE: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The cache that nodes share. Cheap to clone. Each call is one step: nobody sees half of it.
#[derive(Clone)]
pub struct Cache {
    store: Arc<dyn CacheStore>,
    clock: Arc<dyn Clock>,
    holder: Option<Arc<str>>,
    retry: Duration,
}

/// A value as it was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// Its key.
    pub key: String,
    /// The value.
    pub value: T,
    /// When it was saved, Unix time in milliseconds.
    pub created_at: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<T> {
    value: T,
    created_at: u64,
}

#[derive(Serialize, Deserialize)]
struct Item<T> {
    data: T,
}

impl Cache {
    /// Most bytes of a key.
    pub const MAX_KEY: usize = 512;
    /// Most bytes of one value or item, encoded.
    pub const MAX_VALUE: usize = 8 * 1024 * 1024;

    /// The longest that anybody waits for a key's lock.
    pub const MAX_RETRY: Duration = Duration::from_secs(60);

    /// Makes a cache over a backend.
    pub fn new(store: Arc<dyn CacheStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, holder: None, retry: Duration::ZERO }
    }

    /// The same cache for who holds a lock: the key of the lock's name is open to it and to nobody else.
    pub fn holding(&self, guard: &LockGuard) -> Self {
        Self { holder: Some(guard.owner().into()), ..self.clone() }
    }

    /// The same cache for who would rather wait than hear `locked`: at most `retry`, and at most
    /// [`Cache::MAX_RETRY`], until the key's lock is free.
    pub fn retrying(&self, retry: Duration) -> Self {
        Self { retry: retry.min(Self::MAX_RETRY), ..self.clone() }
    }

    /// Asks until the key's lock is free, or as long as this cache waits for it. Never past the lock.
    async fn once_free<T, F>(&self, ask: impl Fn() -> F) -> Result<T, BackendError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        let end = Instant::now() + self.retry;
        loop {
            let locked = match ask().await {
                Err(locked @ BackendError::Locked { .. }) => locked,
                answer => return answer,
            };
            let pause = look_away();
            if Instant::now() + pause > end {
                return Err(locked);
            }
            sleep(pause).await;
        }
    }

    /// Saves a value; without a `ttl` it stays until it is destroyed.
    ///
    /// # Errors
    ///
    /// `locked` if somebody else holds the key's lock, `payload_too_large` beyond [`Cache::MAX_VALUE`].
    pub async fn save<T: Serialize + ?Sized>(
        &self,
        key: &str,
        value: &T,
        ttl: Option<Duration>,
    ) -> Result<(), ActionError> {
        check_key(key)?;
        let text = encode(&Envelope { value, created_at: self.clock.now_ms() })?;
        let ttl = ttl.map(life);
        Ok(self.once_free(|| self.store.set(key, text.clone(), ttl, self.holder.as_deref())).await?)
    }

    /// Loads a value, if it is there and has not expired.
    ///
    /// # Errors
    ///
    /// `locked` if somebody else holds the key's lock, `internal` if what is stored is no `T`.
    pub async fn load<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Entry<T>>, ActionError> {
        self.read(key, None).await
    }

    /// Loads a value and gives it a new lifetime in the same step.
    ///
    /// # Errors
    ///
    /// Those of [`Cache::load`].
    pub async fn load_and_extend<T: DeserializeOwned>(
        &self,
        key: &str,
        ttl: Duration,
    ) -> Result<Option<Entry<T>>, ActionError> {
        self.read(key, Some(life(ttl))).await
    }

    async fn read<T: DeserializeOwned>(
        &self,
        key: &str,
        touch: Option<Duration>,
    ) -> Result<Option<Entry<T>>, ActionError> {
        check_key(key)?;
        let stored = self.once_free(|| self.store.get(key, touch, self.holder.as_deref())).await?;
        let Some(Stored { value, .. }) = stored else { return Ok(None) };
        let Envelope { value, created_at } = decode(&value)?;
        Ok(Some(Entry { key: key.to_owned(), value, created_at }))
    }

    /// Destroys what is under a key; says whether there was anything.
    ///
    /// # Errors
    ///
    /// `locked` if somebody else holds the key's lock.
    pub async fn destroy(&self, key: &str) -> Result<bool, ActionError> {
        check_key(key)?;
        Ok(self.once_free(|| self.store.delete(key, self.holder.as_deref())).await?)
    }

    /// Adds to a counter, which starts at zero, and answers what it is now.
    ///
    /// # Errors
    ///
    /// `internal` if the key holds something else, or the counter would leave 64 bits.
    pub async fn increment(&self, key: &str, by: i64) -> Result<i64, ActionError> {
        check_key(key)?;
        Ok(self.store.add(key, by).await?)
    }

    /// Reads a counter; one that nobody has added to is zero.
    ///
    /// # Errors
    ///
    /// `locked` if somebody else holds the key's lock, `internal` if the key holds something else.
    pub async fn counter(&self, key: &str) -> Result<i64, ActionError> {
        check_key(key)?;
        let stored = self.once_free(|| self.store.get(key, None, self.holder.as_deref())).await?;
        stored.map_or(Ok(0), |stored| decode(&stored.value))
    }

    /// Appends to a list and answers its length.
    ///
    /// # Errors
    ///
    /// `internal` if the key holds something else.
    pub async fn push<T: Serialize + ?Sized>(&self, key: &str, item: &T) -> Result<u64, ActionError> {
        check_key(key)?;
        Ok(self.store.push(key, encode(&Item { data: item })?).await?)
    }

    /// Takes the first item off a list.
    ///
    /// # Errors
    ///
    /// `internal` if the key holds something else, or the item is no `T`: it is gone then.
    pub async fn pop<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ActionError> {
        check_key(key)?;
        let item = self.store.pop(key).await?;
        item.map(|item| decode::<Item<T>>(&item).map(|item| item.data)).transpose()
    }

    /// Reads `count` items of a list from `start` on.
    ///
    /// # Errors
    ///
    /// `internal` if the key holds something else, or an item is no `T`.
    pub async fn list<T: DeserializeOwned>(&self, key: &str, start: u64, count: u64) -> Result<Vec<T>, ActionError> {
        check_key(key)?;
        let items = self.store.range(key, start, count).await?;
        items.iter().map(|item| decode::<Item<T>>(item).map(|item| item.data)).collect()
    }

    /// How long a list is.
    ///
    /// # Errors
    ///
    /// `internal` if the key holds something else.
    pub async fn list_length(&self, key: &str) -> Result<u64, ActionError> {
        check_key(key)?;
        Ok(self.store.len(key).await?)
    }

    /// Lists keys that begin with `prefix`, a page at a time, from where the last page said.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn keys(&self, prefix: &str, from: Option<&str>) -> Result<Page, ActionError> {
        Ok(self.store.scan(prefix, from).await?)
    }

    /// How many keys there are.
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

    /// Destroys every key that begins with `prefix`, but those somebody else has locked; says how many.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer; some may be destroyed then.
    pub async fn clear(&self, prefix: &str) -> Result<u64, ActionError> {
        let (mut count, mut from) = (0, None);
        loop {
            let page = self.keys(prefix, from.as_deref()).await?;
            for key in &page.keys {
                match self.store.delete(key, self.holder.as_deref()).await {
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

    /// Writes everything to a file, locked or not, lifetimes too, a line a key; says how many keys. Each key is written as
    /// it stood at one moment, not all at the same. The file is whole or as it was before.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer, `internal` if the file cannot be written.
    pub async fn dump_write(&self, path: &Path) -> Result<u64, ActionError> {
        let (mut lines, mut count, mut from) = (Vec::new(), 0, None);
        loop {
            let page = self.keys("", from.as_deref()).await?;
            for key in page.keys {
                if let Some(dumped) = self.store.dump(&key).await? {
                    serde_json::to_writer(&mut lines, &Line::of(key, dumped)).map_err(ActionError::internal)?;
                    lines.push(b'\n');
                    count += 1;
                }
            }
            match page.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        let beside = path.with_extension("part");
        tokio::fs::write(&beside, lines).await.map_err(ActionError::internal)?;
        tokio::fs::rename(&beside, path).await.map_err(ActionError::internal)?;
        Ok(count)
    }

    /// Puts back what [`Cache::dump_write`] wrote, in place of keys of the same name, locked or not; other keys stay. Says
    /// how many keys. Lifetimes go on from where they were when the file was written.
    ///
    /// # Errors
    ///
    /// `internal` if the file cannot be read: nothing is changed then; `unavailable` if the backend does not answer: the
    /// keys before that line of the file are put back.
    pub async fn dump_read(&self, path: &Path) -> Result<u64, ActionError> {
        let text = tokio::fs::read_to_string(path).await.map_err(ActionError::internal)?;
        let lines = text.lines().map(|line| serde_json::from_str::<Line>(line)?.into_dumped());
        let keys = lines.collect::<io::Result<Vec<_>>>().map_err(ActionError::internal)?;
        let count = keys.len() as u64;
        for (key, dumped) in keys {
            self.store.restore(&key, dumped).await?;
        }
        Ok(count)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cache")
    }
}

/// A key in a file.
#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    ttl_ms: Option<u64>,
    value: Option<String>,
    list: Option<Vec<String>>,
}

impl Line {
    fn of(key: String, dumped: Dumped) -> Self {
        let ms = |ttl: Option<Duration>| ttl.map(|ttl| ttl.as_millis() as u64);
        match dumped {
            Dumped::Value(Stored { value, ttl }) => {
                Self { key, ttl_ms: ms(ttl), value: Some(STANDARD.encode(value)), list: None }
            }
            Dumped::List(items, ttl) => {
                let items = items.iter().map(|item| STANDARD.encode(item)).collect();
                Self { key, ttl_ms: ms(ttl), value: None, list: Some(items) }
            }
        }
    }

    fn into_dumped(self) -> io::Result<(String, Dumped)> {
        let bytes = |text: String| STANDARD.decode(text).map(Bytes::from).map_err(io::Error::other);
        let ttl = self.ttl_ms.map(Duration::from_millis).map(life);
        let dumped = match (self.value, self.list) {
            (Some(value), _) => Dumped::Value(Stored { value: bytes(value)?, ttl }),
            (None, list) => {
                let items = list.unwrap_or_default().into_iter().map(bytes).collect::<io::Result<Vec<_>>>()?;
                Dumped::List(items, ttl)
            }
        };
        Ok((self.key, dumped))
    }
}

fn life(ttl: Duration) -> Duration {
    ttl.min(LONGEST_LIFE)
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
