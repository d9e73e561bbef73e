//! Locks that nodes share: each guard is an owner, its lease is renewed until it is dropped, and a token that only
//! rises fences off earlier owners.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::backend::{BackendError, LockRecord, LockStore};
use crate::error::{ActionError, Detail, ErrorKind};
use crate::metrics::bound_reached;
use crate::shutdown::Shutdown;

#[cfg(test)]
mod tests;

/// The longest wait for a lock.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest and the longest pause before a release is repeated.
const RELEASE_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The locks that nodes share. Cheap to clone.
///
/// ```
/// use std::time::Duration;
///
/// use phalanx_core::{ActionError, ErrorKind, Locks};
///
/// async fn charge(locks: &Locks, order: u64) -> Result<(), ActionError> {
///     let name = format!("order:{order}");
///     let Some(guard) = locks.lock(&name, Locks::LEASE, Duration::from_secs(2)).await? else {
///         return Err(ActionError::of(ErrorKind::Conflict, "the order is being charged"));
///     };
///     tokio::select! {
///         charged = send_payment(order, guard.token()) => charged,
///         () = guard.lost() => Err(ActionError::of(ErrorKind::Unavailable, "the lock was lost")),
///     } // dropping the guard frees the lock
/// }
///
/// /// The payment service refuses a token below the highest one that it has seen.
/// async fn send_payment(order: u64, token: u64) -> Result<(), ActionError> {
/// #   let _ = (order, token);
/// #   Ok(())
/// }
///
/// # use phalanx_core::config::Config;
/// # use phalanx_core::{Engine, NodeSetup};
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = Engine::start(NodeSetup::new("docs", Config::default())).await?;
/// # charge(engine.node().locks(), 1).await?;
/// # engine.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Locks {
    store: Arc<dyn LockStore>,
    shutdown: Shutdown,
    permits: Arc<Semaphore>,
}

impl Locks {
    /// The usual lease: the time after which a lock without renewals is free.
    pub const LEASE: Duration = Duration::from_secs(10);
    /// The shortest lease: each is renewed three times in its length.
    pub const MIN_LEASE: Duration = Duration::from_millis(100);
    /// The longest lease.
    pub const MAX_LEASE: Duration = Duration::from_secs(3600);
    /// Most locks that one node owns at once.
    pub const MAX_OWNED: usize = 10_000;

    pub(crate) fn new(store: Arc<dyn LockStore>, shutdown: Shutdown) -> Self {
        Self { store, shutdown, permits: Arc::new(Semaphore::new(Self::MAX_OWNED)) }
    }

    /// Acquires a lock if it is free. Cancel safe: a lock that is acquired after the caller went away is freed at
    /// once.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer or the node owns [`Locks::MAX_OWNED`] locks, `invalid_input` for a
    /// name or lease out of bounds.
    pub async fn try_lock(&self, name: &str, lease: Duration) -> Result<Option<LockGuard>, ActionError> {
        check(name, lease)?;
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            bound_reached("held_locks");
            return Err(ActionError::of(ErrorKind::Unavailable, "the node holds as many locks as it may")
                .with_retry_after(Duration::from_secs(1)));
        };
        let owner = format!("{:032x}", rand::rng().random::<u128>());
        let (name, owner) = (name.into(), owner.into());
        let task = LockTask { store: self.store.clone(), name, owner, lease, _permit: permit };
        let (caller, acquired) = oneshot::channel();
        // On a task of its own, which learns the outcome and frees the lock even if the caller was cancelled.
        self.shutdown.spawn_own(task.run(caller, self.shutdown.clone()));
        let stopped = || BackendError::unavailable("the node stops");
        Ok(acquired.await.map_err(|_| stopped())??)
    }

    /// Waits for a lock, at most `wait` and at most a day; `None` if it did not become free in time. Cancel safe.
    ///
    /// # Errors
    ///
    /// Those of [`Locks::try_lock`].
    pub async fn lock(&self, name: &str, lease: Duration, wait: Duration) -> Result<Option<LockGuard>, ActionError> {
        let deadline = Instant::now() + wait.min(MAX_WAIT);
        loop {
            if let Some(guard) = self.try_lock(name, lease).await? {
                return Ok(Some(guard));
            }
            let pause = retry_pause();
            if Instant::now() + pause > deadline {
                return Ok(None);
            }
            sleep(pause).await;
        }
    }

    /// The current owner of a lock and its ttl.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn holder(&self, name: &str) -> Result<Option<LockRecord>, ActionError> {
        Ok(self.store.holder(name).await?)
    }

    /// The locks with a prefix, at most a thousand.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn list(&self, prefix: &str) -> Result<Vec<LockRecord>, ActionError> {
        Ok(self.store.list(prefix, 1000).await?)
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locks")
    }
}

/// The pause before a waiter tries again. Random, so that waiters do not retry in step.
pub(crate) fn retry_pause() -> Duration {
    Duration::from_millis(rand::rng().random_range(25..75))
}

