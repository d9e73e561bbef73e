//! Jobs of nodes that are killed, stop, or freeze, run on other nodes.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use phalanx_testkit::{Signal, check_time, print};
use serde_json::json;
use tokio::time::Instant;

use super::super::{SOON, rounds, status, until};
use super::harness::JobCluster;

/// From the kill of a node until its jobs run elsewhere, and the same for one that stops, after its grace.
const KILLED: Duration = Duration::from_secs(10);
const STOPPED: Duration = Duration::from_secs(1);

/// Clusters at once.
const AT_ONCE: usize = 3;

/// Runs each round in a cluster of its own; most of a round is waiting.
async fn each_round<F: Future<Output = ()>>(round: impl Fn(usize) -> F) {
    iter(0..rounds()).map(&round).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

/// Waits until these jobs have begun twice; returns when.
async fn until_all_run_again(cluster: &JobCluster, listed: &[String]) -> Duration {
    until("the jobs run elsewhere", SOON, async || {
        let again = cluster.journal.begun(2);
        listed.iter().all(|id| again.contains(id))
    })
    .await
}

#[tokio::test]
async fn the_jobs_of_a_killed_node_run_elsewhere() {
    each_round(|round| async move {
        let mut cluster = JobCluster::start(3, &[]).await;
        cluster.push("j", 12, "sleep", &json!({ "ms": 3000 })).await;
        until("all run", SOON, async || cluster.journal.begun(1).len() == 12).await;
        let (killed, listed) = cluster.kill(round % 3).await;
        assert_eq!(listed.len(), 4);
        let took = until_all_run_again(&cluster, &listed).await;
        check_time(&format!("round {round}: from SIGKILL until its {} jobs run elsewhere", listed.len()), took, KILLED);
        cluster.until_over(12, SOON).await;
        cluster.until_nothing_is_left().await;
        for (id, job) in cluster.journal.read() {
            let was_killed = listed.contains(&id);
            let expected: &[(u32, u32)] = if was_killed { &[(1, 0), (1, 1)] } else { &[(1, 0)] };
            let runs: Vec<(u32, u32)> = job.runs.iter().map(|run| (run.attempt, run.deaths)).collect();
            assert_eq!((&*runs, job.ended("done")), (expected, 1), "{id}: {job:?}");
            assert!(job.runs[1..].iter().all(|run| run.node != killed));
        }
    })
    .await;
}

#[tokio::test]
async fn a_node_that_stops_hands_its_jobs_over() {
    const GRACE: Duration = Duration::from_millis(100);
    each_round(|round| async move {
        let mut cluster = JobCluster::start(2, &[("PHALANX__GENERAL__GRACE", "100ms")]).await;
        cluster.push("long", 4, "sleep", &json!({ "ms": 4000 })).await;
        until("all run", SOON, async || cluster.journal.begun(1).len() == 4).await;
        cluster.push("short", 300, "noop", &json!({})).await;
        let mut stopping = cluster.workers.swap_remove(0);
        let listed = cluster.listed(&stopping.generation).await;
        let listed: Vec<String> = listed.into_iter().filter(|id| id.starts_with("long")).collect();
        let began = Instant::now();
        stopping.process.signal(Signal::TERM);
        until_all_run_again(&cluster, &listed).await;
        let took = began.elapsed().saturating_sub(GRACE);
        check_time(
            &format!("round {round}: from SIGTERM until its {} jobs run elsewhere", listed.len()),
            took,
            STOPPED,
        );
        assert!(stopping.process.ended().await.success());
        cluster.until_over(304, SOON).await;
        cluster.until_nothing_is_left().await;
        for (id, job) in cluster.journal.read() {
            let given_back = job.ended("given_back");
            assert_eq!((job.runs.len(), job.ended("done")), (1 + given_back, 1), "{id}: {job:?}");
            assert!(given_back == 0 || listed.contains(&id), "{id}: {job:?}");
            assert!(job.runs.iter().all(|run| run.attempt == 1 && run.deaths == 0), "{id}: {job:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_frozen_node_does_not_settle_what_ran_elsewhere() {
    each_round(|round| async move {
        let mut cluster = JobCluster::start(2, &[]).await;
        cluster.push("j", 8, "sleep", &json!({ "ms": 1500 })).await;
        until("all run", SOON, async || cluster.journal.begun(1).len() == 8).await;
        let frozen = round % 2;
        cluster.workers[frozen].process.freeze();
        let before = cluster.workers[frozen].generation.clone();
        let listed: BTreeSet<String> = cluster.listed(&before).await.into_iter().collect();
        let took = cluster.until_over(8, SOON).await;
        cluster.workers[frozen].process.thaw();
        let addr = cluster.addr(frozen);
        until("the frozen node has another name", SOON, async || {
            cluster.workers[frozen].generation = status(addr).await["generation"].as_str().unwrap().to_owned();
            cluster.workers[frozen].generation != before
        })
        .await;
        until("its attempts end", SOON, async || {
            cluster.journal.read().values().map(|job| job.ends.len()).sum::<usize>() == 8 + listed.len()
        })
        .await;
        // It serves again: its slots are free.
        let (thawed, mut more) = (cluster.workers[frozen].generation.clone(), 0);
        until("it runs jobs again", SOON, async || {
            cluster.push(&format!("more{more}-"), 8, "sleep", &json!({ "ms": 20 })).await;
            more += 8;
            cluster.journal.read().values().any(|job| job.runs.iter().any(|run| run.node == thawed))
        })
        .await;
        cluster.until_over(8 + more, SOON).await;
        cluster.until_nothing_is_left().await;
        let jobs = cluster.journal.read();
        for (id, job) in &jobs {
            let refused = usize::from(listed.contains(id));
            assert_eq!((job.runs.len(), job.ended("superseded"), job.ended("done")), (1 + refused, refused, 1), "{id}");
        }
        print(format_args!(
            "round {round}: {} settlements of a frozen node refused; its jobs ended elsewhere after {took:.1?}",
            listed.len()
        ));
    })
    .await;
}
