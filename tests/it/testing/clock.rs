use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use phalanx::prelude::*;
use phalanx::testing;
use serde_json::json;
use tokio::time::Instant;

use super::{Done, app};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Far less than a wait for a timer that was set before the clock was put forward.
const AT_ONCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn keys_of_the_cache_expire_by_the_clock() {
    let app = testing::start(app()).await;
    let cache = app.node().cache();
    cache.save("kept", &1, None).await.unwrap();
    cache.save("gone", &2, Some(HOUR)).await.unwrap();
    app.clock().advance(HOUR - Duration::from_secs(60));
    assert_eq!(cache.load::<u32>("gone").await.unwrap().unwrap().value, 2);
    app.clock().advance(Duration::from_secs(60));
    assert!(cache.load::<u32>("gone").await.unwrap().is_none());
    assert_eq!(cache.load::<u32>("kept").await.unwrap().unwrap().value, 1);
}

#[tokio::test]
async fn jobs_begin_once_the_clock_says_that_they_are_due() {
    let done = Arc::<Done>::default();
    let app = testing::start(app()).state(done.clone()).await;
    let began = Instant::now();
    for round in 1..4 {
        app.client().post("/api/countLater", json!({})).await.ok();
        app.clock().advance(HOUR - Duration::from_secs(60));
        app.jobs_done().await;
        assert_eq!(done.0.load(SeqCst), round - 1, "a minute too soon");
        app.clock().advance(Duration::from_secs(60));
        app.jobs_done().await;
        assert_eq!(done.0.load(SeqCst), round);
        app.clock().advance(DAY); // the worker's own timer wakes it, not jobs_done
        app.client().post("/api/countLater", json!({})).await.ok();
        app.clock().advance(HOUR);
        testing::until("the job ran", async || done.0.load(SeqCst) > round).await;
        done.0.fetch_sub(1, SeqCst);
    }
    assert!(began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());
}

static TICKS: AtomicUsize = AtomicUsize::new(0);

/// Counts.
#[task(cron = "30 2 * * *")]
async fn nightly(_ctx: TaskContext) -> Result<(), ActionError> {
    TICKS.fetch_add(1, SeqCst);
    Ok(())
}

#[tokio::test]
async fn periodic_tasks_follow_the_clock() {
    let app = testing::start(App::new("ticks").tasks(tasks![nightly])).await;
    testing::until("the ticker has begun", async || app.node().tasks().stats().await.is_ok()).await;
    let began = Instant::now();
    for night in 1..=3 {
        app.clock().advance(DAY);
        testing::until("it is night", async || TICKS.load(SeqCst) == night).await;
    }
    assert!(began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());
}

#[tokio::test]
async fn a_lock_that_is_held_stays_with_its_owner() {
    let app = testing::start(app()).await;
    let locks = app.node().locks();
    let guard = locks.try_lock("order", Duration::from_secs(1)).await.unwrap().unwrap();
    app.clock().advance(DAY);
    assert!(guard.is_held() && locks.try_lock("order", Duration::from_secs(1)).await.unwrap().is_none());
    assert!(app.clock().now_ms() >= app.node().now_ms());
}
