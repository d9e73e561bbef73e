//! Jobs of nodes that die, stop, and freeze.

use std::time::Duration;

use phalanx_testkit::{Process, Redis, Signal};
use tokio::time::{Instant, sleep, timeout};

/// The limit of waits that no test is about.
const SOON: Duration = Duration::from_secs(30);

/// Rounds of each test with a kill.
const ROUNDS: usize = 2;

async fn start_node(url: &str, title: &str) -> Process {
    let environment = [("REDIS_URL", url), ("PHALANX_TITLE", title), ("PHALANX__GENERAL__GRACE", "500ms")];
    Process::start("tour", &environment).await
}

async fn generation(node: &Process) -> String {
    super::status(node.addr).await["generation"].as_str().unwrap().to_owned()
}

/// Adds a job as a resque tool would.
async fn push(redis: &Redis, class: &str, input: &str) {
    redis
        .command(&format!(r#"RPUSH resque:queue:default '{{"class":"{class}","queue":"default","args":[{input}]}}'"#))
        .await;
}

/// How many attempts a generation runs.
async fn running(redis: &Redis, generation: &str) -> usize {
    let reply = redis.command(&format!("HLEN phalanx:tour:running:{generation}")).await;
    reply.trim_matches([':', '\r', '\n']).parse().unwrap()
}

async fn processed(redis: &Redis) -> String {
    redis.command("GET resque:stat:processed").await.lines().nth(1).unwrap_or("0").to_owned()
}

/// Waits; returns how long.
async fn until(condition: &str, mut is_true: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    let waiting = async {
        while !is_true().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("{condition}"));
    began.elapsed()
}

/// The node that runs the only job, and the other one.
async fn split(redis: &Redis, one: Process, other: Process) -> (Process, Process) {
    let generation = generation(&one).await;
    let of_other = self::generation(&other).await;
    until("a node runs the job", async || running(redis, &generation).await + running(redis, &of_other).await == 1)
        .await;
    if running(redis, &generation).await == 1 { (one, other) } else { (other, one) }
}

/// The jobs of a killed node are in their queues again, without those that this death convicts.
#[tokio::test]
async fn the_jobs_of_a_killed_node_go_back_to_their_queues() {
    let redis = Redis::start().await;
    let one = start_node(&redis.url(), "one").await;
    let running = format!("phalanx:tour:running:{}", generation(&one).await);
    let _other = start_node(&redis.url(), "other").await;
    one.freeze().await; // it compares the hash with its slots
    for (field, id) in [("101 default 1 0 0", "a"), ("102 default 3 1 0", "b"), ("103 default 1 2 0", "c")] {
        let job = format!(r#"{{"class":"noop","queue":"default","args":[],"id":"{id}"}}"#);
        redis.command(&format!("HSET {running} '{field}' '{job}'")).await;
    }
    one.signal(Signal::KILL);
    let took = until("its jobs are given back", async || {
        redis.command(&format!("EXISTS {running}")).await == ":0\r\n" && processed(&redis).await == "2"
    })
    .await;
    println!("two jobs of a killed node ran after {took:?}");
    let failed = redis.command("LRANGE resque:failed 0 -1").await;
    assert!(failed.contains("one:") && failed.contains("poison") && failed.contains(r#""id":"c""#), "{failed}");
}

#[tokio::test]
async fn a_job_of_a_killed_worker_runs_elsewhere() {
    for round in 0..ROUNDS {
        let redis = Redis::start().await;
        let url = redis.url();
        let (one, other) = tokio::join!(start_node(&url, "one"), start_node(&url, "other"));
        push(&redis, "sleep", r#"{"ms":1000}"#).await;
        let (worker, other) = split(&redis, one, other).await;
        worker.signal(Signal::KILL);
        let generation = generation(&other).await;
        let took = until("the job runs elsewhere", async || running(&redis, &generation).await == 1).await;
        println!("round {round}: SIGKILL to run elsewhere: {took:?}");
        assert!(took < Duration::from_secs(30), "{took:?}: 10 s is the aim");
        until("it ends", async || processed(&redis).await == "1").await;
    }
}

#[tokio::test]
async fn a_worker_that_stops_hands_its_jobs_over() {
    let redis = Redis::start().await;
    let url = redis.url();
    let (one, other) = tokio::join!(start_node(&url, "one"), start_node(&url, "other"));
    push(&redis, "sleep", r#"{"ms":6000}"#).await;
    let (mut worker, other) = split(&redis, one, other).await;
    for _ in 0..300 {
        push(&redis, "count", r#"{"name":"handed"}"#).await;
    }
    worker.signal(Signal::TERM);
    let generation = generation(&other).await;
    let took = until("the job runs elsewhere", async || {
        running(&redis, &generation).await >= 1
            && redis.command("LLEN resque:queue:default").await == ":0\r\n"
            && redis.command(&format!("HVALS phalanx:tour:running:{generation}")).await.contains("6000")
    })
    .await;
    println!("SIGTERM to run elsewhere, with 0.5 s of grace: {took:?}");
    worker.ended().await;
    assert!(took < Duration::from_millis(500) + Duration::from_secs(3), "{took:?}: grace and 1 s is the aim");
    until("all end", async || processed(&redis).await == "301").await;
    let counter = redis.command("GET actionhero:cache:counter:handed").await;
    assert!(counter.contains("300"), "each ran once: {counter}");
}

#[tokio::test]
async fn a_frozen_worker_does_not_settle_what_ran_elsewhere() {
    let redis = Redis::start().await;
    let url = redis.url();
    let (one, other) = tokio::join!(start_node(&url, "one"), start_node(&url, "other"));
    push(&redis, "sleep", r#"{"ms":1500}"#).await;
    let (worker, other) = split(&redis, one, other).await;
    let before = generation(&worker).await;
    worker.freeze().await;
    let took = until("it ran elsewhere", async || processed(&redis).await == "1").await;
    worker.thaw();
    until("the frozen node has another name", async || generation(&worker).await != before).await;
    // It serves again, and what it ran is over.
    for node in [&worker, &other] {
        let generation = generation(node).await;
        until("no attempt is left", async || running(&redis, &generation).await == 0).await;
    }
    // Jobs that take longer than what was left of the frozen attempt: its end would be counted too.
    for _ in 0..8 {
        push(&redis, "sleep", r#"{"ms":2000}"#).await;
    }
    until("they end", async || processed(&redis).await.parse::<u64>().unwrap() >= 9).await;
    assert_eq!(processed(&redis).await, "9");
    assert_eq!(redis.command("LLEN resque:failed").await, ":0\r\n");
    println!("ran elsewhere after {took:?}, and once");
}
