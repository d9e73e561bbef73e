//! Costs that must not grow with what waits, and the rate beside the least that two commands a job cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{Client, Script, cmd};
use phalanx_core::backend::{AttemptEnd, JobRate, LimitedQueue, NewJob, QueueLimits, Settlement, TaskStore};
use phalanx_testkit::Redis;
use phalanx_testkit::laws::tasks::{LawWorker, enqueue, job, nodes, settlement};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How often Redis ran any command.
async fn commands(redis: &Redis) -> u64 {
    let stats = redis.command("INFO commandstats").await;
    let calls = stats.lines().filter_map(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok());
    calls.sum()
}

#[tokio::test]
async fn jobs_that_wait_make_no_call_longer() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    let mut costs = Vec::new();
    let mut waiting = 0;
    for length in [100, 10_000] {
        let jobs: Vec<NewJob> = (waiting..length).map(|number| job(&number.to_string())).collect();
        for batch in jobs.chunks(500) {
            enqueue(&store, batch).await;
        }
        waiting = length;
        let fetched = worker.fetch(32).await;
        let before = commands(&redis).await;
        let ends: Vec<Settlement> = fetched.iter().map(|job| settlement(job, AttemptEnd::Done)).collect();
        let reply = worker.call(&ends, 32, |_| {}).await;
        assert_eq!(reply.fetched.len(), 32);
        enqueue(&store, &[job("more")]).await;
        costs.push(commands(&redis).await - before);
        let ends: Vec<Settlement> = reply.fetched.iter().map(|job| settlement(job, AttemptEnd::Done)).collect();
        worker.call(&ends, 0, |_| {}).await;
    }
    println!("commands of a call of 32 and an enqueue, with 100 and with 10,000 waiting: {costs:?}");
    assert!(costs[0].abs_diff(costs[1]) <= 5, "{costs:?}: but for the announcement of each second");
    assert!(costs[0] < 40, "{costs:?}");
}

/// They are read of those in which jobs wait.
#[tokio::test]
async fn limits_of_empty_queues_make_no_call_longer() {
    let (store, redis) = super::store().await;
    let names: Vec<String> = (0..20).map(|number| format!("q{number}")).collect();
    let worker = LawWorker::serving(&store, nodes()[0], &names.iter().map(String::as_str).collect::<Vec<_>>());
    let rate = Some(JobRate { jobs: 100, window: Duration::from_secs(1) });
    let limits = QueueLimits { running: Some(5), rate };
    let limited = |queue: &String| LimitedQueue::new(queue.as_str(), limits);
    let limited: &'static [LimitedQueue] = names.iter().map(limited).collect::<Vec<_>>().leak();
    let mut costs = Vec::new();
    for limited in [&[], limited] {
        worker.call(&[], 9, |call| call.limited = limited).await; // announces the node
        let before = commands(&redis).await;
        worker.call(&[], 9, |call| call.limited = limited).await;
        costs.push(commands(&redis).await - before);
    }
    println!("commands of a call for 20 empty queues, without limits and with: {costs:?}");
    assert!(costs[1] <= costs[0], "{costs:?}");
}

/// The floor: takes a job from a list and puts it into a hash.
const FLOOR: &str =
    "local job = redis.call('LPOP', KEYS[1]) if job then redis.call('HSET', KEYS[2], ARGV[1], job) end return job";

/// Jobs of each measurement. A build without optimisation measures itself.
const JOBS: usize = if cfg!(debug_assertions) { 3_000 } else { 100_000 };

/// A job of 150 bytes, as a foreign enqueuer stores it.
async fn fill(redis: &Redis, store: &Arc<dyn TaskStore>) {
    let text = format!(r#"{{"class":"c","queue":"q","args":[{{"text":"{}"}}]}}"#, "x".repeat(104));
    assert_eq!(text.len(), 150);
    redis.command("DEL resque:queue:q phalanx:laws:done phalanx:laws:floor").await;
    let jobs: Vec<NewJob> = (0..500).map(|n| NewJob { text: text.clone().into(), ..job(&n.to_string()) }).collect();
    for _ in 0..JOBS / 500 {
        enqueue(store, &jobs).await;
    }
}

/// Jobs per second by one script a job, over one connection.
async fn floor(connection: &MultiplexedConnection, in_flight: usize) -> f64 {
    let (began, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut slots = JoinSet::new();
    for _ in 0..in_flight {
        let (mut connection, next) = (connection.clone(), next.clone());
        slots.spawn(async move {
            let script = Script::new(FLOOR);
            script.load_async(&mut connection).await.unwrap();
            loop {
                let mut call = cmd("EVALSHA");
                call.arg(script.get_hash()).arg(2).arg("resque:queue:q").arg("phalanx:laws:floor");
                call.arg(next.fetch_add(1, Relaxed));
                if call.query_async::<Option<Vec<u8>>>(&mut connection).await.unwrap().is_none() {
                    return;
                }
            }
        });
    }
    slots.join_all().await;
    JOBS as f64 / began.elapsed().as_secs_f64()
}

/// Jobs per second by the store, with three calls in flight that share the slots.
async fn rate(store: &Arc<dyn TaskStore>, slots: usize) -> f64 {
    let began = Instant::now();
    let worker = Arc::new(LawWorker::new(store, 0));
    let mut calls = JoinSet::new();
    for number in 0..slots.min(3) {
        let worker = worker.clone();
        let share = (slots / 3 + usize::from(number < slots % 3)).clamp(1, 32);
        calls.spawn(async move {
            let (mut ends, mut done) = (Vec::new(), 0);
            loop {
                let reply = worker.call(&ends, share, |_| {}).await;
                ends = reply.fetched.iter().map(|job| settlement(job, AttemptEnd::Done)).collect();
                done += ends.len();
                if ends.is_empty() {
                    return done;
                }
            }
        });
    }
    let done: usize = calls.join_all().await.iter().sum();
    assert_eq!(done, JOBS);
    JOBS as f64 / began.elapsed().as_secs_f64()
}

/// Prints; shared cores decide nothing. Run with `--release`, the gate is 1.0 times the floor at 100 slots, 0.9 at 10 and 0.8 at 1.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn many_jobs_in_a_call_cost_less_than_one_script_a_job() {
    let (store, redis) = super::store().await;
    redis.command("CONFIG SET appendonly no").await;
    let client = Client::open(redis.url()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    redis.command("ACL SETUSER phalanx ~* +@all").await;
    for slots in [100, 10, 1] {
        for round in 0..3 {
            fill(&redis, &store).await;
            let floor = floor(&connection, slots).await;
            fill(&redis, &store).await;
            let rate = rate(&store, slots).await;
            assert_eq!(store.attempts(nodes()[0]).await.unwrap(), []);
            println!(
                "{slots} slots, round {round}: {rate:.0} jobs/s, floor {floor:.0}, {:.2} times the floor",
                rate / floor
            );
            if cfg!(debug_assertions) {
                break;
            }
        }
    }
}
