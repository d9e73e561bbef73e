//! The seam for values, lists and counters. Every method is one step: nobody sees half of it.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::BackendError;

/// A value and what is left of its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The value.
    pub value: Bytes,
    /// How long it lives on; `None`: until it is deleted.
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

/// What a key holds, to be restored elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dumped {
    /// A value.
    Value(Stored),
    /// A list, first item first.
    List(Vec<Bytes>, Option<Duration>),
}

/// Keeps values, lists and counters. Where a lock's `holder` is asked for, a key that somebody else has locked refuses.
#[async_trait]
pub trait CacheStore: Send + Sync + 'static {
    /// Reads a value; with `touch` it gets that lifetime in the same step.
    async fn get(
        &self,
        key: &str,
        touch: Option<Duration>,
        holder: Option<&str>,
    ) -> Result<Option<Stored>, BackendError>;

    /// Replaces value *and* lifetime; without a `ttl` it lives until it is deleted.
    async fn set(
        &self,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
        holder: Option<&str>,
    ) -> Result<(), BackendError>;

    /// Deletes a key, whatever it holds; says whether there was one.
    async fn delete(&self, key: &str, holder: Option<&str>) -> Result<bool, BackendError>;

    /// Adds to a counter, which starts at zero, and answers what it is now. It stays within 64 bits.
    async fn add(&self, key: &str, by: i64) -> Result<i64, BackendError>;

    /// Appends to a list and answers its length.
    async fn push(&self, key: &str, item: Bytes) -> Result<u64, BackendError>;

    /// Takes the first item off a list.
    async fn pop(&self, key: &str) -> Result<Option<Bytes>, BackendError>;

    /// Reads `count` items of a list from `start` on.
    async fn range(&self, key: &str, start: u64, count: u64) -> Result<Vec<Bytes>, BackendError>;

    /// How long a list is.
    async fn len(&self, key: &str) -> Result<u64, BackendError>;

    /// Lists keys that begin with `prefix`, some hundred at a time, from where the last page said.
    async fn scan(&self, prefix: &str, from: Option<&str>) -> Result<Page, BackendError>;

    /// What a key holds.
    async fn dump(&self, key: &str) -> Result<Option<Dumped>, BackendError>;

    /// Puts back what a key held, in place of what it holds.
    async fn restore(&self, key: &str, dumped: Dumped) -> Result<(), BackendError>;
}