/// An acquired lock. Its lease is renewed every third of its length; it is freed on drop, and when the node stops. If the
/// backend is away then, it is freed once it is back, or its lease expires.
///
/// A backend that loses its last seconds may have freed the lock, and the next renewal finds out. Until then two owners
/// have it by their own knowledge, so only the token protects.
///
/// An effect that must not happen twice carries [`LockGuard::token`] to its store, which refuses tokens below the
/// highest that it has seen.
#[derive(Debug)]
pub struct LockGuard {
    name: Arc<str>,
    owner: Arc<str>,
    token: u64,
    state: Arc<GuardState>,
}

/// The state that a guard shares with the task that renews its lease.
#[derive(Debug)]
struct GuardState {
    until: Mutex<Instant>,
    lost: CancellationToken,
    dropped: CancellationToken,
}

impl GuardState {
    fn until(&self) -> MutexGuard<'_, Instant> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LockGuard {
    /// The lock's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The owner's id, which is unique to this guard.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The fencing token. It rises with each owner of this name.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Whether the lock is certainly still owned, by this node's clock alone: until one lease after the time at which
    /// the last confirmed renewal was *sent*, whatever the backend does.
    pub fn is_held(&self) -> bool {
        !self.state.lost.is_cancelled() && Instant::now() < *self.state.until()
    }

    /// Completes when the lease could not be renewed, or the node stops: another owner may acquire the lock soon.
    pub async fn lost(&self) {
        self.state.lost.cancelled().await;
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.state.dropped.cancel();
    }
}

/// Acquires a lock, renews its lease until the guard is dropped, then frees it.
struct LockTask {
    store: Arc<dyn LockStore>,
    name: Arc<str>,
    owner: Arc<str>,
    lease: Duration,
    _permit: OwnedSemaphorePermit,
}

impl LockTask {
    async fn run(self, caller: oneshot::Sender<Result<Option<LockGuard>, BackendError>>, shutdown: Shutdown) {
        let sent = Instant::now();
        let until = sent + self.lease;
        let (state, acquired) = match self.store.acquire(&self.name, &self.owner, self.lease).await {
            Ok(None) => (None, Ok(None)),
            Ok(Some(token)) => {
                let [lost, dropped] = [(); 2].map(|()| CancellationToken::new());
                let state = Arc::new(GuardState { until: Mutex::new(until), lost, dropped });
                let guard =
                    LockGuard { name: self.name.clone(), owner: self.owner.clone(), token, state: state.clone() };
                (Some(state), Ok(Some(guard)))
            }
            Err(error) => {
                let _ = caller.send(Err(error));
                return self.release(until, &shutdown).await; // the acquire may have succeeded
            }
        };
        // If the caller is gone, this drops the guard, and the lock is freed below.
        drop(caller.send(acquired));
        let Some(state) = state else { return };
        self.renew_until_dropped(&state, &shutdown).await;
        state.lost.cancel();
        let until = *state.until();
        self.release(until, &shutdown).await;
    }

    /// Renews the lease until the guard is dropped, the node stops, or the lease is lost. A lease counts from the
    /// moment its renewal was *sent*: the backend cannot have started it earlier.
    async fn renew_until_dropped(&self, state: &GuardState, shutdown: &Shutdown) {
        loop {
            tokio::select! {
                () = state.dropped.cancelled() => return,
                () = shutdown.closed() => return,
                () = sleep(self.lease / 3) => {}
            }
            let (sent, until) = (Instant::now(), *state.until());
            match timeout_at(until, self.store.renew(&self.name, &self.owner, self.lease)).await {
                Ok(Ok(true)) => *state.until() = sent + self.lease,
                Ok(Err(_)) if Instant::now() + self.lease / 3 < until => {}
                Ok(Ok(false) | Err(_)) | Err(_) => return,
            }
        }
    }

    /// Frees the lock. Repeated while the backend does not answer, until the lease expires by itself or the node stops.
    async fn release(&self, until: Instant, shutdown: &Shutdown) {
        let mut pause = RELEASE_PAUSES.0;
        while !matches!(timeout_at(until, self.store.release(&self.name, &self.owner)).await, Ok(Ok(_))) {
            let next = Instant::now() + pause.mul_f64(rand::rng().random_range(0.5..1.0));
            pause = (pause * 2).min(RELEASE_PAUSES.1);
            if next >= until {
                return;
            }
            tokio::select! {
                () = shutdown.closed() => return,
                () = sleep_until(next) => {}
            }
        }
    }
}

fn check(name: &str, lease: Duration) -> Result<(), ActionError> {
    if !(1..=512).contains(&name.len()) || name.contains(char::is_control) {
        let detail = Detail::new("name", "length", "must have 1 to 512 bytes, none of them control characters");
        return Err(ActionError::invalid_input(vec![detail]));
    }
    if !(Locks::MIN_LEASE..=Locks::MAX_LEASE).contains(&lease) {
        return Err(ActionError::invalid_input(vec![Detail::new("lease", "range", "must be 100 ms to an hour")]));
    }
    Ok(())
}
