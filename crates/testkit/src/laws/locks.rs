//! Laws of locks.

use std::sync::Arc;
use std::time::Duration;

use phalanx_core::backend::LockStore;
use tokio::task::JoinSet;

use super::eventually;

/// Makes a test of each law of locks: `lock_laws!(memory: make())`.
#[macro_export]
macro_rules! lock_laws {
    ($backend:ident: $make:expr) => {
        $crate::laws_of!(
            locks,
            $backend,
            $make,
            [
                one_owner_at_a_time,
                only_its_owner_renews_and_releases_a_lock,
                a_lease_ends_by_itself,
                a_renewed_lease_goes_on,
                tokens_only_rise,
                of_many_who_ask_at_once_one_gets_it,
                a_holder_is_told_and_listed,
            ]
        );
    };
}

type Store = Arc<dyn LockStore>;

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(150);

async fn acquire(store: &Store, name: &str, owner: &str, lease: Duration) -> Option<u64> {
    store.acquire(name, owner, lease).await.expect("the backend answers")
}

/// The owner itself included; other locks are free.
pub async fn one_owner_at_a_time(store: Store) {
    assert!(acquire(&store, "l", "a", LONG).await.is_some());
    assert_eq!(acquire(&store, "l", "b", LONG).await, None);
    assert_eq!(acquire(&store, "l", "a", LONG).await, None);
    assert!(acquire(&store, "other", "b", LONG).await.is_some());
}

/// A stranger changes nothing.
pub async fn only_its_owner_renews_and_releases_a_lock(store: Store) {
    acquire(&store, "l", "a", LONG).await;
    assert!(!store.renew("l", "b", LONG).await.expect("the backend answers"));
    assert!(!store.release("l", "b").await.expect("the backend answers"));
    assert!(store.renew("l", "a", LONG).await.expect("the backend answers"));
    assert!(store.release("l", "a").await.expect("the backend answers"));
    assert!(!store.release("l", "a").await.expect("the backend answers"));
    assert!(acquire(&store, "l", "b", LONG).await.is_some());
}

/// Then its owner of before owns nothing.
pub async fn a_lease_ends_by_itself(store: Store) {
    acquire(&store, "l", "a", SHORT).await;
    eventually("the lock is free", || async { acquire(&store, "l", "b", LONG).await.is_some() }).await;
    assert!(!store.renew("l", "a", LONG).await.expect("the backend answers"));
    assert!(!store.release("l", "a").await.expect("the backend answers"));
    assert_eq!(store.holder("l").await.expect("the backend answers").map(|held| held.owner), Some("b".into()));
}

/// From now on, not from its end.
pub async fn a_renewed_lease_goes_on(store: Store) {
    acquire(&store, "l", "a", Duration::from_secs(5)).await;
    assert!(store.renew("l", "a", LONG).await.expect("the backend answers"));
    let held = store.holder("l").await.expect("the backend answers").expect("it is held");
    assert!(held.ttl > LONG / 2 && held.ttl <= LONG, "{:?}", held.ttl);
}

/// Whoever holds a newer token knows that an older one is stale.
pub async fn tokens_only_rise(store: Store) {
    let mut last = 0;
    for owner in 0..100 {
        let owner = owner.to_string();
        let token = acquire(&store, "l", &owner, LONG).await.expect("it is free");
        assert!(token > last, "{token} after {last}");
        last = token;
        store.release("l", &owner).await.expect("the backend answers");
    }
}

/// No more, no less.
pub async fn of_many_who_ask_at_once_one_gets_it(store: Store) {
    for round in 0..20 {
        let mut asking = JoinSet::new();
        for owner in 0..16 {
            let store = store.clone();
            asking
                .spawn(async move { acquire(&store, &format!("l{round}"), &owner.to_string(), LONG).await.is_some() });
        }
        assert_eq!(asking.join_all().await.into_iter().filter(|got| *got).count(), 1);
    }
}

/// As many as were asked for.
pub async fn a_holder_is_told_and_listed(store: Store) {
    assert_eq!(store.holder("l:1").await.expect("the backend answers"), None);
    for number in 0..5 {
        acquire(&store, &format!("l:{number}"), "a", LONG).await;
    }
    acquire(&store, "m", "a", LONG).await;
    let held = store.holder("l:1").await.expect("the backend answers").expect("it is held");
    assert_eq!((held.name.as_str(), held.owner.as_str()), ("l:1", "a"));
    assert_eq!(store.list("l:", 100).await.expect("the backend answers").len(), 5);
    assert_eq!(store.list("l:", 3).await.expect("the backend answers").len(), 3);
}
