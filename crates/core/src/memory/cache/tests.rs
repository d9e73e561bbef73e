use super::*;
use crate::backend::SystemClock;

#[tokio::test(start_paused = true)]
async fn a_push_removes_expired_keys_too() {
    let cache = MemoryCache::new(Arc::new(MemoryLocks::new(Arc::new(SystemClock::new()))));
    cache.push("l", "item".into()).await.unwrap();
    for number in 0..10 {
        cache.set(&format!("k{number}"), "x".into(), Some(Duration::from_secs(1)), None).await.unwrap();
    }
    tokio::time::advance(Duration::from_secs(2)).await;
    cache.push("l", "item".into()).await.unwrap();
    assert_eq!(cache.table().keys.len(), 1);
}
