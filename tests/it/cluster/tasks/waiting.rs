//! The cost of a job does not depend on how many wait.

use phalanx_testkit::print;
use serde_json::json;

use super::super::{SOON, until};
use super::harness::{Enqueuer, JobCluster, set_paused, setting};

/// Jobs in one measurement.
const JOBS: u64 = 500;

/// Measurements, of which the cheapest counts: others were disturbed.
const MEASUREMENTS: usize = 7;

/// The time that Redis has spent in scripts, in µs.
async fn script_us(cluster: &JobCluster) -> u64 {
    let stats = cluster.texts("INFO commandstats").await;
    let line = stats.iter().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap();
    line.split("usec=").nth(1).and_then(|rest| rest.split(',').next()).unwrap().parse().unwrap()
}

/// The time of Redis for one job, in µs, while at least `waiting` jobs wait: to fetch and settle it, and to enqueue it.
async fn cost(cluster: &JobCluster, name: &str, waiting: u64) -> (f64, f64) {
    let (addr, mut best) = (cluster.addr(0), (f64::MAX, f64::MAX));
    let mut enqueuer = Enqueuer::new(addr);
    for round in 0..MEASUREMENTS {
        let length = cluster.number("LLEN resque:queue:default").await;
        cluster.push(&format!("{name}{round}-"), (waiting + JOBS).saturating_sub(length), "noop", &json!({})).await;
        let (before, processed) = (script_us(cluster).await, cluster.processed().await);
        set_paused(addr, false).await;
        until("some run", SOON, async || cluster.processed().await >= processed + JOBS).await;
        set_paused(addr, true).await;
        until("they end", SOON, async || cluster.running().await == 0).await;
        let jobs = cluster.processed().await - processed;
        best.0 = best.0.min((script_us(cluster).await - before) as f64 / jobs as f64);
        let before = script_us(cluster).await;
        for _ in 0..100 {
            assert_eq!(enqueuer.enqueue(&json!({ "name": "noop" })).await.unwrap().0, 200);
        }
        best.1 = best.1.min((script_us(cluster).await - before) as f64 / 100.0);
    }
    best
}

/// 1,000,000 jobs take `WAITING=1000000`.
#[tokio::test]
async fn a_job_costs_what_it_costs_where_few_wait() {
    let waiting = setting("WAITING", 20_000);
    let cluster = JobCluster::start(1, &[("TOUR_WORKERS", "32")]).await;
    cluster.redis.command("CONFIG SET appendonly no").await;
    set_paused(cluster.addr(0), true).await;
    let few = cost(&cluster, "few", 1_000).await;
    let resident = || cluster.workers[0].process.resident().unwrap() / 1024;
    let before = resident();
    let mut length = 0;
    while length < waiting {
        cluster.push(&format!("fill{length}-"), 20_000.min(waiting - length), "noop", &json!({})).await;
        length = cluster.number("LLEN resque:queue:default").await;
    }
    let many = cost(&cluster, "many", waiting).await;
    let after = resident();
    print(format_args!(
        "µs of Redis a job, where 1,000 and {waiting} jobs wait: fetch and settle {:.2} and {:.2}, enqueue {:.1} and {:.1}; \
         the node has {before} and {after} KiB",
        few.0, many.0, few.1, many.1
    ));
    // A tenth is the aim; three times that is permitted.
    assert!(many.0 <= few.0 * 1.3 + 0.5, "fetch and settle: {few:?}, {many:?}");
    assert!(many.1 <= few.1 * 1.3 + 2.0, "enqueue: {few:?}, {many:?}");
    assert!(after <= before + 8 * 1024, "{before} KiB, {after} KiB");
}
