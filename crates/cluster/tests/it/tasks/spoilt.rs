//! A key of another type, under each script: every job is somewhere afterwards, and the key is named.

use std::collections::BTreeSet;
use std::sync::Arc;

use phalanx_core::backend::{
    AttemptEnd, BackendError, DeleteOutcome, GiveBackOutcome, JobState, NewJob, SettleOutcome, TaskStore,
};
use phalanx_core::job::FailedJob;
use phalanx_testkit::Redis;
use phalanx_testkit::laws::tasks::{LawWorker, enqueue, failure, job, nodes, settlement};

/// Every key that a script of tasks may write, and the type of another one.
const KEYS: [&str; 23] = [
    "phalanx:laws:again:q",
    "phalanx:laws:suspects:q",
    "phalanx:laws:delayed",
    "phalanx:laws:delayed:jobs",
    "phalanx:laws:promoter",
    "phalanx:laws:runners",
    "phalanx:laws:serving:q",
    "phalanx:laws:parked",
    "phalanx:laws:parked:c",
    "phalanx:laws:unique:k",
    "phalanx:laws:ids:x",
    "phalanx:laws:deleted",
    "phalanx:laws:done",
    "phalanx:laws:failed:ids",
    "phalanx:laws:paused",
    "phalanx:laws:reaped",
    "resque:queues",
    "resque:queue:q",
    "resque:delayed_queue_schedule",
    "resque:failed",
    "resque:stat:processed",
    "resque:stat:failed",
    "resque:delayed:7",
];

const IDS: [&str; 12] = ["j00", "j01", "j02", "j03", "j04", "j05", "j06", "j07", "j08", "j09", "j10", "j11"];

/// The ids of the jobs that are in a key of the types that hold jobs.
async fn ids_in(redis: &Redis, key: &str) -> BTreeSet<&'static str> {
    let text =
        [redis.command(&format!("LRANGE {key} 0 -1")).await, redis.command(&format!("HVALS {key}")).await].concat();
    IDS.into_iter().filter(|id| text.contains(&format!("\"{id}\""))).collect()
}

/// The ids of all jobs that are anywhere.
async fn all_ids(redis: &Redis) -> BTreeSet<&'static str> {
    let keys = redis.command("KEYS *").await;
    let mut all = BTreeSet::new();
    for key in keys.lines().filter(|line| line.contains(':')) {
        all.extend(ids_in(redis, key).await);
    }
    all
}

/// The jobs that ended.
struct Story {
    over: BTreeSet<&'static str>,
    named: BTreeSet<String>,
}

