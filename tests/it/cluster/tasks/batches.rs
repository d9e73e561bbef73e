//! Batches whose members fail, are deleted and retried, while nodes are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use phalanx_core::backend::MAX_DEATHS;
use phalanx_testkit::{Redis, print};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::super::{SOON, until};
use super::campaign::Random;
use super::harness::{Enqueuer, JobCluster, setting};
use crate::client::get;

/// Nodes that run at once.
const NODES: usize = 3;

/// The time between two kills.
const KILL_PERIOD: Duration = Duration::from_secs(2);

/// Clients that create batches.
const CLIENTS: u64 = 4;

/// A batch that a client created, and the jobs in it.
#[derive(Default)]
struct Known {
    members: Vec<String>,
    /// Those that fail whenever they run.
    failing: BTreeSet<String>,
    /// Those that are delayed for an hour, and were deleted.
    deleted: BTreeSet<String>,
}

/// The clients' side.
struct Clients {
    wanted: u64,
    size: u64,
    /// From one batch of a client to its next.
    pace: Duration,
    created: AtomicU64,
    nodes: watch::Receiver<Vec<SocketAddr>>,
}

impl Clients {
    /// Sends a request until a node answers it.
    async fn send(&self, random: &mut Random, method: &str, path: &str, body: &Value) -> Option<Value> {
        for _ in 0..100 {
            let addr = {
                let nodes = self.nodes.borrow();
                nodes[random.below(nodes.len() as u64) as usize]
            };
            match Enqueuer::new(addr).send(method, path, body, SOON).await {
                Ok((200, answer)) => return Some(answer),
                Ok((404..=409, _)) => return None,
                Ok(_) => {}
                // A creation without an answer is another batch, which is never sealed.
                Err(_) => tokio::task::yield_now().await,
            }
        }
        panic!("no node answers {method} {path}")
    }

    /// Creates batches until there are enough, and deletes members.
    async fn create(self: Arc<Self>, client: u64) -> BTreeMap<String, Known> {
        let (mut known, mut random, mut next) = (BTreeMap::new(), Random(client), Instant::now());
        while self.created.fetch_add(1, Relaxed) < self.wanted {
            sleep_until(next).await;
            next += self.pace;
            let kinds: Vec<u64> = (0..self.size).map(|_| random.below(20)).collect();
            let member = |kind: &u64| match kind {
                0..9 => json!({ "name": "noop" }),
                9..13 => json!({ "name": "sleep", "input": { "ms": kind * 20 } }),
                13..16 => json!({ "name": "flaky", "input": { "name": "flaky", "failures": kind - 12 } }),
                16..18 => json!({ "name": "fail", "input": { "message": "as requested" } }),
                _ => json!({ "name": "noop", "delayMs": 3_600_000 }),
            };
            let body = json!({ "members": kinds.iter().map(member).collect::<Vec<_>>() });
            let answer = self.send(&mut random, "POST", "/api/batches", &body).await.unwrap();
            let members: Vec<String> = serde_json::from_value(answer["members"].clone()).unwrap();
            let of = |range: std::ops::Range<u64>| {
                let chosen = members.iter().zip(&kinds).filter(move |(_, kind)| range.contains(kind));
                chosen.map(|(id, _)| id.clone()).collect::<BTreeSet<_>>()
            };
            let (failing, deleted) = (of(16..18), of(18..20));
            // Some of those that sleep are ended as well, wherever they are.
            for id in deleted.iter().chain(of(12..13).iter()) {
                self.send(&mut random, "DELETE", &format!("/api/tasks/{id}"), &json!({})).await;
            }
            self.send(&mut random, "POST", "/api/failed/retry", &json!({})).await;
            known.insert(answer["id"].as_str().unwrap().to_owned(), Known { members, failing, deleted });
        }
        known
    }
}

