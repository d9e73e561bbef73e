//! How soon jobs begin, what others notice of them, and how a burst spreads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use phalanx_testkit::{Redis, check_time, print};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::super::{SOON, rounds, until};
use super::harness::{Enqueuer, JobCluster, set_paused, setting};

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// The median and the 99th percentile.
fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[tokio::test]
async fn a_job_begins_at_once_where_nodes_are_idle_and_a_delayed_one_when_it_is_due() {
    let cluster = JobCluster::start(3, &[]).await;
    let mut enqueuer = Enqueuer::new(cluster.addr(0));
    let (mut expected, mut pings) = (BTreeMap::new(), Vec::new());
    let mut pinging = Pinging::start(cluster.redis.addr()).await;
    for number in 0..150 {
        let answer = enqueuer.enqueue(&json!({ "name": "noop" })).await.unwrap().1;
        // From the answer on: the time of the request is another figure.
        expected.insert(answer["id"].as_str().unwrap().to_owned(), now_us());
        sleep(Duration::from_millis(5 + number % 17)).await; // the load itself
        pings.push(pinging.ping().await);
    }
    until("all have begun", SOON, async || cluster.journal.begun(1).len() == 150).await;
    let late = |expected: &BTreeMap<String, u64>| {
        let jobs = cluster.journal.read();
        let late = expected.iter().map(|(id, us)| Duration::from_micros(jobs[id].runs[0].began_us.saturating_sub(*us)));
        percentiles(late.collect())
    };
    let (median, slowest) = late(&expected);
    // The machine runs other tests too: by how much they delay what takes no time, PINGs of this process show.
    let noise = percentiles(pings).1;
    print(format_args!("idle pick-up: median {median:.1?}, 99th percentile {slowest:.1?}; of a PING {noise:.1?}"));
    check_time(
        "idle pick-up, 99th percentile, beyond a PING",
        slowest.saturating_sub(noise),
        Duration::from_millis(20),
    );

    let (start, mut due) = (now_us() / 1000 + 500, BTreeMap::new());
    for number in 0..150 {
        let at = start + number * 13;
        let answer = enqueuer.enqueue(&json!({ "name": "noop", "at": at })).await.unwrap().1;
        due.insert(answer["id"].as_str().unwrap().to_owned(), at * 1000);
    }
    until("all have begun", SOON, async || cluster.journal.begun(1).len() == 300).await;
    let jobs = cluster.journal.read();
    assert!(due.iter().all(|(id, us)| jobs[id].runs[0].began_us >= *us), "none begins early");
    let (median, slowest) = late(&due);
    print(format_args!("due jobs: median late by {median:.1?}"));
    check_time("due jobs are late, 99th percentile", slowest, Duration::from_millis(50));
}

/// A client of a Redis that sends PINGs.
struct Pinging(TcpStream);

impl Pinging {
    async fn start(addr: SocketAddr) -> Self {
        Self(TcpStream::connect(addr).await.unwrap())
    }

    async fn ping(&mut self) -> Duration {
        let began = Instant::now();
        self.0.write_all(b"PING\r\n").await.unwrap();
        self.0.read_exact(&mut [0; 7]).await.unwrap();
        began.elapsed()
    }
}

/// Sends PINGs to the cluster's Redis, and to one that nobody else uses, until told otherwise; returns the longest time to an
/// answer of each: that of the second shows what the machine adds.
async fn slowest_pings(cluster: &JobCluster, is_over: impl AsyncFn() -> bool) -> (Duration, Duration) {
    let idle = Redis::start().await;
    let (mut used, mut unused) = tokio::join!(Pinging::start(cluster.redis.addr()), Pinging::start(idle.addr()));
    let mut slowest = (Duration::ZERO, Duration::ZERO);
    while !is_over().await {
        for _ in 0..20 {
            let (one, other) = tokio::join!(used.ping(), unused.ping());
            slowest = (slowest.0.max(one), slowest.1.max(other));
        }
    }
    slowest
}