impl Story {
    fn name<T>(&mut self, result: Result<T, BackendError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(BackendError::WrongKind { key }) => {
                self.named.insert(key);
                None
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Spoils a key, then runs every script; returns what was named.
async fn run_with(key: &str, is_spoilt: bool) -> BTreeSet<String> {
    let (store, redis) = super::store().await;
    let (worker, dying) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    let running = super::running(&store, &worker, &IDS[..7]).await;
    super::running(&store, &dying, &IDS[7..8]).await;
    let later = NewJob { due_ms: Some(4_000_000_000_000), ..job(IDS[8]) };
    enqueue(&store, &[job(IDS[9]), later]).await;
    redis.command("ZADD phalanx:laws:delayed XX 1 j08").await;
    redis.command("RPUSH resque:delayed:7 '{\"class\":\"c\",\"queue\":\"q\",\"id\":\"j10\"}'").await;
    redis.command("ZADD resque:delayed_queue_schedule 7 7").await;
    let before = all_ids(&redis).await;
    if is_spoilt {
        redis.command(&format!("DEL {key}")).await;
        let wrong =
            if key.ends_with("promoter") || key.contains("unique") || key.contains("ids:x") || key.contains("stat") {
                format!("SADD {key} x")
            } else {
                format!("SET {key} x")
            };
        redis.command(&wrong).await;
    }
    let left = all_ids(&redis).await; // but for those that were overwritten
    assert!(left.len() + 1 >= before.len(), "{left:?} {before:?}");

    let mut story = Story { over: BTreeSet::new(), named: BTreeSet::new() };
    let ends = [
        AttemptEnd::Done,
        AttemptEnd::Dropped,
        AttemptEnd::Retry { due_ms: 0 },
        AttemptEnd::Snooze { due_ms: 4_000_000_000_000 },
        AttemptEnd::GiveBack,
        AttemptEnd::Park { class: "c".into() },
        failure(&running[6]),
    ];
    let mut settlements: Vec<_> = running.iter().zip(ends).map(|(job, end)| settlement(job, end)).collect();
    settlements[1].unique = Some("k".into());
    let reply = worker.call(&settlements, 0, |_| {}).await;
    for (outcome, id) in reply.settled.iter().zip(IDS) {
        match outcome {
            SettleOutcome::Spoilt { key } => drop(story.named.insert(key.clone())),
            SettleOutcome::Accepted | SettleOutcome::ClaimLost if matches!(id, "j00" | "j01") => {
                story.over.insert(id);
            }
            SettleOutcome::Accepted => {}
            other => panic!("{id}: {other:?}"),
        }
    }
    let given_back = store.give_back(nodes()[0], nodes()[1], "w").await;
    story.name(given_back);
    let promoted = store.promote().await;
    story.name(promoted);
    let taken = worker.take_parked(&["c"], 32).await;
    let spoilt = story.name(taken).map(|reply| reply.spoilt).unwrap_or_default();
    story.named.extend(spoilt);
    let failed = store.fail_parked(u64::MAX / 2, "w", &[]).await;
    story.name(failed);
    let enqueued = store.enqueue(&[NewJob { digest: Some([1; 16]), ..job("x") }], u64::MAX / 4).await;
    story.name(enqueued);
    let deleted = store.delete("unknown").await;
    story.name(deleted);
    let reply = worker.call(&[], 32, |_| {}).await;
    story.named.extend(reply.spoilt);
    let stats = store.stats().await;
    story.name(stats);

    let mut found = all_ids(&redis).await;
    found.extend(&story.over);
    let lost: Vec<_> = left.difference(&found).collect();
    assert!(lost.is_empty(), "{key}: {lost:?} of {left:?}");
    story.named
}

#[tokio::test]
async fn a_spoilt_key_costs_no_job_and_is_named() {
    assert_eq!(run_with("none", false).await, BTreeSet::new());
    let mut silent = Vec::new();
    for key in KEYS {
        let named = run_with(key, true).await;
        println!("{key}: {named:?}");
        if named.is_empty() {
            silent.push(key);
        }
    }
    // Counters, memories of jobs that are over, and claims, whose loss costs no job. Promotion names keys in the log.
    println!("not named: {silent:?}");
    let needed = |key: &&&str| {
        ["again:", "suspects:", "delayed", "parked", "queue", "failed"].iter().any(|part| key.contains(part))
            && !["stat:", "ids", "schedule", "delayed:7"].iter().any(|part| key.contains(part))
    };
    let unnamed: Vec<_> = silent.iter().filter(needed).collect();
    assert_eq!(unnamed, Vec::<&&str>::new());
}

#[tokio::test]
async fn a_spoilt_queue_keeps_no_other_one_from_being_served() {
    let (store, redis) = super::store().await;
    redis.command("SET resque:queue:bad x").await;
    enqueue(&store, &[job("a")]).await;
    let worker = LawWorker::serving(&store, nodes()[0], &["bad", "q"]);
    let reply = worker.call(&[], 5, |_| {}).await;
    assert_eq!((reply.fetched.len(), &reply.spoilt[..]), (1, &["resque:queue:bad".to_owned()][..]));
    let bad = NewJob { queue: "bad".into(), ..job("b") };
    let refused = store.enqueue(&[job("c"), bad], u64::MAX / 4).await;
    assert!(matches!(&refused, Err(BackendError::WrongKind { key }) if key == "resque:queue:bad"), "{refused:?}");
    assert_eq!(worker.fetch(5).await, [], "all or none");
}

#[tokio::test]
async fn a_job_that_cannot_go_back_keeps_none_from_going_back() {
    let (store, redis) = super::store().await;
    let dying = LawWorker::serving(&store, nodes()[1], &["bad", "q"]);
    let of_bad = |number: usize| NewJob { queue: "bad".into(), ..job(&format!("b{number}")) };
    enqueue(&store, &(0..120).map(of_bad).collect::<Vec<_>>()).await;
    enqueue(&store, &[job("a")]).await;
    while !dying.fetch(32).await.is_empty() {}
    redis.command("SET phalanx:laws:again:bad x").await;
    let mut rounds = 0;
    let error = loop {
        match store.give_back(nodes()[0], nodes()[1], "w").await {
            Ok(_) => rounds += 1,
            Err(error) => break error,
        }
        assert!(rounds < 10);
    };
    assert!(matches!(&error, BackendError::WrongKind { key } if key == "phalanx:laws:again:bad"), "{error}");
    let waiting: Arc<dyn TaskStore> = store.clone();
    assert_eq!(waiting.waiting("q", 0, 9).await.unwrap().len(), 1);
    assert_eq!(store.attempts(nodes()[1]).await.unwrap().len(), 120);
}

/// The sets of names that numbers and searches begin with.
const SETS: [&str; 4] = ["resque:queues", "resque:workers", "phalanx:laws:paused", "phalanx:laws:parked"];

#[tokio::test]
async fn a_name_that_is_no_text_keeps_no_other_one_from_being_read() {
    let (store, redis) = super::store().await;
    enqueue(&store, &[job("a")]).await;
    redis.command("RPUSH phalanx:laws:parked:c '1 q 0 0 0 {}'").await;
    for set in SETS {
        redis.command(&format!("SADD {set} \"\\xff\" c")).await;
    }
    redis.command("ZADD phalanx:laws:runners 1 \"\\xff\"").await;
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.queues.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["c", "q"]);
    assert_eq!((stats.workers, stats.paused, stats.parked), (vec!["c".to_owned()], vec!["c".to_owned()], 1));
    assert_eq!(store.status("a").await.unwrap().state, JobState::Waiting);
    assert_eq!(store.delete("unknown").await.unwrap(), DeleteOutcome::NotFound);
    assert!(store.parked().await.unwrap().contains(&"c".to_owned()));
    assert_eq!(store.fail_parked(0, "w", &[]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_set_of_names_that_is_spoilt_has_none() {
    for set in SETS.into_iter().chain(["phalanx:laws:runners"]) {
        let (store, redis) = super::store().await;
        enqueue(&store, &[job("a")]).await;
        redis.command(&format!("DEL {set}")).await;
        redis.command(&format!("SET {set} x")).await;
        let expected = usize::from(set != "resque:queues");
        assert_eq!(store.stats().await.unwrap().queues.len(), expected, "{set}");
        let expected = if expected == 1 { JobState::Waiting } else { JobState::Unknown };
        assert_eq!(store.status("a").await.unwrap().state, expected, "{set}");
        assert_eq!(store.delete("unknown").await.unwrap(), DeleteOutcome::NotFound, "{set}");
    }
}

/// The newest attempts are tried first.
#[tokio::test]
async fn a_spoilt_queue_with_the_newest_attempts_keeps_none_from_going_back() {
    let (store, redis) = super::store().await;
    let dying = LawWorker::serving(&store, nodes()[1], &["bad", "q"]);
    enqueue(&store, &[job("a")]).await;
    assert_eq!(dying.fetch(1).await.len(), 1);
    let of_bad = |number: usize| NewJob { queue: "bad".into(), ..job(&format!("b{number}")) };
    enqueue(&store, &(0..110).map(of_bad).collect::<Vec<_>>()).await;
    while !dying.fetch(32).await.is_empty() {}
    redis.command("SET phalanx:laws:again:bad x").await;
    let moved = store.give_back(nodes()[0], nodes()[1], "w").await.unwrap();
    assert_eq!(moved, GiveBackOutcome::Some(vec![]));
    assert_eq!(store.waiting("q", 0, 9).await.unwrap().len(), 1);
    let error = store.give_back(nodes()[0], nodes()[1], "w").await.unwrap_err();
    assert!(matches!(&error, BackendError::WrongKind { key } if key == "phalanx:laws:again:bad"), "{error}");
    assert_eq!(store.attempts(nodes()[1]).await.unwrap().len(), 110);
}

/// Whatever wrote it: it is named, and keeps none from going back.
#[tokio::test]
async fn an_attempt_whose_field_is_unreadable_is_named_and_stays() {
    for field in ["\"\\xff\"", "rubbish"] {
        let (store, redis) = super::store().await;
        let dying = LawWorker::new(&store, 1);
        super::running(&store, &dying, &["a"]).await;
        redis.command(&format!("HSET phalanx:laws:running:{} {field} x", nodes()[1])).await;
        let moved = store.give_back(nodes()[0], nodes()[1], "w").await.unwrap();
        assert_eq!(moved, GiveBackOutcome::Some(vec![]));
        let error = store.give_back(nodes()[0], nodes()[1], "w").await.unwrap_err();
        assert!(matches!(&error, BackendError::WrongKind { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_parked_entry_that_cannot_be_read_keeps_no_other_from_being_fetched_and_fails() {
    let (store, redis) = super::store().await;
    redis.command("SADD phalanx:laws:parked c").await;
    redis.command("RPUSH phalanx:laws:parked:c rubbish '1 q 0 0 0 {}' '1 q 0 0'").await;
    let worker = LawWorker::new(&store, 0);
    for jobs in [1, 0] {
        let taken = worker.take_parked(&["c"], 9).await.unwrap();
        assert_eq!((taken.fetched.len(), taken.spoilt), (jobs, vec![]));
    }
    // Also where the class is known, and whenever it was parked.
    assert_eq!(store.fail_parked(1, "w", &["c"]).await.unwrap(), 2);
    assert_eq!(redis.command("EXISTS phalanx:laws:parked:c phalanx:laws:parked").await, ":0\r\n");
    let failed: Vec<_> = store.failed(0, 9).await.unwrap().iter().map(FailedJob::read).collect();
    let texts: Vec<_> = failed.iter().map(|failed| (failed.exception.as_str(), failed.payload.get())).collect();
    assert!(texts.iter().all(|(exception, _)| *exception == "unreadable"), "{texts:?}");
    assert!(texts[0].1.contains("rubbish") && texts[1].1.contains("1 q 0 0"), "{texts:?}");
}

#[tokio::test]
async fn many_parked_jobs_of_other_queues_keep_none_from_being_found_and_their_order() {
    let (store, redis) = super::store().await;
    redis.command("SADD phalanx:laws:parked c").await;
    for number in 0..700 {
        redis.command(&format!("RPUSH phalanx:laws:parked:c '{number} another 0 0 0 {{}}'")).await;
    }
    redis.command("RPUSH phalanx:laws:parked:c '700 q 0 0 0 {}'").await;
    let worker = LawWorker::new(&store, 0);
    let mut calls = 0;
    while worker.take_parked(&["c"], 9).await.unwrap().fetched.is_empty() {
        calls += 1;
        assert!(calls < 1000, "one of a hundred parts in six is looked at");
        // Tokens of a node follow the clock.
        worker.skip_tokens(7 + calls % 13);
    }
    println!("found by call {calls}");
    let left = redis.command("LRANGE phalanx:laws:parked:c 0 -1").await;
    let left: Vec<usize> = left.lines().filter_map(|line| line.split_once(" another")?.0.parse().ok()).collect();
    assert!(left.into_iter().eq(0..700));
}

/// A number of so many digits is written in another form by a script than it was read.
#[tokio::test]
async fn a_job_with_counters_that_no_node_of_ours_wrote_is_an_unreadable_text() {
    let (store, redis) = super::store().await;
    let entry = "100000000000000 0 0 {}";
    redis.command(&format!("RPUSH phalanx:laws:again:q '{entry}' '0 1000000000 0 {{}}' '1 0 0 {{}}'")).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = [worker.fetch(9).await, worker.fetch(9).await].concat();
    let texts: Vec<&[u8]> = fetched.iter().map(|job| &job.text[..]).collect();
    assert_eq!(texts, [entry.as_bytes(), b"0 1000000000 0 {}", b"{}"]);
    assert_eq!(store.attempts(nodes()[0]).await.unwrap(), fetched, "as they are listed");
    for job in &fetched {
        assert_eq!(worker.settle(job, failure(job)).await, SettleOutcome::Accepted);
    }
    assert_eq!(redis.command("EXISTS phalanx:laws:running:aaaaaaaaaa phalanx:laws:again:q").await, ":0\r\n");
}

#[tokio::test]
async fn a_claim_that_is_spoilt_is_released_from_no_job() {
    let (store, redis) = super::store().await;
    redis.command("RPUSH phalanx:laws:unique:k x").await;
    assert!(!store.release("k", "a").await.unwrap());
}
