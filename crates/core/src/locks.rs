//! Locks that nodes share: an owner per guard, renewed while held, freed on drop, fenced by a token that only rises.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::backend::{Held, LockStore};
use crate::error::{ActionError, Detail};

/// How long waiters look away from a lock that is held.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The locks that nodes share. Cheap to clone.
#[derive(Clone)]
pub struct Locks {
    store: Arc<dyn LockStore>,
}

impl Locks {
    /// How long a lease runs between two renewals, unless the caller says otherwise.
    pub const LEASE: Duration = Duration::from_secs(10);
    /// The longest lease.
    pub const MAX_LEASE: Duration = Duration::from_secs(3600);

    /// Makes locks over a backend.
    pub fn new(store: Arc<dyn LockStore>) -> Self {
        Self { store }
    }

    /// Takes a lock if it is free.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer, `invalid_input` for a name or lease that cannot be.
    pub async fn try_lock(&self, name: &str, lease: Duration) -> Result<Option<LockGuard>, ActionError> {
        check(name, lease)?;
        let owner: Arc<str> = format!("{:032x}", rand::rng().random::<u128>()).into();
        let sent = Instant::now();
        let token = self.store.acquire(name, &owner, lease).await?;
        Ok(token.map(|token| LockGuard::hold(self.store.clone(), name.into(), owner, token, lease, sent)))
    }

    /// Waits for a lock, at most `wait`; `None` if it was not free in time. Cancel safe.
    ///
    /// # Errors
    ///
    /// Those of [`Locks::try_lock`].
    pub async fn lock(&self, name: &str, lease: Duration, wait: Duration) -> Result<Option<LockGuard>, ActionError> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(guard) = self.try_lock(name, lease).await? {
                return Ok(Some(guard));
            }
            let pause = LOOK_AGAIN.mul_f64(rand::rng().random_range(0.5..1.5));
            if Instant::now() + pause > deadline {
                return Ok(None);
            }
            sleep(pause).await;
        }
    }

    /// Who holds a lock.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn holder(&self, name: &str) -> Result<Option<Held>, ActionError> {
        Ok(self.store.holder(name).await?)
    }

    /// The locks whose names begin with `prefix`, at most a thousand.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Held>, ActionError> {
        Ok(self.store.list(prefix, 1000).await?)
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locks")
    }
}

/// A lock that is held. Renewed at a third of its lease; freed when dropped.
///
/// What must not happen twice passes [`LockGuard::token`] to whoever stores it, who refuses tokens below the highest.
#[derive(Debug)]
pub struct LockGuard {
    name: Arc<str>,
    owner: Arc<str>,
    token: u64,
    lost: CancellationToken,
    done: CancellationToken,
}

impl LockGuard {
    fn hold(
        store: Arc<dyn LockStore>,
        name: Arc<str>,
        owner: Arc<str>,
        token: u64,
        lease: Duration,
        sent: Instant,
    ) -> Self {
        let (lost, done) = (CancellationToken::new(), CancellationToken::new());
        let keeper = Keeper { store, name: name.clone(), owner: owner.clone(), lease, lost: lost.clone() };
        tokio::spawn(keeper.keep(done.clone(), sent));
        Self { name, owner, token, lost, done }
    }

    /// The lock's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who holds it: this guard alone.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Rises with each holder of this name.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Whether the guard may still believe in itself, by its own clock.
    pub fn is_held(&self) -> bool {
        !self.lost.is_cancelled()
    }

    /// Completes when the lease could not be renewed: somebody else may hold the lock soon.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.done.cancel();
    }
}

/// Renews a lease until its guard is dropped, then frees the lock.
struct Keeper {
    store: Arc<dyn LockStore>,
    name: Arc<str>,
    owner: Arc<str>,
    lease: Duration,
    lost: CancellationToken,
}

impl Keeper {
    /// The lease is believed in from the moment the last confirmed renewal was *sent*.
    async fn keep(self, done: CancellationToken, sent: Instant) {
        let mut until = sent + self.lease;
        loop {
            tokio::select! {
                () = done.cancelled() => break,
                () = sleep(self.lease / 3) => {}
            }
            let sent = Instant::now();
            match timeout_at(until, self.store.renew(&self.name, &self.owner, self.lease)).await {
                Ok(Ok(true)) => until = sent + self.lease,
                Ok(Err(_)) if Instant::now() + self.lease / 3 < until => {}
                Ok(Ok(false) | Err(_)) | Err(_) => {
                    self.lost.cancel();
                    break;
                }
            }
        }
        // If nobody answers, the lease runs out by itself.
        let _ = timeout_at(until, self.store.release(&self.name, &self.owner)).await;
    }
}

fn check(name: &str, lease: Duration) -> Result<(), ActionError> {
    if !(1..=512).contains(&name.len()) || name.contains(char::is_control) {
        let detail = Detail::new("name", "length", "must have 1 to 512 bytes, none of them control characters");
        return Err(ActionError::invalid_input(vec![detail]));
    }
    if lease.is_zero() || lease > Locks::MAX_LEASE {
        return Err(ActionError::invalid_input(vec![Detail::new("lease", "range", "must be up to an hour")]));
    }
    Ok(())
}
