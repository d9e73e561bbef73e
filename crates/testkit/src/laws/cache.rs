//! Laws of values, lists and counters.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use phalanx_core::backend::{BackendError, CacheStore, Dumped};
use tokio::task::JoinSet;

use super::eventually;

/// Turns each law of the cache into a test: `cache_laws!(memory: make())`.
#[macro_export]
macro_rules! cache_laws {
    ($backend:ident: $make:expr) => {
        $crate::laws_of!(
            cache,
            $backend,
            $make,
            [
                a_value_is_read_as_it_was_set,
                set_replaces_value_and_ttl,
                a_value_expires_after_its_ttl,
                a_touch_sets_a_new_ttl,
                delete_returns_whether_the_key_existed,
                counters_start_at_zero_and_lose_no_addition,
                a_counter_never_exceeds_64_bits,
                a_list_is_first_in_first_out,
                each_item_is_popped_once,
                values_and_lists_do_not_mix,
                a_scan_finds_every_key_that_is_not_deleted,
                special_characters_of_a_prefix_are_literal,
                a_dumped_key_can_be_restored,
            ]
        );
    };
}

type SharedCache = Arc<dyn CacheStore>;

const LONG: Duration = Duration::from_secs(600);

async fn read(store: &SharedCache, key: &str) -> Option<Bytes> {
    store.get(key, None, None).await.expect("the backend answers").map(|stored| stored.value)
}

async fn set(store: &SharedCache, key: &str, value: &'static str, ttl: Option<Duration>) {
    store.set(key, value.into(), ttl, None).await.expect("the backend answers");
}

/// Any bytes: they need not be text.
pub async fn a_value_is_read_as_it_was_set(store: SharedCache) {
    let bytes = Bytes::from_static(b"\0\xff{\"a\":1}");
    assert_eq!(read(&store, "k").await, None);
    store.set("k", bytes.clone(), None, None).await.expect("the backend answers");
    assert_eq!(read(&store, "k").await, Some(bytes));
}

/// A value that is set without a ttl does not inherit one.
pub async fn set_replaces_value_and_ttl(store: SharedCache) {
    set(&store, "k", "one", Some(LONG)).await;
    set(&store, "k", "two", None).await;
    let stored = store.get("k", None, None).await.expect("the backend answers").expect("it was set");
    assert_eq!((stored.value, stored.ttl), (Bytes::from("two"), None));
}

/// Before that it is readable.
pub async fn a_value_expires_after_its_ttl(store: SharedCache) {
    set(&store, "k", "one", Some(Duration::from_millis(200))).await;
    assert!(read(&store, "k").await.is_some());
    eventually("the value expires", || async { read(&store, "k").await.is_none() }).await;
    assert!(!store.delete("k", None).await.expect("the backend answers"));
}

/// The read and the new ttl are one atomic step.
pub async fn a_touch_sets_a_new_ttl(store: SharedCache) {
    set(&store, "k", "one", Some(Duration::from_secs(5))).await;
    store.get("k", Some(LONG), None).await.expect("the backend answers");
    let stored = store.get("k", None, None).await.expect("the backend answers").expect("it was set");
    assert!(stored.ttl.is_some_and(|ttl| ttl > LONG / 2 && ttl <= LONG), "{:?}", stored.ttl);
}

/// For keys of either kind.
pub async fn delete_returns_whether_the_key_existed(store: SharedCache) {
    set(&store, "k", "one", None).await;
    store.push("l", "item".into()).await.expect("the backend answers");
    for key in ["k", "l"] {
        assert!(store.delete(key, None).await.expect("the backend answers"), "{key}");
        assert!(!store.delete(key, None).await.expect("the backend answers"), "{key}");
    }
    assert_eq!(store.len("l").await.expect("the backend answers"), 0);
}

/// Even if several callers add concurrently.
pub async fn counters_start_at_zero_and_lose_no_addition(store: SharedCache) {
    let mut adding = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        adding.spawn(async move {
            for _ in 0..50 {
                store.add("n", 3).await.expect("the backend answers");
            }
        });
    }
    adding.join_all().await;
    assert_eq!(store.add("n", -200).await.expect("the backend answers"), 8 * 50 * 3 - 200);
}

/// An addition beyond that is refused or saturates; it never wraps.
pub async fn a_counter_never_exceeds_64_bits(store: SharedCache) {
    assert_eq!(store.add("n", i64::MAX).await.expect("the backend answers"), i64::MAX);
    if let Ok(beyond) = store.add("n", 1).await {
        assert_eq!(beyond, i64::MAX);
    }
    assert_eq!(store.add("n", -1).await.expect("the backend answers"), i64::MAX - 1);
}

