//! Laws of values, lists and counters.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use phalanx_core::backend::{BackendError, CacheStore, Dumped};
use tokio::task::JoinSet;

use super::eventually;

/// Makes a test of each law of the cache: `cache_laws!(memory: make())`.
#[macro_export]
macro_rules! cache_laws {
    ($backend:ident: $make:expr) => {
        $crate::laws_of!(
            cache,
            $backend,
            $make,
            [
                a_value_is_read_as_it_was_set,
                set_replaces_value_and_lifetime,
                a_value_ends_with_its_lifetime,
                a_touch_gives_a_new_lifetime,
                delete_says_whether_there_was_one,
                counters_start_at_zero_and_lose_nothing,
                a_counter_stays_within_64_bits,
                a_list_hands_out_what_came_first,
                each_item_is_taken_once,
                kinds_do_not_mix,
                a_scan_finds_every_key_that_stays,
                a_prefix_is_no_pattern,
                what_was_dumped_can_be_restored,
            ]
        );
    };
}

type Store = Arc<dyn CacheStore>;

const LONG: Duration = Duration::from_secs(600);

async fn read(store: &Store, key: &str) -> Option<Bytes> {
    store.get(key, None, None).await.expect("the backend answers").map(|stored| stored.value)
}

async fn set(store: &Store, key: &str, value: &'static str, ttl: Option<Duration>) {
    store.set(key, value.into(), ttl, None).await.expect("the backend answers");
}

/// Bytes are bytes: no text is assumed.
pub async fn a_value_is_read_as_it_was_set(store: Store) {
    let bytes = Bytes::from_static(b"\0\xff{\"a\":1}");
    assert_eq!(read(&store, "k").await, None);
    store.set("k", bytes.clone(), None, None).await.expect("the backend answers");
    assert_eq!(read(&store, "k").await, Some(bytes));
}

/// A value set without a lifetime does not inherit one.
pub async fn set_replaces_value_and_lifetime(store: Store) {
    set(&store, "k", "one", Some(LONG)).await;
    set(&store, "k", "two", None).await;
    let stored = store.get("k", None, None).await.expect("the backend answers").expect("it was set");
    assert_eq!((stored.value, stored.ttl), (Bytes::from("two"), None));
}

/// It is there before and not after.
pub async fn a_value_ends_with_its_lifetime(store: Store) {
    set(&store, "k", "one", Some(Duration::from_millis(200))).await;
    assert!(read(&store, "k").await.is_some());
    eventually("the value ends", || async { read(&store, "k").await.is_none() }).await;
    assert!(!store.delete("k", None).await.expect("the backend answers"));
}

/// Reading and prolonging are one step.
pub async fn a_touch_gives_a_new_lifetime(store: Store) {
    set(&store, "k", "one", Some(Duration::from_secs(5))).await;
    store.get("k", Some(LONG), None).await.expect("the backend answers");
    let stored = store.get("k", None, None).await.expect("the backend answers").expect("it was set");
    assert!(stored.ttl.is_some_and(|ttl| ttl > LONG / 2 && ttl <= LONG), "{:?}", stored.ttl);
}

/// Whatever the key holds.
pub async fn delete_says_whether_there_was_one(store: Store) {
    set(&store, "k", "one", None).await;
    store.push("l", "item".into()).await.expect("the backend answers");
    for key in ["k", "l"] {
        assert!(store.delete(key, None).await.expect("the backend answers"), "{key}");
        assert!(!store.delete(key, None).await.expect("the backend answers"), "{key}");
    }
    assert_eq!(store.len("l").await.expect("the backend answers"), 0);
}

/// However many add at once.
pub async fn counters_start_at_zero_and_lose_nothing(store: Store) {
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

/// Beyond them it refuses; it never wraps.
pub async fn a_counter_stays_within_64_bits(store: Store) {
    assert_eq!(store.add("n", i64::MAX).await.expect("the backend answers"), i64::MAX);
    if let Ok(beyond) = store.add("n", 1).await {
        assert_eq!(beyond, i64::MAX);
    }
    assert_eq!(store.add("n", -1).await.expect("the backend answers"), i64::MAX - 1);
}

/// First in, first out.
pub async fn a_list_hands_out_what_came_first(store: Store) {
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

/// However many take at once.
pub async fn each_item_is_taken_once(store: Store) {
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

/// A value is no list, and a list no value.
pub async fn kinds_do_not_mix(store: Store) {
    set(&store, "k", "text", None).await;
    assert!(matches!(store.push("k", "item".into()).await, Err(BackendError::WrongKind { .. })));
    store.push("l", "item".into()).await.expect("the backend answers");
    assert!(matches!(store.get("l", None, None).await, Err(BackendError::WrongKind { .. })));
    assert_eq!(read(&store, "k").await, Some("text".into()));
}

/// In pages, while others come and go.
pub async fn a_scan_finds_every_key_that_stays(store: Store) {
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

/// Its characters mean themselves.
pub async fn a_prefix_is_no_pattern(store: Store) {
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

/// With its lifetime, and in place of what is there.
pub async fn what_was_dumped_can_be_restored(store: Store) {
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
