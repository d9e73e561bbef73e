//! A Redis that the queue has filled gets emptier.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use phalanx_testkit::print;
use serde_json::json;
use tokio::time::sleep;

use super::super::{SOON, until};
use super::harness::{Enqueuer, JobCluster, set_paused, setting};
use crate::client::get;

/// 100,000 jobs take `JOBS=100000`.
#[tokio::test]
async fn a_redis_that_jobs_have_filled_refuses_more_and_all_of_them_run() {
    let jobs = setting("JOBS", 12_000);
    let mut cluster = JobCluster::start(3, &[("TOUR_WORKERS", "32")]).await;
    set_paused(cluster.addr(0), true).await;
    // They take so long that a node can be killed between a sixteenth and a quarter of them.
    cluster.push("j", jobs, "sleep", &json!({ "ms": 20 })).await;
    let used = async |cluster: &JobCluster| {
        let memory = cluster.texts("INFO memory").await;
        let line = memory.iter().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    cluster.redis.command("CONFIG SET maxmemory-policy noeviction").await;
    let full = used(&cluster).await;
    // A quarter of the jobs is beyond the limit. More are needed for there to be room again: Redis keeps ids of those that ran.
    cluster.redis.command(&format!("CONFIG SET maxmemory {}", full - jobs * 25)).await;
    until("Redis is full", SOON, async || cluster.redis.command("SET any value").await.starts_with("-OOM")).await;

    let job = json!({ "name": "noop" });
    for worker in 0..3 {
        let (status, answer) = Enqueuer::new(cluster.addr(worker)).enqueue(&job).await.unwrap();
        assert_eq!((status, answer["error"]["code"].as_str()), (503, Some("unavailable")), "{answer}");
    }
    set_paused(cluster.addr(0), false).await;
    until("a part has run", SOON, async || cluster.processed().await > jobs / 16).await;
    let (_, listed) = cluster.kill(1).await;
    let is_watching = Arc::new(AtomicBool::new(true));
    let (watching, admins) = (is_watching.clone(), cluster.workers.iter().map(|worker| worker.process.admin));
    let admins: Vec<_> = admins.collect();
    let watch = tokio::spawn(async move {
        while watching.load(Relaxed) {
            for admin in &admins {
                let ready = get(*admin, "/readyz").await;
                assert_eq!(ready.status, 200, "no node is fenced: {ready:?}");
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    let is_full = cluster.redis.command("SET any value").await.starts_with("-OOM");
    assert!(is_full, "the node was killed while Redis was full");
    let took = cluster.until_over(jobs, Duration::from_secs(60 + jobs / 200)).await;
    cluster.until_nothing_is_left().await;
    is_watching.store(false, Relaxed);
    watch.await.unwrap();
    let left = used(&cluster).await;
    print(format_args!(
        "{jobs} jobs of a full Redis ended {took:.1?} after a node was killed with {} of them; used memory {full} to {left}",
        listed.len()
    ));
    assert!(left < full);
    for worker in &cluster.workers {
        let status = super::super::status(worker.process.addr).await;
        assert_eq!(status["generation"], *worker.generation, "no node was taken for dead");
    }
    for (id, job) in cluster.journal.read() {
        // Not all that it had fetched had begun there.
        let deaths = u32::from(listed.contains(&id));
        assert!(job.runs.len() <= 1 + deaths as usize, "{id} ran without need: {job:?}");
        assert_eq!(job.runs.last().map(|run| run.deaths), Some(deaths), "{id}: {job:?}");
    }
    let (status, answer) = Enqueuer::new(cluster.addr(0)).enqueue(&job).await.unwrap();
    assert_eq!(status, 200, "there is room again: {answer}");
}
