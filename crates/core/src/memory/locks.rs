//! The locks of one node. Leases go by the timers that renew them, not by the clock: putting that forward takes no lock from
//! an owner that is there.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::backend::{BackendError, Clock, LockRecord, LockStore};
use crate::metrics::bound_reached;

/// Most names that are remembered. Beyond, free locks are forgotten; the clock keeps their tokens rising.
const MAX_NAMES: usize = 65_536;

/// The locks of one node, behind a mutex that is never locked across an await.
pub struct MemoryLocks {
    clock: Arc<dyn Clock>,
    names: Mutex<HashMap<String, Lock>>,
}

#[derive(Debug)]
struct Lock {
    owner: String,
    expires: Instant,
    token: u64,
}

impl MemoryLocks {
    /// Makes locks whose tokens follow this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, names: Mutex::default() }
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The current owner of a lock.
    pub(super) fn owner_of(&self, name: &str) -> Option<String> {
        let now = Instant::now();
        self.names().get(name).filter(|lock| lock.expires > now).map(|lock| lock.owner.clone())
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Lock>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryLocks({})", self.names().len())
    }
}

#[async_trait]
impl LockStore for MemoryLocks {
    async fn acquire(&self, name: &str, owner: &str, lease: Duration) -> Result<Option<u64>, BackendError> {
        let now = Instant::now();
        let mut names = self.names();
        if names.len() >= MAX_NAMES {
            names.retain(|_, lock| lock.expires > now);
            if names.len() >= MAX_NAMES {
                bound_reached("memory_locks");
                return Err(BackendError::Full);
            }
        }
        let last = match names.get(name) {
            Some(lock) if lock.expires > now => return Ok(None),
            Some(lock) => lock.token,
            None => 0,
        };
        let token = (last + 1).max(self.clock.now_us());
        names.insert(name.to_owned(), Lock { owner: owner.to_owned(), expires: now + lease, token });
        Ok(Some(token))
    }

    async fn renew(&self, name: &str, owner: &str, lease: Duration) -> Result<bool, BackendError> {
        let now = Instant::now();
        match self.names().get_mut(name) {
            Some(lock) if lock.owner == owner && lock.expires > now => {
                lock.expires = now + lease;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn release(&self, name: &str, owner: &str) -> Result<bool, BackendError> {
        let now = Instant::now();
        match self.names().get_mut(name) {
            Some(lock) if lock.owner == owner && lock.expires > now => {
                lock.expires = now;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn holder(&self, name: &str) -> Result<Option<LockRecord>, BackendError> {
        let now = Instant::now();
        Ok(self.names().get(name).filter(|lock| lock.expires > now).map(|lock| record(name, lock, now)))
    }

    async fn list(&self, prefix: &str, max: usize) -> Result<Vec<LockRecord>, BackendError> {
        let now = Instant::now();
        let names = self.names();
        let live = names.iter().filter(|(name, lock)| name.starts_with(prefix) && lock.expires > now);
        let mut found: Vec<LockRecord> = live.map(|(name, lock)| record(name, lock, now)).take(max).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}

fn record(name: &str, lock: &Lock, now: Instant) -> LockRecord {
    LockRecord { name: name.to_owned(), owner: lock.owner.clone(), ttl: lock.expires.saturating_duration_since(now) }
}
