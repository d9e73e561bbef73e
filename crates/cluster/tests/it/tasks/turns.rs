//! Jobs that take turns by their keys, in Redis.

use std::sync::LazyLock;

use phalanx_core::backend::{
    AttemptEnd, BackendError, FetchedJob, JobState, LimitedQueue, MAX_TURN_KEYS, NewJob, OTHER_TURNS, QueueLimits,
    SettleOutcome, Settlement, WorkerReply,
};
use phalanx_core::job::turn_of;
use phalanx_testkit::laws::tasks::{LawWorker, enqueue, job, nodes, settlement};
use phalanx_testkit::print;

static TURNS: LazyLock<[LimitedQueue; 1]> =
    LazyLock::new(|| [LimitedQueue { queue: "q".into(), limits: QueueLimits::NONE, takes_turns: true }]);

fn of_key(id: &str, key: &str) -> NewJob {
    let text = format!(r#"{{"class":"c","queue":"q","args":[],"id":"{id}","fair":"{key}"}}"#);
    NewJob { text: text.into(), ..job(id) }
}

async fn call(worker: &LawWorker, ends: &[Settlement], wanted: usize) -> WorkerReply {
    worker.skip_tokens(1);
    worker.call(ends, wanted, |call| call.limited = &*TURNS).await
}

fn ends(jobs: &[FetchedJob]) -> Vec<Settlement> {
    jobs.iter().map(|job| settlement(job, AttemptEnd::Done)).collect()
}

/// The full number takes `TENANT_JOBS=100000`.
#[tokio::test]
async fn ten_jobs_of_one_key_are_done_within_twenty_however_many_another_has() {
    let many = std::env::var("TENANT_JOBS").ok().and_then(|count| count.parse().ok()).unwrap_or(2_000);
    let (store, _redis) = super::store().await;
    let jobs: Vec<NewJob> = (0..many).map(|number| of_key(&number.to_string(), "many")).collect();
    for batch in jobs.chunks(500) {
        enqueue(&store, batch).await;
    }
    let worker = LawWorker::new(&store, 0);
    let mut running = call(&worker, &[], 4).await.fetched; // it has had turns
    enqueue(&store, &(0..10).map(|number| of_key(&format!("few{number}"), "few")).collect::<Vec<_>>()).await;
    let (mut begun, mut few) = (0, 0);
    while few < 10 {
        running = call(&worker, &ends(&running), 4).await.fetched;
        begun += running.len();
        few += running.iter().filter(|job| turn_of(&job.text) == Some("few")).count();
        assert!(!running.is_empty(), "{few} of ten after {begun}");
    }
    print(format_args!("the ten are among {begun} jobs, beside {many} of another key"));
    assert!(begun <= 20, "{begun}");
}

/// It wakes, since those of other keys are gone; and its jobs wait with all others where it needs a key that is spoilt.
#[tokio::test]
async fn a_spoilt_key_of_turns_is_named_and_costs_no_job() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    // The keys of the queue.
    redis.command("SET phalanx:laws:fair:q x").await;
    enqueue(&store, &[of_key("a", "x"), job("plain")]).await;
    let reply = call(&worker, &[], 9).await;
    assert_eq!((reply.fetched.len(), reply.spoilt), (2, vec!["phalanx:laws:fair:q".to_owned()]));
    let retries = reply.fetched.iter().map(|job| settlement(job, AttemptEnd::Retry { due_ms: 0 }));
    let settled = call(&worker, &retries.collect::<Vec<_>>(), 0).await.settled;
    assert_eq!(settled, [SettleOutcome::Accepted, SettleOutcome::Accepted]);
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.queues, stats.in_turns), (vec![("q".to_owned(), 2)], vec!["q".to_owned()]));
    let waiting = store.waiting("q", 0, 9).await.unwrap();
    assert_eq!(waiting.len(), 2);
    redis.command("DEL phalanx:laws:fair:q").await;
    // Those of one key, behind which others have their turns.
    redis.command("SET 'phalanx:laws:fair:q x' x").await;
    enqueue(&store, &[of_key("b", "x"), of_key("c", "y")]).await;
    let mut spoilt = Vec::new();
    let mut fetched = Vec::new();
    while fetched.len() < 4 {
        let reply = call(&worker, &[], 9).await;
        assert!(!reply.fetched.is_empty(), "{fetched:?}");
        spoilt.extend(reply.spoilt);
        fetched.extend(reply.fetched);
    }
    spoilt.dedup();
    assert_eq!(spoilt, ["phalanx:laws:fair:q x"]);
    assert_eq!(store.stats().await.unwrap().queues, [("q".to_owned(), 0)]);
    redis.command("DEL 'phalanx:laws:fair:q x'").await;
    call(&worker, &ends(&fetched), 9).await;
    assert_eq!(redis.command("EXISTS phalanx:laws:fair:q").await, ":0\r\n");
}

