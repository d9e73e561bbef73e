//! Queues with a limit or a rate, on several nodes that are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use phalanx_testkit::{check_time, print};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::super::{SOON, until};
use super::harness::{JobCluster, setting, text_of};

/// Nodes that run at once.
const NODES: usize = 3;

/// The time between two kills, in which the jobs of the killed node are given back.
const KILL_PERIOD: Duration = Duration::from_secs(8);

/// The record that the jobs of the task `limited` write, and the test of the nodes that it has killed.
const RECORD: &str = "actionhero:cache:limited:runs";

/// Most jobs of the task `limited` that run at once.
const LIMIT: usize = 5;

/// Adds jobs to the queue of their task in one step.
async fn push(cluster: &JobCluster, class: &str, count: u64, input: &Value) {
    let text = text_of("ID", class, input).replace('"', "\\\"").replace("ID", &format!("{class}'..n..'"));
    let script = format!(
        "for n = 0, {count} - 1 do redis.call('RPUSH', 'resque:queue:{class}', '{text}') end \
         redis.call('SADD', 'resque:queues', '{class}') redis.call('PUBLISH', 'tour:wake', '{class}')"
    );
    assert_eq!(cluster.redis.command(&format!("EVAL \"{script}\" 0")).await, "$-1\r\n");
}

/// How many jobs ran after each step of the record. A job of a killed node runs until the step at which the node is known to be
/// dead.
fn running_at_once(steps: &[String]) -> Vec<usize> {
    let mut running = BTreeMap::<&str, Vec<&str>>::new();
    let counts = steps.iter().map(|step| {
        let step = step.trim_start_matches("{\"data\":\"").trim_end_matches("\"}");
        let words: Vec<&str> = step.split(' ').collect();
        match words[..] {
            ["begin", job, node] => running.entry(node).or_default().push(job),
            ["end", job, node] => running.entry(node).or_default().retain(|other| *other != job),
            ["killed", node] => drop(running.remove(node)),
            _ => panic!("a step of the record: {step}"),
        }
        running.values().map(Vec::len).sum()
    });
    counts.collect()
}

/// Twenty kills take `KILLS=20`.
#[tokio::test]
async fn no_more_jobs_run_at_once_than_their_limit_although_nodes_are_killed() {
    let kills = setting("KILLS", 1);
    let mut cluster = JobCluster::start(NODES, &[]).await;
    let record = async |cluster: &JobCluster| cluster.texts(&format!("LRANGE {RECORD} 0 -1")).await;
    push(&cluster, "limited", 100_000, &json!({ "ms": 40 })).await;
    let is_full = async |cluster: &JobCluster, from: usize| {
        let counts = running_at_once(&record(cluster).await);
        counts.len() > from && counts[from..].contains(&LIMIT)
    };
    until("as many run as may", SOON, async || is_full(&cluster, 0).await).await;
    let mut slowest = Duration::ZERO;
    for kill in 0..kills {
        let next = Instant::now() + KILL_PERIOD;
        // The node that runs most of them: what is counted for it is what the others lack.
        let mut busiest = (0, 0);
        for worker in 0..cluster.workers.len() {
            busiest = busiest.max((cluster.listed(&cluster.workers[worker].generation).await.len(), worker));
        }
        let (generation, listed) = cluster.kill(busiest.1).await;
        let from = cluster.number(&format!("RPUSH {RECORD} '{{\"data\":\"killed {generation}\"}}'")).await as usize;
        let took = until("as many run again", SOON, async || is_full(&cluster, from).await).await;
        print(format_args!("a kill of {} running jobs: {LIMIT} ran again after {took:.1?}", listed.len()));
        slowest = slowest.max(if listed.is_empty() { Duration::ZERO } else { took });
        cluster.add(&[]).await;
        if kill + 1 < kills {
            sleep_until(next).await;
        }
    }
    check_time("as many run again after a kill", slowest, Duration::from_secs(10));
    let counts = running_at_once(&record(&cluster).await);
    let most = counts.iter().max().copied().unwrap_or_default();
    print(format_args!("{} steps, {kills} nodes killed: {most} at once at most", counts.len()));
    assert_eq!(most, LIMIT);
    let held_up = cluster.metric_of(0, "phalanx_tasks_held_up_total", "by=\"limit\"").await;
    assert!(held_up > 0.0, "an operator sees that the limit keeps jobs back");
}

/// The most that begin in any second, and the mean over all of the time.
fn seconds(mut began_us: Vec<u64>) -> (usize, f64) {
    began_us.sort_unstable();
    let within = |from: usize| began_us[from..].iter().take_while(|at| **at < began_us[from] + 1_000_000).count();
    let most = (0..began_us.len()).map(within).max().unwrap_or_default();
    let span = began_us.last().unwrap_or(&0) - began_us.first().unwrap_or(&0);
    (most, began_us.len() as f64 * 1e6 / span as f64)
}

/// A minute takes `PACED=6000`.
#[tokio::test]
async fn no_second_sees_more_jobs_begin_than_their_rate() {
    let jobs = setting("PACED", 250);
    let cluster = JobCluster::start(NODES, &[]).await;
    push(&cluster, "paced", jobs, &json!({})).await;
    until("all have run", SOON * 4, async || cluster.processed().await == jobs).await;
    let began = cluster.journal.read().into_values().flat_map(|lines| lines.runs);
    let (nodes, began): (BTreeSet<String>, Vec<u64>) = began.map(|run| (run.node, run.began_us)).unzip();
    let (most, mean) = seconds(began);
    print(format_args!(
        "{jobs} jobs of 100 a second on {} nodes: {most} in a second at most, {mean:.1} on average",
        nodes.len()
    ));
    assert!(most <= 110 && mean <= 105.0, "{most}, {mean}");
    assert!(mean >= 70.0, "the rate is used: {mean}");
    let held_up = cluster.metric_of(0, "phalanx_tasks_held_up_total", "by=\"rate\"").await;
    assert!(held_up > 0.0, "an operator sees that the rate keeps jobs back");
}
