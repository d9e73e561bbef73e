//! The cost of a job does not depend on how many wait.

use phalanx_testkit::print;
use serde_json::json;

use super::super::{SOON, until};
use super::harness::{Enqueuer, JobCluster, set_paused, setting};

/// Jobs in one measurement, that run and that are enqueued: of fewer the number in each call varies too much.
const JOBS: u64 = 2_000;
const ENQUEUED: u32 = 400;

/// Measurements, of which the cheapest counts: others were disturbed.
const MEASUREMENTS: usize = 12;

/// The processor time of Redis's main thread, in µs. That of the scripts alone is by the clock, which goes on while another
/// process has the core.
async fn redis_us(cluster: &JobCluster) -> u64 {
    let stats = cluster.texts("INFO cpu").await;
    let seconds = |name: &str| -> f64 {
        let line = stats.iter().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    };
    ((seconds("used_cpu_user_main_thread:") + seconds("used_cpu_sys_main_thread:")) * 1e6) as u64
}

/// A cluster in which so many jobs wait, and the cheapest job so far: µs of Redis to fetch and settle it, and to enqueue it.
struct Backlog {
    cluster: JobCluster,
    waiting: u64,
    best: (f64, f64),
}

impl Backlog {
    async fn of(waiting: u64) -> Self {
        let cluster = JobCluster::start(1, &[("TOUR_WORKERS", "32")]).await;
        cluster.redis.command("CONFIG SET appendonly no").await;
        set_paused(cluster.addr(0), true).await;
        let backlog = Self { cluster, waiting, best: (f64::MAX, f64::MAX) };
        backlog.fill("fill").await;
        backlog
    }

    /// Adds jobs until enough wait, also when some have run.
    async fn fill(&self, name: &str) {
        loop {
            let length = self.cluster.number("LLEN resque:queue:default").await;
            match (self.waiting + JOBS).saturating_sub(length) {
                0 => return,
                missing => {
                    self.cluster.push(&format!("{name}{length}-"), missing.min(20_000), "noop", &json!({})).await
                }
            }
        }
    }

    async fn measure(&mut self, round: usize) {
        self.fill(&format!("r{round}-")).await;
        let (cluster, addr) = (&self.cluster, self.cluster.addr(0));
        // The node is asked how far it is: each question to Redis costs as much as several jobs.
        let done = async || cluster.metric_of(0, "phalanx_tasks_total", "outcome=\"done\"").await;
        let (before, processed, done_before) = (redis_us(cluster).await, cluster.processed().await, done().await);
        set_paused(addr, false).await;
        until("some run", SOON, async || done().await >= done_before + JOBS as f64).await;
        set_paused(addr, true).await;
        until("they end", SOON, async || cluster.metric_of(0, "phalanx_tasks_running", "").await == 0.0).await;
        until("redis has their ends", SOON, async || cluster.running().await == 0).await;
        let jobs = cluster.processed().await - processed;
        self.best.0 = self.best.0.min((redis_us(cluster).await - before) as f64 / jobs as f64);
        let (mut enqueuer, before) = (Enqueuer::new(addr), redis_us(cluster).await);
        for _ in 0..ENQUEUED {
            assert_eq!(enqueuer.enqueue(&json!({ "name": "noop" })).await.unwrap().0, 200);
        }
        self.best.1 = self.best.1.min((redis_us(cluster).await - before) as f64 / f64::from(ENQUEUED));
    }

    fn resident(&self) -> u64 {
        self.cluster.workers[0].process.resident().unwrap() / 1024
    }
}

/// 1,000,000 jobs take `WAITING=1000000`.
#[tokio::test]
async fn a_job_costs_what_it_costs_where_few_wait() {
    let waiting = setting("WAITING", 20_000);
    let (mut few, mut many) = tokio::join!(Backlog::of(1_000), Backlog::of(waiting));
    // In turn, so that both have the same neighbours.
    for round in 0..MEASUREMENTS {
        few.measure(round).await;
        many.measure(round).await;
    }
    print(format_args!(
        "µs of Redis a job, where 1,000 and {waiting} jobs wait: fetch and settle {:.2} and {:.2}, enqueue {:.1} and {:.1}; \
         their nodes have {} and {} KiB",
        few.best.0,
        many.best.0,
        few.best.1,
        many.best.1,
        few.resident(),
        many.resident()
    ));
    // A tenth is the aim; three times that is permitted.
    assert!(many.best.0 <= few.best.0 * 1.3, "fetch and settle");
    assert!(many.best.1 <= few.best.1 * 1.3, "enqueue");
    assert!(many.resident() <= few.resident() + 8 * 1024, "memory of the node");
}