/// A call that takes one job looks at one key.
#[tokio::test]
async fn a_spoilt_list_keeps_no_other_key_from_its_turn() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[of_key("a", "a"), of_key("b", "b"), of_key("c", "c")]).await;
    redis.command("DEL 'phalanx:laws:fair:q a'").await;
    redis.command("SET 'phalanx:laws:fair:q a' x").await;
    let (mut fetched, mut spoilt) = (0, Vec::new());
    for _ in 0..5 {
        let reply = call(&worker, &[], 1).await;
        fetched += reply.fetched.len();
        spoilt.extend(reply.spoilt);
    }
    spoilt.dedup();
    assert_eq!((fetched, spoilt), (2, vec!["phalanx:laws:fair:q a".to_owned()]));
    assert_eq!(store.stats().await.unwrap().queues, [("q".to_owned(), 0)]);
    // Once it is repaired, it has its turns again.
    redis.command("DEL 'phalanx:laws:fair:q a'").await;
    enqueue(&store, &["d", "e", "f"].map(|id| of_key(id, "b"))).await;
    enqueue(&store, &[of_key("g", "a")]).await;
    let repaired = call(&worker, &[], 2).await;
    assert!(repaired.fetched.iter().any(|job| turn_of(&job.text) == Some("a")), "{repaired:?}");
}

/// The keys of turns that were lost come back with the next job of each.
#[tokio::test]
async fn a_list_whose_key_has_no_turn_has_one_with_its_next_job() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[of_key("a", "x"), of_key("b", "x")]).await;
    redis.command("DEL phalanx:laws:fair:q").await;
    assert_eq!(call(&worker, &[], 9).await.fetched, []);
    enqueue(&store, &[of_key("c", "x")]).await;
    assert_eq!(call(&worker, &[], 9).await.fetched.len(), 3);
}

/// Also those that take no turns, which are in the same call.
#[tokio::test]
async fn a_full_redis_refuses_jobs_that_take_turns_and_all_others_go_on() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &(0..6).map(|number| of_key(&number.to_string(), "x")).collect::<Vec<_>>()).await;
    let running = call(&worker, &[], 4).await.fetched;
    redis.command("CONFIG SET maxmemory-policy noeviction").await;
    redis.command("CONFIG SET maxmemory 1").await;
    let refused = store.enqueue(&[job("plain"), of_key("z", "z")], u64::MAX / 4).await;
    assert!(matches!(refused, Err(BackendError::Full)), "{refused:?}");
    let now = AttemptEnd::Retry { due_ms: 0 };
    let ways = [AttemptEnd::Done, now.clone(), AttemptEnd::GiveBack, now];
    let settlements: Vec<_> = running.iter().zip(ways).map(|(job, end)| settlement(job, end)).collect();
    let reply = call(&worker, &settlements, 9).await;
    assert_eq!((reply.settled, reply.fetched.len()), (vec![SettleOutcome::Accepted; 4], 5));
    redis.command("CONFIG SET maxmemory 0").await;
    assert_eq!(store.stats().await.unwrap().queues, [("q".to_owned(), 0)], "nothing of the enqueue");
}

/// Resque's tools name queues in any way: the jobs of one with a blank would be among those of another.
#[tokio::test]
async fn a_foreign_queue_with_a_blank_in_its_name_has_no_turns() {
    for order in [["q", "q x"], ["q x", "q"]] {
        let (store, redis) = super::store().await;
        let worker = LawWorker::serving(&store, nodes()[0], &["q", "q x"]);
        redis.command("SADD resque:queues 'q x'").await;
        for queue in order {
            enqueue(&store, &[NewJob { queue: queue.into(), ..of_key(queue, "x") }]).await;
        }
        let stats = store.stats().await.unwrap();
        let lengths = [("q".to_owned(), 1), ("q x".to_owned(), 1)];
        assert_eq!((&stats.queues[..], &stats.in_turns[..]), (&lengths[..], &["q".to_owned()][..]), "{order:?}");
        assert_eq!(store.waiting("q x", 0, 9).await.unwrap().len(), 1);
        let reply = call(&worker, &[], 9).await;
        assert_eq!(reply.fetched.iter().map(|job| &*job.attempt.queue).collect::<Vec<_>>(), ["q", "q x"]);
        assert_eq!(reply.spoilt, Vec::<String>::new());
    }
}

