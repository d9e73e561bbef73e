//! The seam for locks: a name, an owner, a lease, and a token that only rises.

use std::time::Duration;

use async_trait::async_trait;

use super::error::BackendError;

/// A lock that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockRecord {
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: String,
    /// How long the lease runs on.
    pub ttl: Duration,
}

/// Keeps locks. Every method is one step.
#[async_trait]
pub trait LockStore: Send + Sync + 'static {
    /// Takes a free lock and returns its fencing token: the greater of the last one plus one and the time in
    /// microseconds, so that it rises even if the last one was forgotten. `None` if it is taken, also by `owner` itself.
    async fn acquire(&self, name: &str, owner: &str, lease: Duration) -> Result<Option<u64>, BackendError>;

    /// Extends the lease to its full length, if the lock is still `owner`'s.
    async fn renew(&self, name: &str, owner: &str, lease: Duration) -> Result<bool, BackendError>;

    /// Frees the lock, if it is still `owner`'s.
    async fn release(&self, name: &str, owner: &str) -> Result<bool, BackendError>;

    /// The lock, if it is taken.
    async fn holder(&self, name: &str) -> Result<Option<LockRecord>, BackendError>;

    /// The locks whose names begin with `prefix`, at most `most`.
    async fn list(&self, prefix: &str, most: usize) -> Result<Vec<LockRecord>, BackendError>;
}
