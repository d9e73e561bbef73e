//! Operations on jobs while three nodes run them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use futures_util::StreamExt;
use futures_util::stream::iter;
use phalanx_testkit::print;
use serde_json::json;

use super::super::{SOON, until};
use super::harness::{Enqueuer, JobCluster, set_paused, setting};
use crate::client::request;

async fn delete(addr: SocketAddr, id: &str) -> String {
    let answer = request(addr, &format!("DELETE /api/tasks/{id}"), &[], b"").await;
    answer.json()["outcome"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

/// In each state: delayed, waiting, running, over.
#[tokio::test]
async fn jobs_that_are_deleted_while_others_run_add_up() {
    let jobs = setting("JOBS", 240).min(10_000);
    let cluster = JobCluster::start(3, &[]).await;
    let mut enqueuer = Enqueuer::new(cluster.addr(0));
    let mut ids = Vec::new();
    set_paused(cluster.addr(0), true).await;
    for number in 0..jobs {
        let delay = if number % 8 == 7 { 3_000 } else { 0 };
        let job = json!({ "name": "sleep", "input": { "ms": 60 }, "delayMs": delay });
        let (_, answer) = enqueuer.enqueue(&job).await.unwrap();
        ids.push(answer["id"].as_str().unwrap().to_owned());
    }
    set_paused(cluster.addr(0), false).await;
    // From both ends: those that have run, or run, and those that wait for longest.
    let chosen: Vec<&String> = ids.iter().step_by(6).chain(ids.iter().rev().step_by(5)).collect();
    let outcomes: BTreeMap<String, String> = iter(chosen.into_iter().enumerate())
        .map(|(number, id)| {
            let addr = cluster.addr(number % 3);
            async move { (id.clone(), delete(addr, id).await) }
        })
        .buffer_unordered(6)
        .collect()
        .await;
    cluster.until_nothing_is_left().await;
    let lines = cluster.journal.read();
    let mut counts = BTreeMap::<&str, u64>::new();
    let mut done = 0;
    for id in &ids {
        let job = lines.get(id).cloned().unwrap_or_default();
        let outcome = outcomes.get(id).map_or("kept", |outcome| outcome);
        *counts.entry(outcome).or_default() += 1;
        let is_done = job.ended("done");
        done += is_done as u64;
        match outcome {
            "deleted" => assert_eq!((job.runs.len(), is_done), (0, 0), "{id}: {job:?}"),
            // It may have been about to end at that moment, and one that did not begin is dropped without an attempt.
            "marked" | "cancelling" => {
                let ends = is_done + job.ended("deleted");
                assert!(ends == 1 || ends + job.runs.len() == 0, "{outcome} {id}: {job:?}");
            }
            // A second delete of one job answers so too.
            "kept" | "not_found" => assert!(is_done + job.ended("deleted") <= 1, "{outcome} {id}: {job:?}"),
            other => panic!("{other}"),
        }
        assert!(outcome != "kept" || (job.runs.len(), is_done) == (1, 1), "{id}: {job:?}");
    }
    print(format_args!("{jobs} jobs, by the answer to their deletion: {counts:?}; {done} done"));
    assert_eq!((cluster.processed().await, cluster.failed().await), (done, Vec::new()));
}

/// 100,000 jobs take `JOBS=100000`.
#[tokio::test]
async fn a_job_that_always_fails_runs_once_more_each_time_that_all_failed_ones_are_retried() {
    let jobs = setting("JOBS", 150);
    let environment = [("TOUR_WORKERS", "16"), ("PHALANX__GENERAL__ACTION_DEADLINE", "10m")];
    let cluster = JobCluster::start(3, &environment).await;
    cluster.push("j", jobs, "panic", &json!({})).await;
    let limit = SOON + SOON * (jobs / 10_000) as u32;
    let failures = async || cluster.number("GET resque:stat:failed").await;
    until("all have failed", limit, async || failures().await == jobs).await;
    for round in 1..=3 {
        let retry = async |worker| {
            let mut client = Enqueuer::new(cluster.addr(worker));
            let (status, answer) = client.post("/api/failed/retry", &json!({}), limit).await.unwrap();
            (status, answer["retried"].as_u64().unwrap_or(0))
        };
        // Of two at once the second is refused, or finds what has failed again.
        let (first, second) = tokio::join!(retry(0), retry(1));
        let total = first.1 + second.1;
        until("all have failed again", limit, async || cluster.number("LLEN resque:failed").await == jobs).await;
        cluster.until_nothing_is_left().await;
        let runs: usize = cluster.journal.read().values().map(|job| job.runs.len()).sum();
        print(format_args!(
            "round {round}: {} and {} retried, answered {} and {}; {runs} runs of {jobs} jobs",
            first.1, second.1, first.0, second.0
        ));
        assert!(total >= jobs && total <= 2 * jobs);
        assert_eq!(failures().await as usize, runs);
    }
    assert_eq!(cluster.processed().await, 0);
}

#[tokio::test]
async fn a_queue_that_is_paused_waits_and_the_others_do_not() {
    let cluster = JobCluster::start(3, &[]).await;
    cluster.push("before", 90, "sleep", &json!({ "ms": 10 })).await;
    set_paused(cluster.addr(1), true).await;
    until("what had begun ends", SOON, async || cluster.running().await == 0).await;
    let ran = cluster.processed().await;
    cluster.push("paused", 30, "noop", &json!({})).await;
    // All nodes fetch meanwhile.
    let mut enqueuer = Enqueuer::new(cluster.addr(0));
    let mut others = 0;
    until("each node runs jobs of another queue", SOON, async || {
        let job = json!({ "name": "sleep", "input": { "ms": 20 }, "queue": "high" });
        for _ in 0..12 {
            assert_eq!(enqueuer.enqueue(&job).await.unwrap().0, 200);
            others += 1;
        }
        let jobs = cluster.journal.read();
        let of_high = jobs.iter().filter(|(id, _)| !id.starts_with("before")).map(|(_, job)| &*job.runs[0].node);
        of_high.collect::<std::collections::BTreeSet<_>>().len() == 3
    })
    .await;
    until("those are over", SOON, async || cluster.processed().await == ran + others).await;
    let jobs = cluster.journal.read();
    assert!(!jobs.keys().any(|id| id.starts_with("paused")), "{jobs:?}");
    print(format_args!("{ran} of 90 jobs ran before the pause, {others} of another queue during it"));
    set_paused(cluster.addr(2), false).await;
    cluster.until_over(120 + others, SOON).await;
    assert!(cluster.journal.read().values().all(|job| job.runs.len() == 1));
}