/// Also of jobs that come in one call.
#[tokio::test]
async fn a_queue_has_a_thousand_keys_and_one_for_all_further_ones() {
    let (store, redis) = super::store().await;
    let jobs: Vec<NewJob> = (0..MAX_TURN_KEYS + 9).map(|key| of_key(&key.to_string(), &key.to_string())).collect();
    for batch in jobs.chunks(500) {
        enqueue(&store, batch).await;
    }
    assert_eq!(redis.command("ZCARD phalanx:laws:fair:q").await, format!(":{}\r\n", MAX_TURN_KEYS + 1));
    assert_eq!(redis.command(&format!("LLEN 'phalanx:laws:fair:q {OTHER_TURNS}'")).await, ":9\r\n");
}

/// However many keys and jobs there are.
#[tokio::test]
async fn jobs_and_keys_that_wait_for_their_turns_make_no_call_longer() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    let mut costs = Vec::new();
    for (keys, jobs) in [(64, 1), (900, 2)] {
        for key in 0..keys {
            let of = (0..jobs).map(|number| of_key(&format!("{key}.{number}.{jobs}"), &key.to_string()));
            enqueue(&store, &of.collect::<Vec<_>>()).await;
        }
        let running = call(&worker, &[], 32).await.fetched;
        let before = commands(&redis).await;
        assert_eq!(call(&worker, &ends(&running), 8).await.fetched.len(), 8);
        costs.push(commands(&redis).await - before);
    }
    print(format_args!("commands of a call of 8 jobs with 64 and with 900 keys: {costs:?}"));
    assert!(costs[0].abs_diff(costs[1]) <= 5, "{costs:?}: but for the announcement of each second");
    assert!(costs[0] < 60, "{costs:?}");
}

/// However many keys there are: each would be a round trip.
#[tokio::test]
async fn a_job_among_those_of_a_thousand_keys_is_found_in_few_round_trips() {
    let (store, redis) = super::store().await;
    for batch in (0..MAX_TURN_KEYS).collect::<Vec<_>>().chunks(250) {
        let of_key = |key: &usize| {
            [of_key(&format!("{key}.a"), &key.to_string()), of_key(&format!("{key}.b"), &key.to_string())]
        };
        enqueue(&store, &batch.iter().flat_map(of_key).collect::<Vec<_>>()).await;
    }
    let reads = async || {
        let stats = redis.command("INFO stats").await;
        let reads = stats.lines().find_map(|line| line.strip_prefix("total_reads_processed:")?.parse::<u64>().ok());
        reads.expect("redis counts what it reads")
    };
    for (id, state) in [("0.a", JobState::Waiting), ("999.b", JobState::Waiting), ("999.c", JobState::Unknown)] {
        let before = reads().await;
        assert_eq!(store.status(id).await.unwrap().state, state, "{id}");
        let count = reads().await - before;
        print(format_args!("reads of redis until {id} is {state:?}: {count}"));
        assert!(count <= 40, "{id}: {count}");
    }
    let (before, used) = (reads().await, used_us(&redis).await);
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.queues, [("q".to_owned(), 2 * MAX_TURN_KEYS as u64)]);
    let (reads, used) = (reads().await - before, used_us(&redis).await - used);
    print(format_args!("reads of redis by a look at the numbers: {reads}; its commands took {used} µs"));
    assert!(reads <= 60, "{reads}");
}

/// For how many µs commands have run.
async fn used_us(redis: &phalanx_testkit::Redis) -> u64 {
    let stats = redis.command("INFO commandstats").await;
    let commands =
        stats.lines().filter(|line| !line.starts_with("cmdstat_evalsha") && !line.starts_with("cmdstat_info"));
    commands.filter_map(|line| line.split_once("usec=")?.1.split(',').next()?.parse::<u64>().ok()).sum()
}

/// How often Redis ran any command.
async fn commands(redis: &phalanx_testkit::Redis) -> u64 {
    let stats = redis.command("INFO commandstats").await;
    let calls = stats.lines().filter_map(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok());
    calls.sum()
}
