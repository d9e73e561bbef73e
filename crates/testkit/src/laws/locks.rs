//! Laws of locks.

use std::sync::Arc;
use std::time::Duration;

use phalanx_core::backend::LockStore;
use tokio::task::JoinSet;

use super::eventually;

/// Turns each law of locks into a test: `lock_laws!(memory: make())`.
#[macro_export]
macro_rules! lock_laws {
    ($backend:ident: $make:expr) => {
        $crate::laws_of!(
            locks,
            $backend,
            $make,
            [
                a_lock_has_one_owner_at_a_time,
                only_the_owner_renews_and_releases_a_lock,
                a_lease_expires,
                a_renewed_lease_has_its_full_length,
                tokens_only_rise,
                of_many_concurrent_acquires_one_succeeds,
                owners_can_be_read_and_listed,
            ]
        );
    };
}

type SharedLocks = Arc<dyn LockStore>;

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(150);

async fn acquire(store: &SharedLocks, name: &str, owner: &str, lease: Duration) -> Option<u64> {
    store.acquire(name, owner, lease).await.expect("the backend answers")
}

/// The owner itself cannot acquire it twice; other locks are not affected.
pub async fn a_lock_has_one_owner_at_a_time(store: SharedLocks) {
    assert!(acquire(&store, "l", "a", LONG).await.is_some());
    assert_eq!(acquire(&store, "l", "b", LONG).await, None);
    assert_eq!(acquire(&store, "l", "a", LONG).await, None);
    assert!(acquire(&store, "other", "b", LONG).await.is_some());
}

/// Calls of another owner change nothing.
pub async fn only_the_owner_renews_and_releases_a_lock(store: SharedLocks) {
    acquire(&store, "l", "a", LONG).await;
    assert!(!store.renew("l", "b", LONG).await.expect("the backend answers"));
    assert!(!store.release("l", "b").await.expect("the backend answers"));
    assert!(store.renew("l", "a", LONG).await.expect("the backend answers"));
    assert!(store.release("l", "a").await.expect("the backend answers"));
    assert!(!store.release("l", "a").await.expect("the backend answers"));
    assert!(acquire(&store, "l", "b", LONG).await.is_some());
}

/// After that the previous owner can neither renew nor release it.
pub async fn a_lease_expires(store: SharedLocks) {
    acquire(&store, "l", "a", SHORT).await;
    eventually("the lock is free", || async { acquire(&store, "l", "b", LONG).await.is_some() }).await;
    assert!(!store.renew("l", "a", LONG).await.expect("the backend answers"));
    assert!(!store.release("l", "a").await.expect("the backend answers"));
    assert_eq!(store.holder("l").await.expect("the backend answers").map(|lock| lock.owner), Some("b".into()));
}

/// Counted from the renewal, not from the previous end.
pub async fn a_renewed_lease_has_its_full_length(store: SharedLocks) {
    acquire(&store, "l", "a", Duration::from_secs(5)).await;
    assert!(store.renew("l", "a", LONG).await.expect("the backend answers"));
    let lock = store.holder("l").await.expect("the backend answers").expect("it is locked");
    assert!(lock.ttl > LONG / 2 && lock.ttl <= LONG, "{:?}", lock.ttl);
}

/// So a resource that has seen a newer token can refuse an older one.
pub async fn tokens_only_rise(store: SharedLocks) {
    let mut last = 0;
    for owner in 0..100 {
        let owner = owner.to_string();
        let token = acquire(&store, "l", &owner, LONG).await.expect("it is free");
        assert!(token > last, "{token} after {last}");
        last = token;
        store.release("l", &owner).await.expect("the backend answers");
    }
}

/// Exactly one.
pub async fn of_many_concurrent_acquires_one_succeeds(store: SharedLocks) {
    for round in 0..20 {
        let mut acquiring = JoinSet::new();
        for owner in 0..16 {
            let store = store.clone();
            acquiring
                .spawn(async move { acquire(&store, &format!("l{round}"), &owner.to_string(), LONG).await.is_some() });
        }
        assert_eq!(acquiring.join_all().await.into_iter().filter(|got| *got).count(), 1);
    }
}

/// At most as many as requested.
pub async fn owners_can_be_read_and_listed(store: SharedLocks) {
    assert_eq!(store.holder("l:1").await.expect("the backend answers"), None);
    for number in 0..5 {
        acquire(&store, &format!("l:{number}"), "a", LONG).await;
    }
    acquire(&store, "m", "a", LONG).await;
    let lock = store.holder("l:1").await.expect("the backend answers").expect("it is locked");
    assert_eq!((lock.name.as_str(), lock.owner.as_str()), ("l:1", "a"));
    assert_eq!(store.list("l:", 100).await.expect("the backend answers").len(), 5);
    assert_eq!(store.list("l:", 3).await.expect("the backend answers").len(), 3);
}
