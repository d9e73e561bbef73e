use std::sync::Arc;
use std::time::Duration;

use phalanx_core::backend::{NewSession, SessionKey, SessionStore, SystemClock, UserKey};
use phalanx_core::memory::MemorySessions;

fn store(max: usize) -> Arc<dyn SessionStore> {
    Arc::new(MemorySessions::new(Arc::new(SystemClock::new()), max))
}

phalanx_testkit::session_laws!(memory: (super::store(1_000), ()));

#[tokio::test]
async fn in_a_full_memory_the_session_that_was_unused_for_longest_ends() {
    let store = store(3);
    let new = |name: &str| NewSession {
        key: SessionKey::of(name),
        user: Some(UserKey::of("ada")),
        value: "{}".into(),
        is_remembered: true,
        idle: Duration::from_secs(600),
        absolute: Duration::from_secs(600),
    };
    for name in ["a", "b", "c"] {
        assert_eq!(store.create(new(name)).await.unwrap().ended, []);
    }
    assert!(store.read(SessionKey::of("a"), None).await.unwrap().is_some());
    assert_eq!(store.create(new("d")).await.unwrap().ended, [SessionKey::of("b")]);
    let left = store.list(UserKey::of("ada")).await.unwrap();
    assert_eq!(left.len(), 3);
    assert!(store.read(SessionKey::of("b"), None).await.unwrap().is_none());
}
