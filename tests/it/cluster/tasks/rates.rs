//! How soon jobs begin, what others notice of them, and how a burst spreads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use phalanx_testkit::{check_time, print};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::super::{SOON, rounds, until};
use super::harness::{Enqueuer, JobCluster, set_paused, setting};

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// The median and a high percentile: the 99th where nothing else runs (`PERCENTILE=99`), the 95th beside other tests, which
/// take the processor for longer than the times that are checked here.
fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    let high = setting("PERCENTILE", 95) as usize;
    (times[times.len() / 2], times[times.len() * high / 100])
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
    print(format_args!("idle pick-up: median {median:.1?}, high percentile {slowest:.1?}; of a PING {noise:.1?}"));
    check_time(
        "idle pick-up, high percentile, beyond a PING",
        slowest.saturating_sub(noise),
        Duration::from_millis(20),
    );

    let (start, mut due, mut expected) = (now_us() / 1000 + 500, BTreeMap::new(), BTreeMap::new());
    for number in 0..150 {
        let at = start + number * 13;
        let answer = enqueuer.enqueue(&json!({ "name": "noop", "at": at })).await.unwrap().1;
        let id = answer["id"].as_str().unwrap().to_owned();
        // On a busy machine some are due before they are enqueued.
        expected.insert(id.clone(), now_us().max(at * 1000));
        due.insert(id, at * 1000);
    }
    let mut pings = Vec::new();
    until("all have begun", SOON, async || {
        pings.push(pinging.ping().await);
        cluster.journal.begun(1).len() == 300
    })
    .await;
    let jobs = cluster.journal.read();
    assert!(due.iter().all(|(id, us)| jobs[id].runs[0].began_us >= *us), "none begins early");
    let (median, slowest) = late(&expected);
    let noise = percentiles(pings).1;
    print(format_args!("due jobs: median late by {median:.1?}, high percentile {slowest:.1?}; of a PING {noise:.1?}"));
    check_time(
        "due jobs are late, high percentile, beyond a PING",
        slowest.saturating_sub(noise),
        Duration::from_millis(50),
    );
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

/// What a client of Redis waits for others.
struct Neighbour {
    /// The longest time to the answer of a PING, on a machine that runs other tests too.
    ping: Duration,
    /// The median of the times that Redis spent on one command, of those over a millisecond: so the longest one, where the
    /// processor was taken from it, does not count.
    command: Duration,
}

/// Sends PINGs until told otherwise.
async fn ping_beside(cluster: &JobCluster, is_over: impl AsyncFn() -> bool) -> Neighbour {
    cluster.redis.command("CONFIG SET slowlog-log-slower-than 1000").await;
    cluster.redis.command("CONFIG SET slowlog-max-len 1000").await;
    cluster.redis.command("SLOWLOG RESET").await;
    let mut pinging = Pinging::start(cluster.redis.addr()).await;
    let mut ping = Duration::ZERO;
    while !is_over().await {
        for _ in 0..20 {
            ping = ping.max(pinging.ping().await);
        }
    }
    // Of each command three numbers: its own, when it ran, and for how many microseconds.
    let numbers = cluster.texts("SLOWLOG GET 1000").await;
    let numbers: Vec<u64> =
        numbers.iter().filter_map(|line| line.strip_prefix(':')).map(|number| number.parse().unwrap()).collect();
    let mut took: Vec<u64> = numbers.chunks(3).map(|entry| entry[2]).collect();
    took.sort_unstable();
    Neighbour { ping, command: Duration::from_micros(took.get(took.len() / 2).copied().unwrap_or(0)) }
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
    let slowest = ping_beside(&cluster, async || cluster.processed().await >= 32).await;
    print(format_args!("32 jobs of 1 MiB: the slowest PING beside {:.1?}", slowest.ping));
    check_time("32 jobs of 1 MiB: a long command of Redis", slowest.command, Duration::from_millis(20));
    assert_eq!(cluster.processed().await, 32);
}

/// Where a busy machine keeps two nodes from a look for longer than the third waits for them, that one has more; so the
/// median of the bursts counts, and one of them does not.
#[tokio::test]
async fn a_burst_spreads_over_idle_nodes() {
    let cluster = JobCluster::start(3, &[("TOUR_WORKERS", "90")]).await;
    let mut largest = Vec::new();
    for round in 0..rounds().max(5) {
        cluster.push(&format!("r{round}-"), 90, "sleep", &json!({ "ms": 200 })).await;
        cluster.until_over(90 * (round as u64 + 1), SOON).await;
        let mut shares = BTreeMap::<String, usize>::new();
        for (_, job) in cluster.journal.read().into_iter().filter(|(id, _)| id.starts_with(&format!("r{round}-"))) {
            *shares.entry(job.runs[0].node.clone()).or_default() += 1;
        }
        let shares: Vec<usize> = shares.into_values().collect();
        print(format_args!("burst {round}: 90 jobs went to three nodes as {shares:?}"));
        largest.extend(shares.into_iter().max());
    }
    largest.sort_unstable();
    let (median, most) = (largest[largest.len() / 2], largest[largest.len() - 2]);
    assert!(median <= 45 && most <= 60, "{largest:?}");
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
    let slowest = ping_beside(&cluster, async || cluster.processed().await >= count).await;
    let jobs = cluster.journal.read();
    let last = jobs.values().map(|job| job.runs[0].began_us).max().unwrap();
    let first = jobs.values().map(|job| job.runs[0].began_us).min().unwrap();
    print(format_args!("{count} jobs due at once on {nodes} nodes: the slowest PING beside {:.1?}", slowest.ping));
    check_time("jobs due at once: a long command of Redis", slowest.command, Duration::from_millis(10));
    assert!(jobs.len() as u64 == count && first >= due_us, "none is lost, none begins early");
    check_time(
        "from when they were due until the last began",
        Duration::from_micros(last - due_us),
        Duration::from_secs(2),
    );
}
