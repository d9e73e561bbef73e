//! The seam for values, lists and counters. Every method is atomic.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::error::BackendError;

/// A value and its remaining time to live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The value.
    pub value: Bytes,
    /// Its remaining time to live; `None`: until it is deleted.
    pub ttl: Option<Duration>,
}

/// Some keys, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The keys. One that stays is in some page; one that comes or goes may be.
    pub keys: Vec<String>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<String>,
}

/// The content of a key, to be restored elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dumped {
    /// A value.
    Value(Stored),
    /// A list, first item first.
    List(Vec<Bytes>, Option<Duration>),
}

/// Keeps values, lists and counters. Where a method takes a lock's `holder`, a key that another owner has locked refuses.
#[async_trait]
pub trait CacheStore: Send + Sync + 'static {
    /// Reads a value; with `touch` its time to live is set in the same step.
    async fn get(
        &self,
        key: &str,
        touch: Option<Duration>,
        holder: Option<&str>,
    ) -> Result<Option<Stored>, BackendError>;

    /// Replaces value *and* time to live; without a `ttl` it stays until it is deleted.
    async fn set(
        &self,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
        holder: Option<&str>,
    ) -> Result<(), BackendError>;

    /// Deletes a key of any kind; returns whether there was one.
    async fn delete(&self, key: &str, holder: Option<&str>) -> Result<bool, BackendError>;

    /// Adds to a counter, which starts at zero, and returns its new value. It stays within 64 bits.
    async fn add(&self, key: &str, by: i64) -> Result<i64, BackendError>;

    /// Appends to a list and returns its length.
    async fn push(&self, key: &str, item: Bytes) -> Result<u64, BackendError>;

    /// Takes the first item off a list.
    async fn pop(&self, key: &str) -> Result<Option<Bytes>, BackendError>;

    /// Reads `count` items of a list from `start` on.
    async fn range(&self, key: &str, start: u64, count: u64) -> Result<Vec<Bytes>, BackendError>;

    /// The length of a list.
    async fn len(&self, key: &str) -> Result<u64, BackendError>;

    /// Lists keys that begin with `prefix`, some hundred at a time, from the position that the last page named.
    async fn scan(&self, prefix: &str, from: Option<&str>) -> Result<Page, BackendError>;

    /// Reads a key of any kind.
    async fn dump(&self, key: &str) -> Result<Option<Dumped>, BackendError>;

    /// Replaces a key's content with the dumped one.
    async fn restore(&self, key: &str, dumped: Dumped) -> Result<(), BackendError>;
}
