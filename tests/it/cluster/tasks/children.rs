//! Jobs that enqueue others, on nodes that die while they do.

use phalanx_testkit::{Redis, print};
use serde_json::json;
use tokio::time::Instant;

use super::super::{SOON, rounds, until};
use super::harness::JobCluster;

/// How many jobs each of them enqueues.
const CHILDREN: u64 = 3;

/// Before each of its enqueues, before it returns, and just after it has: while it is settled, or not yet.
const STEPS: u64 = CHILDREN + 2;

/// A counter of the tour.
async fn count(cluster: &JobCluster, name: &str) -> u64 {
    crate::client::get(cluster.addr(0), &format!("/api/counters/{name}")).await.json()["value"].as_u64().unwrap()
}

/// Each node has one slot, in which the job that kills it runs: all jobs that it enqueues run on the node that is left.
#[tokio::test]
async fn a_job_that_dies_at_any_step_enqueues_each_job_once() {
    let all = [true, false].into_iter().flat_map(|at_once| (1..=STEPS).map(move |step| (at_once, step)));
    // A short run takes the second enqueue, and the settlement.
    let is_short = rounds() < 10;
    let steps: Vec<_> = all.filter(|(_, step)| !is_short || matches!(*step, 2 | STEPS)).collect();
    let mut cluster = JobCluster::over(Redis::start().await, steps.len(), &[("TOUR_WORKERS", "1")], false).await;
    let name = |at_once: bool, step: u64| format!("{}{step}", if at_once { "once" } else { "after" });
    for (at_once, step) in &steps {
        let input = json!({ "children": CHILDREN, "name": name(*at_once, *step), "atOnce": at_once, "dieAt": step });
        cluster.push(&name(*at_once, *step), 1, "parent", &input).await;
    }
    let began = Instant::now();
    let dying: Vec<_> = cluster.workers.drain(..).collect();
    for mut worker in dying {
        worker.process.ended().await;
    }
    cluster.add(&[]).await;
    cluster.until_over(steps.len() as u64 * (1 + CHILDREN), SOON).await;
    cluster.until_nothing_is_left().await;
    let took = began.elapsed();
    let lines = cluster.journal.read();
    for (at_once, step) in &steps {
        let name = name(*at_once, *step);
        let runs = lines[&format!("{name}0")].runs.len();
        assert!(runs == 2 || runs == 1 && *step == STEPS, "{name}: {runs} runs");
        assert_eq!(count(&cluster, &name).await, CHILDREN, "{name}");
    }
    assert_eq!(lines.len(), steps.len() * (1 + CHILDREN as usize), "no other job ran");
    print(format_args!(
        "{} jobs died at their steps, and {CHILDREN} children of each ran once: {took:.1?}",
        steps.len()
    ));
}

/// The settlement took effect, and stored the follow-on jobs; the answer brings them.
#[tokio::test]
async fn follow_on_jobs_run_once_where_the_answer_to_their_settlement_is_lost() {
    let mut cluster = JobCluster::over(Redis::start().await, 1, &[], true).await;
    cluster.workers[0].proxy.as_ref().unwrap().swallow("\"class\":\"count\"");
    cluster.push("parent", 1, "parent", &json!({ "children": CHILDREN, "name": "lost" })).await;
    cluster.until_over(1 + CHILDREN, SOON).await;
    cluster.until_nothing_is_left().await;
    assert_eq!(count(&cluster, "lost").await, CHILDREN);
    until("a call was not answered", SOON, async || {
        cluster.metric_of(0, "phalanx_tasks_call_failures_total", "").await >= 1.0
    })
    .await;
    cluster.rename().await;
}
