//! Jobs that kill or freeze their node do no harm to others.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use phalanx_testkit::{Signal, print};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::super::{SOON, status, until};
use super::harness::{JobCluster, setting};
use crate::client::get;

/// 300 jobs on nodes with 100 slots take `JOBS=300`.
#[tokio::test]
async fn a_job_that_kills_its_nodes_fails_and_no_other() {
    let jobs = setting("JOBS", 23).min(300);
    let slots = (jobs + 1).div_ceil(3).to_string();
    let mut cluster = JobCluster::start(3, &[("TOUR_WORKERS", &slots)]).await;
    cluster.push("long", jobs / 2, "sleep", &json!({ "ms": 2500 })).await;
    cluster.push("poison", 1, "crash", &json!({ "afterMs": 1000 })).await;
    cluster.push("late", jobs - jobs / 2, "sleep", &json!({ "ms": 2500 })).await;
    let began = Instant::now();
    let mut deaths: Vec<BTreeSet<String>> = Vec::new();
    let over = async |cluster: &JobCluster| cluster.processed().await + cluster.number("LLEN resque:failed").await;
    while over(&cluster).await < jobs + 1 {
        assert!(began.elapsed() < Duration::from_secs(90 + jobs), "not over: {} deaths", deaths.len());
        for worker in (0..cluster.workers.len()).rev() {
            let ended = timeout(Duration::from_millis(10), cluster.workers[worker].process.ended()).await;
            if ended.is_ok() {
                let dead = cluster.workers.swap_remove(worker);
                deaths.push(cluster.listed(&dead.generation).await.into_iter().collect());
                cluster.add(&[]).await;
            }
        }
    }
    cluster.until_nothing_is_left().await;
    let listed: Vec<usize> = deaths.iter().map(BTreeSet::len).collect();
    print(format_args!("poison among {jobs} jobs: over after {:.0?}, its nodes ran {listed:?} jobs", began.elapsed()));
    assert_eq!(cluster.failed().await, [("poison0".to_owned(), "poison".to_owned())]);
    assert_eq!((deaths.len(), cluster.processed().await), (3, jobs));
    let addr = cluster.addr(0);
    let failures = async || get(addr, "/api/lists/failures").await.json()["values"].clone();
    let expected = json!(["poison0: three nodes died while they ran it"]);
    let took = until("its on_failed runs", SOON, async || failures().await == expected).await;
    print(format_args!("on_failed of a convicted job ran within {took:.1?} of the end of the others"));
    for (id, job) in cluster.journal.read() {
        let dead = deaths.iter().filter(|listed| listed.contains(&id)).count();
        let runs = if id == "poison0" { 3 } else { 1 + dead };
        assert_eq!(job.runs.len(), runs, "{id} was on {dead} nodes that died: {job:?}");
        let is_done = job.ended("done") == 1;
        assert_eq!(is_done, id != "poison0", "{id}: {job:?}");
    }
}

/// The 99th percentile of requests to each of two nodes, in turn.
async fn slowest(one: SocketAddr, other: SocketAddr, while_true: impl Fn() -> bool) -> [Duration; 2] {
    let mut took = [Vec::new(), Vec::new()];
    while while_true() {
        for (addr, took) in [one, other].into_iter().zip(&mut took) {
            let began = Instant::now();
            assert_eq!(get(addr, "/api/randomNumber").await.status, 200);
            took.push(began.elapsed());
        }
        sleep(Duration::from_millis(20)).await;
    }
    took.map(|mut took| {
        took.sort_unstable();
        took[took.len() * 99 / 100]
    })
}

/// Runs a job that never returns, beside others.
async fn check_frozen(class: &str) {
    let environment = [("PHALANX__TASKS__DEADLINE", "500ms"), ("PHALANX__TASKS__THREADS", "4"), ("TOUR_WORKERS", "8")];
    let mut cluster = JobCluster::start(1, &environment).await;
    let other = cluster.add(&[("TOUR_WORKERS", "0")]).await;
    cluster.push("frozen", 1, class, &json!({ "ms": 3_600_000 })).await;
    until("it is blocked", SOON, async || !cluster.journal.begun(1).is_empty()).await;
    let is_over = AtomicBool::new(false);
    let work = async {
        // Other jobs of the node run meanwhile.
        let mut others = 0;
        until("it fails", Duration::from_secs(60), async || {
            cluster.push(&format!("other{others}-"), 1, "noop", &json!({})).await;
            others += 1;
            sleep(Duration::from_millis(100)).await;
            cluster.number("LLEN resque:failed").await > 0
        })
        .await;
        is_over.store(true, Relaxed);
        others
    };
    let (of_node, of_other) = (cluster.addr(0), cluster.addr(other));
    let (others, [slow, usual]) = tokio::join!(work, slowest(of_node, of_other, || !is_over.load(Relaxed)));
    print(format_args!(
        "{class}: HTTP p99 of the node {slow:.1?}, of another {usual:.1?}; at most 1.5 times is the aim"
    ));
    assert!(slow <= usual * 9 / 2 + Duration::from_millis(5), "{slow:?}, {usual:?}");
    cluster.until_over(others + 1, SOON).await;
    assert_eq!(cluster.failed().await, [("frozen0".to_owned(), "timeout".to_owned())]);
    let jobs = cluster.journal.read();
    let runs = jobs["frozen0"].runs.len();
    assert!(runs <= 6, "{runs} runs");
    assert!(jobs.iter().all(|(id, job)| id == "frozen0" || job.runs.len() == 1), "{jobs:?}");
    for worker in &mut cluster.workers {
        let status = status(worker.process.addr).await;
        assert_eq!(status["generation"], *worker.generation, "no node is taken for dead");
        worker.process.signal(Signal::TERM);
        worker.process.ended().await;
    }
}

#[tokio::test]
async fn a_job_that_never_returns_fails_and_no_other_user_of_its_node_notices() {
    check_frozen("block").await;
}

#[tokio::test]
async fn a_job_that_blocks_a_thread_of_all_tasks_fails_and_no_other_user_of_its_node_notices() {
    check_frozen("freeze").await;
}
