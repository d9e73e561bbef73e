//! Jobs of a cluster whose nodes are killed one after the other, and whose Redis restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use phalanx_testkit::{Redis, print};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::harness::{Enqueuer, JobCluster, setting};

/// Nodes that run at once.
const NODES: usize = 3;

/// The time between two kills.
const KILL_PERIOD: Duration = Duration::from_secs(2);

/// Clients that enqueue.
const CLIENTS: u64 = 6;

/// SplitMix64: the faults of a seed are the same in each run.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// The clients' side of the campaign.
struct Accepted {
    wanted: u64,
    pace: Duration,
    count: AtomicU64,
    /// Enqueues without an answer that says whether the job is stored.
    unknown: AtomicU64,
}

impl Accepted {
    /// Enqueues jobs on one node after the other until there are enough, and returns the ids of those that were accepted.
    async fn enqueue(
        self: Arc<Self>,
        client: u64,
        mut nodes: watch::Receiver<Vec<std::net::SocketAddr>>,
    ) -> Vec<String> {
        let (mut ids, mut random, mut next) = (Vec::new(), Random(client), Instant::now());
        'nodes: loop {
            let addr = {
                let nodes = nodes.borrow_and_update();
                nodes[random.below(nodes.len() as u64) as usize]
            };
            let mut enqueuer = Enqueuer::new(addr);
            loop {
                if self.count.load(Relaxed) >= self.wanted {
                    return ids;
                }
                sleep_until(next).await;
                next = (next + self.pace).max(Instant::now() - self.pace * 50);
                // One in a hundred is likely to run where its node is killed.
                let job = match random.below(100) {
                    0 => json!({ "name": "sleep", "input": { "ms": 1000 } }),
                    1..60 => json!({ "name": "sleep", "input": { "ms": random.below(20) } }),
                    _ => json!({ "name": "noop" }),
                };
                match enqueuer.enqueue(&job).await {
                    Ok((200, answer)) => {
                        self.count.fetch_add(1, Relaxed);
                        ids.push(answer["id"].as_str().unwrap().to_owned());
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => continue 'nodes,
                    Ok(_) | Err(_) => {
                        self.unknown.fetch_add(1, Relaxed);
                        continue 'nodes;
                    }
                }
            }
        }
    }
}

/// 100,000 jobs, two minutes and three restarts take `JOBS=100000 RESTARTS=3 PACE_US=7200`.
#[tokio::test]
async fn every_accepted_job_ends_although_nodes_are_killed_and_redis_restarts() {
    let (jobs, restarts, seed) = (setting("JOBS", 2_000), setting("RESTARTS", 1), setting("SEED", 1));
    let redis = Redis::start_syncing().await;
    let mut cluster = JobCluster::over(redis, NODES, &[("TOUR_WORKERS", "16")], false).await;
    let addrs = |cluster: &JobCluster| cluster.workers.iter().map(|worker| worker.process.addr).collect::<Vec<_>>();
    let nodes = watch::Sender::new(addrs(&cluster));
    // The short run takes as long as four kills, the full one two minutes.
    let pace = Duration::from_micros(setting("PACE_US", 24_000));
    let accepted = Arc::new(Accepted { wanted: jobs, pace, count: AtomicU64::new(0), unknown: AtomicU64::new(0) });
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(accepted.clone().enqueue(seed * 1000 + client, nodes.subscribe()));
    }

    let began = Instant::now();
    let (mut random, mut killed, mut restarted) = (Random(seed), BTreeMap::new(), 0);
    while accepted.count.load(Relaxed) < jobs {
        let next = Instant::now() + KILL_PERIOD;
        let (generation, listed) = cluster.kill(random.below(NODES as u64) as usize).await;
        killed.insert(generation, listed.into_iter().collect::<BTreeSet<_>>());
        // Also a node that has just been killed may have written what Redis has not carried out.
        if restarted < restarts && accepted.count.load(Relaxed) >= jobs * (restarted + 1) / (restarts + 1) {
            restarted += 1;
            cluster.redis.kill().await;
            sleep(Duration::from_millis(random.below(500))).await;
            cluster.redis.start_again().await;
        }
        cluster.add(&[]).await;
        nodes.send_replace(addrs(&cluster));
        sleep_until(next).await;
    }
    let ids: BTreeSet<String> = clients.join_all().await.into_iter().flatten().collect();
    let accepting = began.elapsed();
    assert_eq!(restarted, restarts, "there were enough kills to restart Redis");
    cluster.until_nothing_is_left().await;

    let lines = cluster.journal.read();
    let (processed, failed) = (cluster.processed().await, cluster.failed().await);
    let unknown = accepted.unknown.load(Relaxed);
    let runs: usize = lines.values().map(|lines| lines.runs.len()).sum();
    let refused: usize = lines.values().map(|lines| lines.ended("superseded")).sum();
    print(format_args!(
        "seed {seed}: {} jobs accepted in {accepting:.0?}, {} of {unknown} more whose enqueue had no answer; {} nodes killed, \
         {restarted} restarts; {processed} done, {} failed as poison, {} runs beyond one a job, {refused} settlements refused",
        ids.len(),
        lines.len() - ids.len().min(lines.len()),
        killed.len(),
        failed.len(),
        runs - lines.len(),
    ));
    let lost: Vec<&String> = ids.iter().filter(|id| !lines.contains_key(*id)).collect();
    assert!(lost.is_empty(), "these never ran: {lost:?}");
    assert!((lines.len() - ids.len()) as u64 <= unknown, "{} jobs ran, {} were accepted", lines.len(), ids.len());
    let ended = processed + failed.len() as u64;
    let failed: BTreeSet<&str> = failed
        .iter()
        .map(|(id, exception)| {
            assert_eq!(exception, "poison", "{id}");
            &**id
        })
        .collect();
    for (id, job) in &lines {
        let deaths = killed.values().filter(|listed| listed.contains(id)).count();
        assert!(job.runs.len() <= 1 + deaths, "{id} ran without need; it was on {deaths} killed nodes: {job:?}");
        assert!(job.runs.iter().all(|run| run.attempt == 1), "{id}: a death is no attempt: {job:?}");
        assert_eq!(failed.contains(&**id), deaths >= 3, "{id} was on {deaths} killed nodes: {job:?}");
        let done = job.ended("done");
        assert!(done <= 1 && (done == 0 || deaths < 3), "{id} ended more than once: {job:?}");
        // An end that no node has seen was accepted from one that was killed at that moment.
        let last = job.runs.last().map(|run| &*run.node).unwrap_or_default();
        assert!(done == 1 || killed.contains_key(last), "{id} did not end: {job:?}");
    }
    assert_eq!(ended, lines.len() as u64, "each job ended once");
    for worker in &cluster.workers {
        let status = super::super::status(worker.process.addr).await;
        assert_eq!(status["generation"], *worker.generation, "no living node was taken for dead");
    }
}
