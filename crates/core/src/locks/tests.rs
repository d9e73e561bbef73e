use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::yield_now;

use super::*;
use crate::backend::SystemClock;
use crate::memory::MemoryLocks;

const LEASE: Duration = Duration::from_secs(9);

/// Locks of one node, behind answers that take as long as a test wants.
struct Slow {
    inner: MemoryLocks,
    acquired: Notify,
    answers_acquire: Notify,
    answers_renew: bool,
    released: Notify,
}

impl Slow {
    fn new(answers_renew: bool) -> Arc<Self> {
        let [acquired, answers_acquire, released] = [(); 3].map(|()| Notify::new());
        let inner = MemoryLocks::new(Arc::new(SystemClock::new()));
        Arc::new(Self { inner, acquired, answers_acquire, answers_renew, released })
    }
}

#[async_trait]
impl LockStore for Slow {
    async fn acquire(&self, name: &str, owner: &str, lease: Duration) -> Result<Option<u64>, BackendError> {
        let token = self.inner.acquire(name, owner, lease).await?;
        self.acquired.notify_one();
        self.answers_acquire.notified().await;
        Ok(token)
    }

    async fn renew(&self, name: &str, owner: &str, lease: Duration) -> Result<bool, BackendError> {
        if !self.answers_renew {
            std::future::pending::<()>().await;
        }
        self.inner.renew(name, owner, lease).await
    }

    async fn release(&self, name: &str, owner: &str) -> Result<bool, BackendError> {
        let released = self.inner.release(name, owner).await;
        self.released.notify_one();
        released
    }

    async fn holder(&self, name: &str) -> Result<Option<Held>, BackendError> {
        self.inner.holder(name).await
    }

    async fn list(&self, prefix: &str, most: usize) -> Result<Vec<Held>, BackendError> {
        self.inner.list(prefix, most).await
    }
}

fn quick() -> (Locks, Shutdown) {
    let shutdown = Shutdown::default();
    (Locks::new(Arc::new(MemoryLocks::new(Arc::new(SystemClock::new()))), shutdown.clone()), shutdown)
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_taken_for_nobody_is_freed() {
    let store = Slow::new(true);
    let locks = Locks::new(store.clone(), Shutdown::default());
    tokio::select! {
        _ = locks.try_lock("l", LEASE) => panic!("nobody has answered"),
        () = store.acquired.notified() => {}
    }
    assert!(store.holder("l").await.unwrap().is_some());
    store.answers_acquire.notify_one();
    store.released.notified().await;
    assert_eq!(store.holder("l").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_hears_nothing_of_its_renewals_stops_believing_by_its_own_clock() {
    let store = Slow::new(false);
    store.answers_acquire.notify_one();
    let locks = Locks::new(store, Shutdown::default());
    let guard = locks.try_lock("l", LEASE).await.unwrap().unwrap();
    tokio::time::advance(LEASE - Duration::from_millis(1)).await;
    assert!(guard.is_held());
    // Nothing else runs in between: not even the task that renews.
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!guard.is_held());
    guard.lost().await;
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_held_as_long_as_it_is_renewed() {
    let (locks, _shutdown) = quick();
    let guard = locks.try_lock("l", LEASE).await.unwrap().unwrap();
    sleep(LEASE * 10).await;
    assert!(guard.is_held() && locks.try_lock("l", LEASE).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_frees_its_locks_and_their_holders_learn_of_it() {
    let (locks, shutdown) = quick();
    let guard = locks.try_lock("l", LEASE).await.unwrap().unwrap();
    shutdown.close().await;
    assert_eq!(locks.holder("l").await.unwrap(), None);
    assert!(!guard.is_held());
    guard.lost().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_holds_so_many_locks_and_no_more() {
    let (locks, _shutdown) = quick();
    let mut held = Vec::new();
    for number in 0..Locks::MOST_HELD {
        held.push(locks.try_lock(&number.to_string(), LEASE).await.unwrap().unwrap());
    }
    assert_eq!(locks.try_lock("beyond", LEASE).await.unwrap_err().kind(), ErrorKind::Unavailable);
    held.pop();
    while locks.places.available_permits() == 0 {
        yield_now().await;
    }
    assert!(locks.try_lock("beyond", LEASE).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_wait_may_be_as_long_as_it_likes_and_a_lease_may_not() {
    let (locks, _shutdown) = quick();
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