/// A range reads without removing.
pub async fn a_list_is_first_in_first_out(store: SharedCache) {
    for (index, item) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(store.push("l", item.into()).await.expect("the backend answers"), index as u64 + 1);
    }
    assert_eq!(store.range("l", 1, 5).await.expect("the backend answers"), ["b", "c"].map(Bytes::from));
    assert_eq!(store.range("l", 0, 1).await.expect("the backend answers"), ["a"].map(Bytes::from));
    assert!(store.range("l", 9, 1).await.expect("the backend answers").is_empty());
    for item in ["a", "b", "c"] {
        assert_eq!(store.pop("l").await.expect("the backend answers"), Some(item.into()));
    }
    assert_eq!(store.pop("l").await.expect("the backend answers"), None);
}

/// Even if several callers pop concurrently.
pub async fn each_item_is_popped_once(store: SharedCache) {
    for number in 0..200 {
        store.push("l", number.to_string().into()).await.expect("the backend answers");
    }
    let mut taking = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        taking.spawn(async move {
            let mut taken = Vec::new();
            while let Some(item) = store.pop("l").await.expect("the backend answers") {
                taken.push(item);
            }
            taken
        });
    }
    let taken: Vec<Bytes> = taking.join_all().await.into_iter().flatten().collect();
    assert_eq!((taken.len(), taken.iter().collect::<BTreeSet<_>>().len()), (200, 200));
}

/// An operation on a key of the other kind is refused and changes nothing.
pub async fn values_and_lists_do_not_mix(store: SharedCache) {
    set(&store, "k", "text", None).await;
    assert!(matches!(store.push("k", "item".into()).await, Err(BackendError::WrongKind { .. })));
    store.push("l", "item".into()).await.expect("the backend answers");
    assert!(matches!(store.get("l", None, None).await, Err(BackendError::WrongKind { .. })));
    assert_eq!(read(&store, "k").await, Some("text".into()));
}

/// In pages, while other keys are deleted.
pub async fn a_scan_finds_every_key_that_is_not_deleted(store: SharedCache) {
    for number in 0..700 {
        set(&store, &format!("mine:{number}"), "x", None).await;
        set(&store, &format!("other:{number}"), "x", None).await;
    }
    let (mut found, mut from, mut pages) = (BTreeSet::new(), None::<String>, 0);
    loop {
        let page = store.scan("mine:", from.as_deref()).await.expect("the backend answers");
        found.extend(page.keys);
        store.delete(&format!("other:{pages}"), None).await.expect("the backend answers");
        pages += 1;
        assert!(pages < 10_000, "a scan ends");
        match page.next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    assert_eq!(found.len(), 700);
    assert!(found.iter().all(|key| key.starts_with("mine:")));
}

/// They are not wildcards.
pub async fn special_characters_of_a_prefix_are_literal(store: SharedCache) {
    for key in ["a*1", "ab1", "a[b]", "a?"] {
        set(&store, key, "x", None).await;
    }
    for (prefix, expected) in [("a*", "a*1"), ("a[", "a[b]"), ("a?", "a?")] {
        let (mut found, mut from) = (Vec::new(), None::<String>);
        loop {
            let page = store.scan(prefix, from.as_deref()).await.expect("the backend answers");
            found.extend(page.keys);
            match page.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        assert_eq!(found, [expected], "{prefix}");
    }
}

/// With its ttl, and over a key of the other kind.
pub async fn a_dumped_key_can_be_restored(store: SharedCache) {
    set(&store, "k", "text", Some(LONG)).await;
    store.push("l", "a".into()).await.expect("the backend answers");
    store.push("l", "b".into()).await.expect("the backend answers");
    let value = store.dump("k").await.expect("the backend answers").expect("it was set");
    let list = store.dump("l").await.expect("the backend answers").expect("it has items");
    assert!(matches!(&value, Dumped::Value(stored) if stored.ttl.is_some()));
    assert_eq!(store.dump("nothing").await.expect("the backend answers"), None);
    store.restore("l", value).await.expect("the backend answers");
    store.restore("k", list).await.expect("the backend answers");
    let stored = store.get("l", None, None).await.expect("the backend answers").expect("it was restored");
    assert!(stored.value == "text" && stored.ttl.is_some_and(|ttl| ttl > LONG / 2));
    assert_eq!(store.range("k", 0, 9).await.expect("the backend answers"), ["a", "b"].map(Bytes::from));
}
