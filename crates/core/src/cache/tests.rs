use super::*;
use crate::backend::SystemClock;
use crate::locks::Locks;
use crate::memory::{MemoryCache, MemoryLocks};
use crate::shutdown::Shutdown;

const SECOND: Duration = Duration::from_secs(1);

fn memory() -> (Cache, Locks) {
    let clock = Arc::new(SystemClock::new());
    let locks = Arc::new(MemoryLocks::new(clock.clone()));
    (Cache::new(Arc::new(MemoryCache::new(locks.clone())), clock), Locks::new(locks, Shutdown::default()))
}

#[tokio::test(start_paused = true)]
async fn a_retrying_cache_waits_until_the_lock_is_free() {
    let (cache, locks) = memory();
    cache.save("k", &1, None).await.unwrap();
    let guard = locks.try_lock("k", SECOND).await.unwrap().unwrap();
    let (started, retrying) = (Instant::now(), cache.retrying(5 * SECOND));
    let (loaded, saved, ()) = tokio::join!(retrying.load::<u8>("k"), retrying.save("k", &1, None), async {
        sleep(3 * SECOND).await;
        drop(guard);
    });
    assert_eq!((loaded.unwrap().unwrap().value, saved.unwrap()), (1, ()));
    let waited = started.elapsed();
    assert!(waited >= 3 * SECOND && waited < 4 * SECOND, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_retrying_cache_respects_the_lock_and_times_out() {
    let (cache, locks) = memory();
    let guard = locks.try_lock("k", SECOND).await.unwrap().unwrap();
    for (retry, longest) in [(Duration::ZERO, Duration::ZERO), (SECOND, SECOND), (Duration::MAX, Cache::MAX_RETRY)] {
        let (started, retrying) = (Instant::now(), cache.retrying(retry));
        assert_eq!(retrying.load::<u8>("k").await.unwrap_err().code(), "locked");
        let waited = started.elapsed();
        assert!(waited <= longest && waited + Duration::from_millis(100) > longest, "{retry:?} {waited:?}");
    }
    assert_eq!(cache.retrying(SECOND).save("k", &1, None).await.unwrap_err().code(), "locked");
    cache.holding(&guard).retrying(SECOND).save("k", &1, None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_longest_ttl_does_not_overflow() {
    let (cache, _locks) = memory();
    cache.save("k", &1, Some(Duration::MAX)).await.unwrap();
    assert_eq!(cache.load_and_extend::<u8>("k", Duration::MAX).await.unwrap().unwrap().value, 1);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump");
    tokio::fs::write(&file, format!("{{\"key\":\"r\",\"ttl_ms\":{},\"value\":\"MQ==\"}}\n", u64::MAX)).await.unwrap();
    assert_eq!(cache.dump_read(&file).await.unwrap(), 1);
    assert_eq!(cache.counter("r").await.unwrap(), 1);
}

#[tokio::test]
async fn a_dump_with_a_broken_line_changes_nothing() {
    let (cache, _locks) = memory();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump");
    let line = |key: &str, value: &str| format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}\n");
    tokio::fs::write(&file, line("a", "MQ==") + &line("b", "no base64")).await.unwrap();
    assert_eq!(cache.dump_read(&file).await.unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(cache.size().await.unwrap(), 0);
}
