//! Tasks over Redis: the laws, and what only Redis has. A file each for what goes wrong.

use std::sync::Arc;
use std::time::Duration;

use phalanx_cluster::{Keys, RedisClient, RedisTasks};
use phalanx_core::backend::{AttemptEnd, FetchedJob, SettleOutcome, TaskStore};
use phalanx_testkit::Redis;
use phalanx_testkit::laws::tasks::{LawWorker, enqueue, job, nodes};

mod batches;
mod cost;
mod follow_ups;
mod full;
mod limits;
mod lost;
mod reap;
mod replicas;
mod reports;
mod resque;
mod risks;
mod shares;
mod sizes;
mod spoilt;
mod ticks;
mod turns;

/// The generations of the laws have leases, and the first one has the claim on the second.
async fn store() -> (Arc<dyn TaskStore>, Redis) {
    let redis = Redis::start().await;
    prepare(&redis).await;
    (over(&redis.url()), redis)
}

async fn prepare(redis: &Redis) {
    let [one, other] = nodes();
    redis.command(&format!("ZADD phalanx:laws:leases 9e15 {one} 9e15 {other}")).await;
    redis.command(&format!("HSET phalanx:laws:reapers {other} {one}")).await;
}

/// The timeout of the commands of a store.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A node's store.
fn over(url: &str) -> Arc<dyn TaskStore> {
    of_cluster(url, "laws")
}

fn of_cluster(url: &str, cluster: &str) -> Arc<dyn TaskStore> {
    with_keys(url, Keys::new("actionhero:", cluster))
}

fn with_keys(url: &str, keys: Keys) -> Arc<dyn TaskStore> {
    let client = RedisClient::open(url, TIMEOUT).unwrap();
    Arc::new(RedisTasks::new(&client, keys, "n", 100))
}

phalanx_testkit::task_laws!(redis: super::store().await);

/// Fetches a job for each of these ids, which are enqueued before.
async fn running(store: &Arc<dyn TaskStore>, worker: &LawWorker, ids: &[&str]) -> Vec<FetchedJob> {
    enqueue(store, &ids.iter().map(|id| job(id)).collect::<Vec<_>>()).await;
    let mut fetched = Vec::new();
    while fetched.len() < ids.len() {
        let more = worker.fetch(ids.len() - fetched.len()).await;
        assert!(!more.is_empty(), "{ids:?}");
        fetched.extend(more);
    }
    fetched
}

/// The script that fetches has the names of keys in its text.
#[tokio::test]
async fn a_prefix_may_have_any_characters() {
    let (_, redis) = store().await;
    redis.command("ACL SETUSER phalanx ~*").await;
    for prefix in ["it's:", "back\\slash:", "two\nlines\r:", "ü 漢 \"]]\0:", "{tag}:--"] {
        let keys = Keys::new("actionhero:", "laws").with_tasks_prefix(prefix);
        let store = with_keys(&redis.url(), keys);
        let worker = LawWorker::new(&store, 0);
        for job in running(&store, &worker, &["a", "b"]).await {
            assert_eq!(worker.settle(&job, AttemptEnd::Done).await, SettleOutcome::Accepted, "{prefix:?}");
        }
        assert_eq!(store.stats().await.unwrap().processed, 2, "{prefix:?}");
    }
}
