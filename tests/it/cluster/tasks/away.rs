//! Jobs that run while Redis is away, or comes back with older data or with none.

use std::time::Duration;

use phalanx_testkit::{check_time, print};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::super::{SOON, until};
use super::harness::JobCluster;

const AWAY: Duration = Duration::from_secs(10);

/// Runs 200 jobs of 15 s while Redis is away.
async fn run_while_away(
    fault: &str,
    take_away: impl AsyncFn(&mut JobCluster),
    bring_back: impl AsyncFn(&mut JobCluster),
) {
    let mut cluster = JobCluster::start(2, &[("TOUR_WORKERS", "100")]).await;
    cluster.push("j", 200, "sleep", &json!({ "ms": 15_000 })).await;
    until("all run", SOON, async || cluster.running().await == 200).await;
    until("all have begun", SOON, async || cluster.journal.begun(1).len() == 200).await;
    take_away(&mut cluster).await;
    sleep(AWAY).await; // the fault itself
    bring_back(&mut cluster).await;
    let began = Instant::now();
    cluster.until_over(200, SOON).await;
    cluster.until_nothing_is_left().await;
    let lines = cluster.journal.read();
    let again = lines.values().filter(|job| job.runs.len() > 1).count();
    print(format_args!("Redis {fault} for {AWAY:?}: 200 jobs over {:.1?} later, {again} ran twice", began.elapsed()));
    assert_eq!((lines.len(), again), (200, 0));
    assert!(lines.values().all(|job| job.ended("done") == 1));
}

#[tokio::test]
async fn no_job_runs_twice_because_redis_stands_still() {
    run_while_away("frozen", async |cluster| cluster.redis.freeze(), async |cluster| cluster.redis.thaw()).await;
}

#[tokio::test]
async fn no_job_runs_twice_because_redis_is_down() {
    let start_again = async |cluster: &mut JobCluster| cluster.redis.start_again().await;
    run_while_away("down", async |cluster| cluster.redis.kill().await, start_again).await;
}

#[tokio::test]
async fn jobs_that_waited_in_older_data_run() {
    let mut cluster = JobCluster::start(2, &[]).await;
    let pause = "SADD phalanx:tour:paused default";
    // Of eight that run then, four end before Redis is lost, and four run on.
    cluster.push("short", 4, "sleep", &json!({ "ms": 3000 })).await;
    cluster.push("long", 4, "sleep", &json!({ "ms": 12_000 })).await;
    until("all run", SOON, async || cluster.running().await == 8).await;
    cluster.redis.command(pause).await;
    cluster.push("waiting", 100, "noop", &json!({})).await;
    cluster.redis.keep();
    cluster.redis.command("SREM phalanx:tour:paused default").await;
    until("those that waited, and the short ones, have run", SOON, async || cluster.processed().await == 104).await;
    let ran: usize = cluster.journal.read().values().map(|job| job.runs.len()).sum();
    assert_eq!(ran, 108);
    cluster.redis.kill().await;
    cluster.redis.start_older().await;
    cluster.redis.command("SREM phalanx:tour:paused default").await;
    // Its counter is as old as the data.
    cluster.until_over(108, SOON * 2).await;
    cluster.until_nothing_is_left().await;
    let jobs = cluster.journal.read();
    for (id, job) in &jobs {
        let runs = if id.starts_with("long") { 1 } else { 2 };
        assert_eq!((job.runs.len(), job.ended("done")), (runs, runs), "{id}: {job:?}");
    }
    assert_eq!(jobs.len(), 108);
}

#[tokio::test]
async fn jobs_that_run_while_redis_loses_its_data_end_and_run_elsewhere_if_their_node_is_killed_then() {
    let mut cluster = JobCluster::start(2, &[("TOUR_WORKERS", "8")]).await;
    cluster.push("j", 16, "sleep", &json!({ "ms": 14_000 })).await;
    until("all run", SOON, async || cluster.running().await == 16).await;
    cluster.redis.kill().await;
    cluster.redis.start_empty().await;
    let began = Instant::now();
    until("they are listed again", SOON, async || {
        cluster.rename().await;
        cluster.running().await == 16
    })
    .await;
    check_time("attempts are listed in an empty Redis", began.elapsed(), super::super::RECOVERY_FROM_NOTHING);
    let (_, listed) = cluster.kill(0).await;
    assert_eq!(listed.len(), 8);
    cluster.until_over(16, SOON * 2).await;
    cluster.until_nothing_is_left().await;
    for (id, job) in cluster.journal.read() {
        let runs = 1 + usize::from(listed.contains(&id));
        assert_eq!((job.runs.len(), job.ended("done")), (runs, 1), "{id}: {job:?}");
    }
}