#[tokio::test]
async fn large_jobs_keep_no_other_client_of_redis_waiting() {
    let cluster = JobCluster::start(2, &[("TOUR_WORKERS", "32")]).await;
    // The jobs themselves make its file grow so much that it is written anew.
    cluster.redis.command("CONFIG SET auto-aof-rewrite-percentage 0").await;
    set_paused(cluster.addr(0), true).await;
    let script = "for n = 1, 32 do redis.call('RPUSH', 'resque:queue:default', '{\\\"class\\\":\\\"noop\\\",\\\"queue\\\":\
        \\\"default\\\",\\\"args\\\":[{\\\"x\\\":\\\"' .. string.rep('x', 1024 * 1024 - 100) .. '\\\"}],\\\"id\\\":\\\"j' .. n .. '\\\"}') end";
    cluster.redis.command(&format!("EVAL \"{script}\" 0")).await;
    set_paused(cluster.addr(0), false).await;
    let (slowest, noise) = slowest_pings(&cluster, async || cluster.processed().await >= 32).await;
    print(format_args!("32 jobs of 1 MiB: the slowest PING beside {slowest:.1?}, of an unused Redis {noise:.1?}"));
    check_time(
        "PING beside jobs of 1 MiB, beyond one of an unused Redis",
        slowest.saturating_sub(noise),
        Duration::from_millis(20),
    );
    assert_eq!(cluster.processed().await, 32);
}

#[tokio::test]
async fn a_burst_spreads_over_idle_nodes() {
    let cluster = JobCluster::start(3, &[("TOUR_WORKERS", "90")]).await;
    for round in 0..rounds() {
        cluster.push(&format!("r{round}-"), 90, "sleep", &json!({ "ms": 200 })).await;
        cluster.until_over(90 * (round as u64 + 1), SOON).await;
        let mut shares = BTreeMap::<String, usize>::new();
        for (_, job) in cluster.journal.read().into_iter().filter(|(id, _)| id.starts_with(&format!("r{round}-"))) {
            *shares.entry(job.runs[0].node.clone()).or_default() += 1;
        }
        let shares: Vec<usize> = shares.into_values().collect();
        print(format_args!("burst {round}: 90 jobs went to three nodes as {shares:?}"));
        assert!(shares.iter().all(|share| *share <= 45), "{shares:?}");
    }
}

/// 20,000 jobs on 8 nodes take `DUE=20000 NODES=8`; the figure is that of a release build.
#[tokio::test]
async fn many_jobs_that_are_due_at_once_begin_soon_and_keep_no_other_client_waiting() {
    let (count, nodes) = (setting("DUE", 1_000), setting("NODES", 3) as usize);
    let cluster = JobCluster::start(nodes, &[("TOUR_WORKERS", "64")]).await;
    let due_us = now_us() + 3_000_000;
    let script = format!(
        "for n = 1, {count} do redis.call('HSET', 'phalanx:tour:delayed:jobs', 'j' .. n, 'default 0 0 0 {{\\\"class\\\":\
         \\\"noop\\\",\\\"queue\\\":\\\"default\\\",\\\"args\\\":[],\\\"id\\\":\\\"j' .. n .. '\\\"}}') \
         redis.call('ZADD', 'phalanx:tour:delayed', {}, 'j' .. n) end redis.call('PUBLISH', 'tour:wake', '')",
        due_us / 1000
    );
    cluster.redis.command(&format!("EVAL \"{script}\" 0")).await;
    let (slowest, noise) = slowest_pings(&cluster, async || cluster.processed().await >= count).await;
    let jobs = cluster.journal.read();
    let last = jobs.values().map(|job| job.runs[0].began_us).max().unwrap();
    let first = jobs.values().map(|job| job.runs[0].began_us).min().unwrap();
    print(format_args!(
        "{count} jobs due at once on {nodes} nodes: the slowest PING beside {slowest:.1?}, of an unused Redis {noise:.1?}"
    ));
    check_time(
        "PING beside due jobs, beyond one of an unused Redis",
        slowest.saturating_sub(noise),
        Duration::from_millis(10),
    );
    assert!(jobs.len() as u64 == count && first >= due_us, "none is lost, none begins early");
    check_time(
        "from when they were due until the last began",
        Duration::from_micros(last - due_us),
        Duration::from_secs(2),
    );
}
