//! Replies that are lost, and calls that arrive late.

use std::sync::Arc;
use std::time::Duration;

use phalanx_cluster::{Keys, RedisCache, RedisClient, RedisTasks};
use phalanx_core::backend::{AttemptEnd, CacheStore, SettleOutcome, TaskStore};
use phalanx_testkit::laws::tasks::{LawWorker, enqueue, job, nodes, settlement};
use phalanx_testkit::{Proxy, Redis};

/// Redis's time, in µs.
async fn now_us(redis: &Redis) -> u64 {
    let reply = redis.command("TIME").await;
    let numbers: Vec<u64> = reply.lines().filter_map(|line| line.parse().ok()).collect();
    numbers[0] * 1_000_000 + numbers[1]
}

#[tokio::test]
async fn the_attempts_show_what_a_call_did_whose_reply_was_lost() {
    let redis = Redis::start().await;
    super::prepare(&redis).await;
    let proxy = Proxy::before(redis.addr()).await;
    let store = super::over(&redis.url_through(proxy.addr()));
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &["a", "b", "c"].map(job)).await;
    let first = worker.fetch(1).await;
    proxy.swallow("\"id\":\"b\"");
    let ends = [settlement(&first[0], AttemptEnd::Done)];
    worker.try_call(&ends, 2, |call| call.first_token = 500).await.unwrap_err();
    let listed = store.attempts(nodes()[0]).await.unwrap();
    let tokens: Vec<u64> = listed.iter().map(|job| job.attempt.token).collect();
    assert_eq!(tokens, [500, 501], "the settled one is gone, the fetched ones are listed");
    let again = worker.call(&ends, 0, |_| {}).await;
    assert_eq!(again.settled, [SettleOutcome::Superseded], "and a repeat changes nothing");
    assert_eq!(store.stats().await.unwrap().processed, 1);
}

#[tokio::test]
async fn a_call_that_arrives_after_its_deadline_fetches_nothing_and_settles() {
    let redis = Redis::start().await;
    super::prepare(&redis).await;
    let proxy = Proxy::before(redis.addr()).await;
    let store = super::over(&redis.url_through(proxy.addr()));
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &["a", "b"].map(job)).await;
    let first = worker.fetch(1).await;
    proxy.hold();
    let until = now_us(&redis).await + 2_000_000;
    let ends = [settlement(&first[0], AttemptEnd::Done)];
    worker.try_call(&ends, 2, |call| call.fetch_until_us = until).await.unwrap_err();
    while now_us(&redis).await <= until {
        tokio::task::yield_now().await;
    }
    proxy.release();
    let settled = async {
        while redis.command("EXISTS phalanx:laws:running:aaaaaaaaaa").await != ":0\r\n" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), settled).await.expect("the late call settles");
    assert_eq!(store.waiting("q", 0, 9).await.unwrap().len(), 1);
    assert_eq!(store.stats().await.unwrap().processed, 1);
}

#[tokio::test]
async fn a_worker_is_woken_over_a_new_connection_too() {
    let redis = Redis::start().await;
    super::prepare(&redis).await;
    let proxy = Proxy::before(redis.addr()).await;
    let store = super::over(&redis.url_through(proxy.addr()));
    let direct = super::over(&redis.url());
    let quiet = || async {
        let pause = std::time::Duration::from_millis(300);
        while tokio::time::timeout(pause, store.woken()).await.is_ok() {}
    };
    quiet().await;
    proxy.cut();
    tokio::time::timeout(std::time::Duration::from_secs(5), store.woken()).await.expect("something may be missed");
    proxy.restore();
    quiet().await;
    enqueue(&direct, &[job("a")]).await;
    tokio::time::timeout(std::time::Duration::from_secs(5), store.woken()).await.expect("the queue was empty");
}

/// Both connections are lost, and the address moves while they are opened again.
#[tokio::test]
async fn jobs_go_to_the_server_of_the_other_commands() {
    let (old, new) = (Redis::start().await, Redis::start().await);
    let proxy = Proxy::before(old.addr()).await;
    let client = RedisClient::open(&old.url_through(proxy.addr()), Duration::from_secs(2)).unwrap();
    let keys = Keys::new("actionhero:", "laws");
    let store: Arc<dyn TaskStore> = Arc::new(RedisTasks::new(&client, keys.clone(), "n", 100));
    let cache = RedisCache::new(client, keys);
    cache.set("k", "1".into(), None, None).await.unwrap();
    enqueue(&store, &[job("before")]).await;
    proxy.cut();
    cache.set("k", "1".into(), None, None).await.unwrap_err();
    proxy.restore();
    let _ = store.enqueue(&[job("meanwhile")], u64::MAX / 4).await;
    proxy.switch_to(new.addr()); // the old one closes no connection
    cache.set("after", "1".into(), None, None).await.unwrap();
    enqueue(&store, &[job("after")]).await;
    for server in [&old, &new] {
        let has_value = server.command("KEYS actionhero:cache:after").await != "*0\r\n";
        let has_job = server.command("LRANGE resque:queue:q 0 -1").await.contains("\"after\"");
        assert_eq!(has_value, has_job);
    }
}
