//! The seam for locks: a name, an owner, a lease, and a token that only rises.

use std::time::Duration;

use async_trait::async_trait;

use super::BackendError;

/// A lock that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub name: String,
    /// Who holds it.
    pub owner: String,
    /// How long the lease runs on.
    pub ttl: Duration,
}

/// Keeps locks. Every method is one step.
#[async_trait]
pub trait LockStore: Send + Sync + 'static {
    /// Takes a free lock and answers its fencing token: the greater of the last one plus one and the time in
    /// microseconds, so that it rises even if the last one was forgotten. `None` if somebody holds it, `owner` included.
    async fn acquire(&self, name: &str, owner: &str, lease: Duration) -> Result<Option<u64>, BackendError>;

    /// Gives the lease its full length again, if `owner` still holds the lock.
    async fn renew(&self, name: &str, owner: &str, lease: Duration) -> Result<bool, BackendError>;

    /// Frees the lock, if `owner` still holds it.
    async fn release(&self, name: &str, owner: &str) -> Result<bool, BackendError>;

    /// Who holds the lock.
    async fn holder(&self, name: &str) -> Result<Option<Held>, BackendError>;

    /// The locks whose names begin with `prefix`, at most `most`.
    async fn list(&self, prefix: &str, most: usize) -> Result<Vec<Held>, BackendError>;
}
