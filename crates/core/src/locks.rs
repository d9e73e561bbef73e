//! Locks that nodes share: an owner per guard, renewed while held, freed on drop, fenced by a token that only rises.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::backend::{BackendError, Held, LockStore};
use crate::error::{ActionError, Detail, ErrorKind};
use crate::metrics::bound_reached;
use crate::shutdown::Shutdown;

#[cfg(test)]
mod tests;

/// The longest that anybody waits for a lock.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The locks that nodes share. Cheap to clone.
#[derive(Clone)]
pub struct Locks {
    store: Arc<dyn LockStore>,
    shutdown: Shutdown,
    places: Arc<Semaphore>,
}

impl Locks {
    /// How long a lease runs between two renewals, unless the caller says otherwise.
    pub const LEASE: Duration = Duration::from_secs(10);
    /// The shortest lease: each is renewed three times in its length.
    pub const MIN_LEASE: Duration = Duration::from_millis(100);
    /// The longest lease.
    pub const MAX_LEASE: Duration = Duration::from_secs(3600);
    /// Most locks that one node holds at once.
    pub const MOST_HELD: usize = 10_000;

    pub(crate) fn new(store: Arc<dyn LockStore>, shutdown: Shutdown) -> Self {
        Self { store, shutdown, places: Arc::new(Semaphore::new(Self::MOST_HELD)) }
    }

    /// Takes a lock if it is free. Cancel safe: a lock that is taken for nobody is freed at once.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer or the node holds [`Locks::MOST_HELD`] locks, `invalid_input` for a
    /// name or lease that cannot be.
    pub async fn try_lock(&self, name: &str, lease: Duration) -> Result<Option<LockGuard>, ActionError> {
        check(name, lease)?;
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            bound_reached("held_locks");
            return Err(ActionError::of(ErrorKind::Unavailable, "the node holds as many locks as it may")
                .with_retry_after(Duration::from_secs(1)));
        };
        let owner = format!("{:032x}", rand::rng().random::<u128>());
        let (name, owner) = (name.into(), owner.into());
        let keeper = Keeper { store: self.store.clone(), name, owner, lease, _place: place };
        let (asks, answer) = oneshot::channel();
        // On a task of its own, which knows what became of the lock even if nobody waits for it any more.
        self.shutdown.spawn_own(keeper.take(asks, self.shutdown.clone()));
        let stops = || BackendError::unavailable("the node stops");
        Ok(answer.await.map_err(|_| stops())??)
    }

    /// Waits for a lock, at most `wait` and at most a day; `None` if it was not free in time. Cancel safe.
    ///
    /// # Errors
    ///
    /// Those of [`Locks::try_lock`].
    pub async fn lock(&self, name: &str, lease: Duration, wait: Duration) -> Result<Option<LockGuard>, ActionError> {
        let deadline = Instant::now() + wait.min(LONGEST_WAIT);
        loop {
            if let Some(guard) = self.try_lock(name, lease).await? {
                return Ok(Some(guard));
            }
            let pause = look_away();
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

/// How long waiters look away from a lock that is held; never all in step.
pub(crate) fn look_away() -> Duration {
    Duration::from_millis(rand::rng().random_range(25..75))
}

/// A lock that is held. Renewed at a third of its lease; freed when dropped, and when the node stops.
///
/// What must not happen twice passes [`LockGuard::token`] to whoever stores it, who refuses tokens below the highest.
#[derive(Debug)]
pub struct LockGuard {
    name: Arc<str>,
    owner: Arc<str>,
    token: u64,
    hold: Arc<Hold>,
}

/// What a guard and its keeper know of each other.
#[derive(Debug)]
struct Hold {
    until: Mutex<Instant>,
    lost: CancellationToken,
    dropped: CancellationToken,
}

impl Hold {
    fn until(&self) -> MutexGuard<'_, Instant> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LockGuard {
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

    /// Whether the guard may still believe in itself, by its own clock: until a lease after the last renewal that was
    /// confirmed was sent, whatever the backend does.
    pub fn is_held(&self) -> bool {
        !self.hold.lost.is_cancelled() && Instant::now() < *self.hold.until()
    }

    /// Completes when the lease could not be renewed, or the node stops: somebody else may hold the lock soon.
    pub async fn lost(&self) {
        self.hold.lost.cancelled().await;
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.hold.dropped.cancel();
    }
}

/// Takes a lock, renews its lease until the guard is dropped, then frees it.
struct Keeper {
    store: Arc<dyn LockStore>,
    name: Arc<str>,
    owner: Arc<str>,
    lease: Duration,
    _place: OwnedSemaphorePermit,
}

impl Keeper {
    async fn take(self, asks: oneshot::Sender<Result<Option<LockGuard>, BackendError>>, shutdown: Shutdown) {
        let sent = Instant::now();
        let until = sent + self.lease;
        let (hold, answer) = match self.store.acquire(&self.name, &self.owner, self.lease).await {
            Ok(None) => (None, Ok(None)),
            Ok(Some(token)) => {
                let [lost, dropped] = [(); 2].map(|()| CancellationToken::new());
                let hold = Arc::new(Hold { until: Mutex::new(until), lost, dropped });
                let guard = LockGuard { name: self.name.clone(), owner: self.owner.clone(), token, hold: hold.clone() };
                (Some(hold), Ok(Some(guard)))
            }
            Err(error) => {
                let _ = asks.send(Err(error));
                return self.release(until).await; // it may be ours
            }
        };
        // Nobody may be there to be told: the guard is dropped then.
        drop(asks.send(answer));
        let Some(hold) = hold else { return };
        self.keep(&hold, &shutdown).await;
        hold.lost.cancel();
        let until = *hold.until();
        self.release(until).await;
    }

    /// The lease is believed in from the moment the last confirmed renewal was *sent*.
    async fn keep(&self, hold: &Hold, shutdown: &Shutdown) {
        loop {
            tokio::select! {
                () = hold.dropped.cancelled() => return,
                () = shutdown.closed() => return,
                () = sleep(self.lease / 3) => {}
            }
            let (sent, until) = (Instant::now(), *hold.until());
            match timeout_at(until, self.store.renew(&self.name, &self.owner, self.lease)).await {
                Ok(Ok(true)) => *hold.until() = sent + self.lease,
                Ok(Err(_)) if Instant::now() + self.lease / 3 < until => {}
                Ok(Ok(false) | Err(_)) | Err(_) => return,
            }
        }
    }

    /// If nobody answers, the lease runs out by itself.
    async fn release(&self, until: Instant) {
        let _ = timeout_at(until, self.store.release(&self.name, &self.owner)).await;
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
