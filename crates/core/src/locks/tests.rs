use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::yield_now;

use super::*;
use crate::backend::SystemClock;
use crate::memory::MemoryLocks;

const LEASE: Duration = Duration::from_secs(9);

/// Locks of one node, whose replies a test delays.
struct SlowStore {
    inner: MemoryLocks,
    acquired: Notify,
    reply_to_acquire: Notify,
    replies_to_renew: bool,
    released: Notify,
    /// Releases that fail before one succeeds.
    failing_releases: AtomicUsize,
}

impl SlowStore {
    fn new(replies_to_renew: bool) -> Arc<Self> {
        let [acquired, reply_to_acquire, released] = [(); 3].map(|()| Notify::new());
        let inner = MemoryLocks::new(Arc::new(SystemClock::new()));
        let failing_releases = AtomicUsize::new(0);
        Arc::new(Self { inner, acquired, reply_to_acquire, replies_to_renew, released, failing_releases })
    }
}

#[async_trait]
impl LockStore for SlowStore {
    async fn acquire(&self, name: &str, owner: &str, lease: Duration) -> Result<Option<u64>, BackendError> {
        let token = self.inner.acquire(name, owner, lease).await?;
        self.acquired.notify_one();
        self.reply_to_acquire.notified().await;
        Ok(token)
    }

    async fn renew(&self, name: &str, owner: &str, lease: Duration) -> Result<bool, BackendError> {
        if !self.replies_to_renew {
            std::future::pending::<()>().await;
        }
        self.inner.renew(name, owner, lease).await
    }

    async fn release(&self, name: &str, owner: &str) -> Result<bool, BackendError> {
        if self.failing_releases.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Err(BackendError::unavailable("away"));
        }
        let released = self.inner.release(name, owner).await;
        self.released.notify_one();
        released
    }

    async fn holder(&self, name: &str) -> Result<Option<LockRecord>, BackendError> {
        self.inner.holder(name).await
    }

    async fn list(&self, prefix: &str, max: usize) -> Result<Vec<LockRecord>, BackendError> {
        self.inner.list(prefix, max).await
    }
}

fn memory() -> (Locks, Shutdown) {
    let shutdown = Shutdown::default();
    (Locks::new(Arc::new(MemoryLocks::new(Arc::new(SystemClock::new()))), shutdown.clone()), shutdown)
}

#[tokio::test(start_paused = true)]
async fn a_lock_acquired_for_a_cancelled_caller_is_freed() {
    let store = SlowStore::new(true);
    let locks = Locks::new(store.clone(), Shutdown::default());
    tokio::select! {
        _ = locks.try_lock("l", LEASE) => panic!("the store has not replied"),
        () = store.acquired.notified() => {}
    }
    assert!(store.holder("l").await.unwrap().is_some());
    store.reply_to_acquire.notify_one();
    store.released.notified().await;
    assert_eq!(store.holder("l").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_guard_whose_renewals_get_no_reply_expires_by_its_own_clock() {
    let store = SlowStore::new(false);
    store.reply_to_acquire.notify_one();
    let locks = Locks::new(store, Shutdown::default());
    let guard = locks.try_lock("l", LEASE).await.unwrap().unwrap();
    tokio::time::advance(LEASE - Duration::from_millis(1)).await;
    assert!(guard.is_held());
    // No other task runs in between, not even the one that renews.
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!guard.is_held());
    guard.lost().await;
}

#[tokio::test(start_paused = true)]
async fn a_release_is_repeated_until_the_lease_ends() {
    let store = SlowStore::new(true);
    store.failing_releases.store(5, Relaxed);
    store.reply_to_acquire.notify_one();
    let locks = Locks::new(store.clone(), Shutdown::default());
    let dropped = Instant::now();
    drop(locks.try_lock("l", Locks::MAX_LEASE).await.unwrap().unwrap());
    store.released.notified().await;
    assert_eq!(store.holder("l").await.unwrap(), None);
    assert!(dropped.elapsed() < Duration::from_secs(20), "{:?}", dropped.elapsed());

    store.failing_releases.store(usize::MAX, Relaxed);
    store.reply_to_acquire.notify_one();
    drop(locks.try_lock("l", LEASE).await.unwrap().unwrap());
    while locks.permits.available_permits() < Locks::MAX_OWNED {
        sleep(Duration::from_millis(100)).await;
    }
    let attempts = usize::MAX - store.failing_releases.load(Relaxed);
    assert!((3..30).contains(&attempts), "{attempts} attempts in {LEASE:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_owned_as_long_as_it_is_renewed() {
    let (locks, _shutdown) = memory();
    let guard = locks.try_lock("l", LEASE).await.unwrap().unwrap();
    sleep(LEASE * 10).await;
    assert!(guard.is_held() && locks.try_lock("l", LEASE).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stopping_node_frees_its_locks_and_their_guards_are_lost() {
    let (locks, shutdown) = memory();
    let guard = locks.try_lock("l", LEASE).await.unwrap().unwrap();
    shutdown.close().await;
    assert_eq!(locks.holder("l").await.unwrap(), None);
    assert!(!guard.is_held());
    guard.lost().await;
}

#[tokio::test(start_paused = true)]
async fn the_number_of_locks_of_a_node_is_bounded() {
    let (locks, _shutdown) = memory();
    let mut guards = Vec::new();
    for number in 0..Locks::MAX_OWNED {
        guards.push(locks.try_lock(&number.to_string(), LEASE).await.unwrap().unwrap());
    }
    assert_eq!(locks.try_lock("beyond", LEASE).await.unwrap_err().kind(), ErrorKind::Unavailable);
    guards.pop();
    while locks.permits.available_permits() == 0 {
        yield_now().await;
    }
    assert!(locks.try_lock("beyond", LEASE).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_clamped_and_a_lease_out_of_bounds_is_refused() {
    let (locks, _shutdown) = memory();
    let guard = locks.try_lock("l", LEASE).await.unwrap().unwrap();
    let (next, ()) = tokio::join!(locks.lock("l", LEASE, Duration::MAX), async {
        sleep(LEASE).await;
        drop(guard);
    });
    assert!(next.unwrap().is_some());
    for lease in [Duration::ZERO, Duration::from_millis(99), Duration::MAX] {
        assert_eq!(locks.try_lock("other", lease).await.unwrap_err().code(), "invalid_input", "{lease:?}");
    }
}
