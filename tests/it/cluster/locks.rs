//! Locks of nodes that are cut off from Redis.

use std::time::Duration;

use phalanx::RunningApp;
use phalanx::prelude::*;
use phalanx_testkit::{Proxy, Redis};
use tokio::time::{Instant, timeout};

use super::{SOON, config};

async fn node(url: &str, id: &str) -> RunningApp {
    App::new("tour").start_in_cluster(config(id), url).await.unwrap()
}

#[tokio::test]
async fn a_holder_that_is_cut_off_loses_its_lock_before_another_acquires_it_with_a_higher_token() {
    const LEASE: Duration = Duration::from_secs(2);
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let (through, straight) = (redis.url_through(proxy.addr()), redis.url());
    let (holder, other) = tokio::join!(node(&through, "holder"), node(&straight, "other"));
    for fault in [Proxy::cut, Proxy::pause] {
        let lock = holder.node().locks().lock("door", LEASE, SOON).await.unwrap().expect("it is free");
        fault(&proxy);
        let started = Instant::now();
        let next = other.node().locks().lock("door", LEASE, SOON).await.unwrap().expect("the lease expires");
        assert!(!lock.is_held(), "the holder's own clock has expired it");
        assert!(started.elapsed() > LEASE / 3, "{:?}", started.elapsed());
        assert!(next.token() > lock.token());
        timeout(SOON, lock.lost()).await.expect("the holder is notified");
        drop((lock, next));
        proxy.restore();
        super::until("the holder reaches redis again", SOON, async || {
            matches!(holder.node().locks().try_lock("door", LEASE).await, Ok(Some(_)))
        })
        .await;
    }
    tokio::join!(holder.stop(), other.stop());
}

#[tokio::test]
async fn a_lock_that_is_dropped_while_redis_is_away_is_free_once_it_is_back() {
    let mut redis = Redis::start().await;
    let mut config = config("node");
    config.redis.command_timeout = Duration::from_millis(500);
    let node = App::new("tour").start_in_cluster(config, &redis.url()).await.unwrap();
    let lock = node.node().locks().try_lock("door", Duration::from_secs(600)).await.unwrap().expect("it is free");
    redis.kill().await;
    drop(lock);
    let dropped = Instant::now();
    tokio::time::sleep_until(dropped + Duration::from_secs(3)).await; // longer than several commands take to time out
    redis.start_again().await;
    let back = Instant::now();
    super::until("the lock is free", Duration::from_secs(10), async || {
        matches!(node.node().locks().holder("door").await, Ok(None))
    })
    .await;
    phalanx_testkit::print(format_args!("a lock dropped while Redis is away: free {:?} after", back.elapsed()));
    node.stop().await;
}
