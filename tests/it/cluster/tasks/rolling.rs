//! Jobs while nodes of two versions of the application run side by side.

use std::time::Duration;

use phalanx_testkit::{check_time, print};
use serde_json::json;
use tokio::time::Instant;

use super::super::{SOON, until};
use super::harness::{JobCluster, setting};

/// From the start of the first node that knows a class until the jobs of it that wait have begun.
const NEW_CLASS: Duration = Duration::from_secs(2);

async fn check_single_attempts(cluster: &JobCluster, jobs: u64) {
    assert_eq!((cluster.processed().await, cluster.failed().await), (jobs, Vec::new()));
    let lines = cluster.journal.read();
    assert_eq!(lines.len() as u64, jobs);
    for (id, job) in lines {
        assert!(job.runs.iter().all(|run| run.attempt == 1), "{id}: {job:?}");
        assert_eq!(job.ended("done"), 1, "{id}: {job:?}");
    }
}

/// 1,000 jobs take `JOBS=1000`.
#[tokio::test]
async fn jobs_of_a_new_task_wait_for_the_first_node_that_knows_it() {
    let jobs = setting("JOBS", 100).min(1_000);
    let mut cluster = JobCluster::start(2, &[("TOUR_WITHOUT", "count,fail")]).await;
    cluster.push("early", jobs / 2, "count", &json!({ "name": "n" })).await;
    until("they are parked", SOON, async || cluster.number("LLEN phalanx:tour:parked:count").await == jobs / 2).await;
    cluster.add(&[("TOUR_WITHOUT", "")]).await;
    let began = Instant::now();
    cluster.push("late", jobs - jobs / 2, "count", &json!({ "name": "n" })).await;
    until("all have begun", SOON, async || cluster.journal.begun(1).len() as u64 == jobs).await;
    check_time(&format!("{jobs} jobs of a new class have begun"), began.elapsed(), NEW_CLASS);
    cluster.until_over(jobs, SOON).await;
    cluster.until_nothing_is_left().await;
    check_single_attempts(&cluster, jobs).await;
}

/// Jobs without a field that new nodes require run on those that do not.
#[tokio::test]
async fn jobs_in_an_older_shape_run_on_older_nodes() {
    let jobs = setting("JOBS", 48).min(1_000);
    let mut cluster = JobCluster::start(3, &[]).await;
    cluster.add(&[("TOUR_SHAPE", "2")]).await;
    let began = Instant::now();
    cluster.push("old", jobs / 2, "count", &json!({ "name": "n" })).await;
    cluster.push("new", jobs - jobs / 2, "count", &json!({ "name": "n", "by": 1 })).await;
    // A new node that takes such a job lets it wait for 1 s, then 2 s, 4 s, and so on. It knows when that is over, and so is often the
    // first to take it again: seven times in a row take 127 s.
    cluster.until_over(jobs, SOON * 8).await;
    let runs: usize = cluster.journal.read().values().map(|job| job.runs.len()).sum();
    print(format_args!(
        "{jobs} jobs in two shapes ended in {:.1?}, after {runs} looks at their inputs",
        began.elapsed()
    ));
    cluster.until_nothing_is_left().await;
    check_single_attempts(&cluster, jobs).await;
    let counter = cluster.redis.command("GET actionhero:cache:counter:n").await;
    assert!(counter.contains(&jobs.to_string()), "{counter}");
}