/// 1,000 batches of 100 members take `BATCHES=1000 MEMBERS=100 PACE_MS=0`.
#[tokio::test]
async fn each_batch_ends_once_with_the_right_counts_although_nodes_are_killed() {
    let (batches, size, seed) = (setting("BATCHES", 16), setting("MEMBERS", 20), setting("SEED", 1));
    let mut cluster = JobCluster::over(Redis::start().await, NODES, &[("TOUR_WORKERS", "16")], false).await;
    let addrs = |cluster: &JobCluster| cluster.workers.iter().map(|worker| worker.process.addr).collect::<Vec<_>>();
    let nodes = watch::Sender::new(addrs(&cluster));
    // The short run takes as long as three kills.
    let pace = Duration::from_millis(setting("PACE_MS", 1_300));
    let (created, addresses) = (AtomicU64::new(0), nodes.subscribe());
    let clients = Arc::new(Clients { wanted: batches, size, pace, created, nodes: addresses });
    let mut creating = JoinSet::new();
    for client in 0..CLIENTS {
        creating.spawn(clients.clone().create(seed * 1000 + client));
    }

    let began = Instant::now();
    let (mut random, mut killed, mut known) = (Random(seed), BTreeMap::new(), BTreeMap::new());
    loop {
        let next = Instant::now() + KILL_PERIOD;
        let (generation, listed) = cluster.kill(random.below(NODES as u64) as usize).await;
        killed.insert(generation, listed.into_iter().collect::<BTreeSet<_>>());
        cluster.add(&[]).await;
        nodes.send_replace(addrs(&cluster));
        sleep_until(next).await; // the period itself
        while let Some(created) = creating.try_join_next() {
            known.extend(created.unwrap());
        }
        if creating.is_empty() {
            break;
        }
    }
    let mut ended = BTreeMap::new();
    for id in known.keys() {
        let status = async || get(cluster.addr(0), &format!("/api/batches/{id}")).await.json();
        until("the batch is over", SOON * 4, async || {
            let now = status().await;
            let pending = now["pending"].as_i64().unwrap_or(-1);
            assert!((0..=size as i64).contains(&pending), "{now}");
            now["stage"] == "finished"
        })
        .await;
        ended.insert(id.clone(), status().await);
    }
    let took = began.elapsed();
    until("the completions ran", SOON, async || {
        let lines = cluster.journal.read();
        ended.values().all(|status| lines.contains_key(status["completion"].as_str().unwrap()))
    })
    .await;

    let lines = cluster.journal.read();
    let poison: BTreeSet<String> =
        cluster.failed().await.into_iter().filter(|(_, why)| why == "poison").map(|it| it.0).collect();
    let (mut totals, mut again) = ([0; 3], 0);
    for (id, status) in &ended {
        let Known { members, failing, deleted } = &known[id];
        let [total, done, failed, dropped] =
            ["total", "done", "failed", "deleted"].map(|name| status[name].as_u64().unwrap() as usize);
        let [mut convicted, mut suspects] = [0; 2];
        for member in members.iter().filter(|member| !failing.contains(*member)) {
            convicted += usize::from(poison.contains(member));
            // One that was retried since is not in the list of failed jobs any more, and has failed all the same.
            suspects +=
                usize::from(killed.values().filter(|listed| listed.contains(member)).count() >= MAX_DEATHS as usize);
        }
        assert_eq!((total, done + failed + dropped), (members.len(), members.len()), "{id}: {status}");
        assert!(
            (convicted..=suspects).contains(&(failed - failing.len())),
            "{id}: {status}, {convicted} of {suspects}"
        );
        assert!(dropped >= deleted.len() && done > 0, "{id}: {status}");
        let completion = status["completion"].as_str().unwrap();
        let (deaths, runs) = (killed.values().filter(|listed| listed.contains(completion)).count(), &lines[completion]);
        assert!((1..=1 + deaths).contains(&runs.runs.len()) && runs.ended("done") <= 1, "{id}: {runs:?}");
        again += runs.runs.len() - 1;
        for (sum, count) in totals.iter_mut().zip([done, failed, dropped]) {
            *sum += count;
        }
    }
    let [done, failed, deleted] = totals;
    print(format_args!(
        "seed {seed}: {} batches of {size} over in {took:.0?}, {} nodes killed: {done} members done, {failed} failed, \
         {deleted} deleted; {again} completions ran again with their nodes' deaths",
        ended.len(),
        killed.len(),
    ));
    assert_eq!(ended.len() as u64, batches);
}
