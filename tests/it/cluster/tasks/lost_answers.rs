//! Calls of workers whose answers are lost, or that arrive when they were given up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use phalanx_testkit::{Direction, Flow, Redis, check_time, print};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::super::{SOON, rounds, until};
use super::harness::JobCluster;

/// Longer than `redis.command_timeout`, and shorter than a lease.
const HELD: Duration = Duration::from_millis(2300);

/// Attempts and slots are compared every 30 s, and after each failure.
const COMPARED: Duration = Duration::from_secs(35);

/// Of calls without an answer, and of jobs that no slot held.
const COUNTERS: [&str; 2] = ["phalanx_tasks_call_failures_total", "phalanx_tasks_adopted_total"];

/// In each round the calls of one node are held until it has given them up, or their answers, while jobs run. In every fourth a
/// node is killed meanwhile.
#[tokio::test]
async fn answers_that_are_lost_and_calls_that_come_late_lose_no_job() {
    let rounds = rounds();
    let mut cluster = JobCluster::over(Redis::start().await, 3, &[], true).await;
    let (mut pushed, mut killed, mut counts) = (0, BTreeMap::new(), [0.0; 2]);
    for round in 0..rounds {
        let faulty = round % 3;
        let proxy = cluster.workers[faulty].proxy.as_ref().unwrap();
        // Jobs of about the time of a round trip, so that the fault hits calls of each kind.
        cluster.push(&format!("a{round}-"), 30, "sleep", &json!({ "ms": 2 })).await;
        match round % 2 {
            0 => proxy.hold_flow(Flow::Commands, Direction::ToClient),
            _ => proxy.hold_flow(Flow::Commands, Direction::ToServer),
        }
        cluster.push(&format!("b{round}-"), 60, "sleep", &json!({ "ms": 1 })).await;
        pushed += 90;
        sleep(HELD).await; // the fault itself
        cluster.workers[faulty].proxy.as_ref().unwrap().release();
        if round % 4 == 3 {
            cluster.push(&format!("c{round}-"), 9, "sleep", &json!({ "ms": 400 })).await;
            pushed += 9;
            until("they run", SOON, async || cluster.running().await > 0).await;
            let dying = (round / 4) % 3;
            for (count, name) in counts.iter_mut().zip(COUNTERS) {
                *count += cluster.metric_of(dying, name, "").await;
            }
            let (generation, listed) = cluster.kill(dying).await;
            killed.insert(generation, listed.into_iter().collect::<BTreeSet<_>>());
            cluster.add(&[]).await;
        }
    }
    let began = Instant::now();
    cluster.until_over(pushed, COMPARED * 3).await;
    cluster.until_nothing_is_left().await;
    let took = began.elapsed();
    for (count, name) in counts.iter_mut().zip(COUNTERS) {
        for worker in 0..cluster.workers.len() {
            *count += cluster.metric_of(worker, name, "").await;
        }
    }
    let [failures, adopted] = counts;
    print(format_args!("{rounds} rounds: {pushed} jobs, {failures} calls without an answer, {adopted} jobs adopted"));
    check_time("nothing is left in a running hash", took, COMPARED);
    assert!(failures > 0.0);
    let jobs = cluster.journal.read();
    assert_eq!(jobs.len() as u64, pushed);
    for (id, job) in &jobs {
        let deaths = killed.values().filter(|listed| listed.contains(id)).count();
        assert!(job.runs.len() <= 1 + deaths, "{id} ran without need: {job:?}");
        assert!(job.ended("done") <= 1 && job.ended("superseded") == 0, "{id}: {job:?}");
    }
}

/// The deadline of the call is then an hour ahead by that clock: until then it might take effect, were it not for the node's own.
#[tokio::test]
async fn a_job_whose_fetch_is_not_answered_runs_although_the_clock_of_redis_is_set_back() {
    let mut cluster = JobCluster::over(Redis::start_with_clock().await, 1, &[("TOUR_WORKERS", "1")], true).await;
    cluster.workers[0].proxy.as_ref().unwrap().swallow("lost0");
    cluster.push("lost", 1, "noop", &json!({})).await;
    let generation = cluster.workers[0].generation.clone();
    until("it is fetched", SOON, async || cluster.listed(&generation).await == ["lost0"]).await;
    cluster.redis.set_clock(-3600);
    cluster.push("other", 1, "noop", &json!({})).await;
    let took = cluster.until_over(2, SOON).await;
    print(format_args!("an unanswered job and the next one ran {took:.1?} after the clock was set back"));
    cluster.until_nothing_is_left().await;
    cluster.rename().await;
    assert_eq!(cluster.metric_of(0, "phalanx_tasks_adopted_total", "").await, 1.0);
}
