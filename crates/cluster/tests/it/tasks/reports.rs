//! What jobs report, in Redis: how long it is kept, on a full Redis, under a spoilt key.

use std::time::Duration;

use phalanx_core::backend::{
    AttemptEnd, BackendError, FetchedJob, JobReport, JobState, NewJob, REPORT_TTL_MS, SettleOutcome, Settlement,
};
use phalanx_testkit::laws::tasks::{LawWorker, enqueue, job, nodes, settlement};
use phalanx_testkit::{Proxy, Redis};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

fn progress(value: &str) -> JobReport {
    JobReport { id: "a".into(), progress: Some(value.to_owned().into()), result: None, missing: None }
}

fn done(job: &FetchedJob, result: &str) -> Settlement {
    let report = JobReport { result: Some(result.to_owned().into()), ..progress("9") };
    Settlement { report: Some(Box::new(report)), ..settlement(job, AttemptEnd::Done) }
}

async fn ttl_ms(redis: &Redis) -> u64 {
    redis.command("PTTL phalanx:laws:reports:a").await.trim_matches([':', '\r', '\n']).parse().unwrap()
}

#[tokio::test]
async fn a_report_ends_a_day_after_its_job() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[job("a")]).await;
    let fetched = worker.fetch_one().await;
    assert!(store.report(nodes()[0], &fetched.attempt, &progress("1"), 5_000).await.unwrap());
    assert!((1..=5_000).contains(&ttl_ms(&redis).await));
    assert_eq!(worker.call(&[done(&fetched, "1")], 0, |_| {}).await.settled, [SettleOutcome::Accepted]);
    assert!((REPORT_TTL_MS - 5_000..=REPORT_TTL_MS).contains(&ttl_ms(&redis).await));
}

/// Nor has one that did not begin anything to report: each would be a key for a day.
#[tokio::test]
async fn the_end_of_a_job_that_is_not_tracked_is_not_kept() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[job("a")]).await;
    let fetched = worker.fetch_one().await;
    let report = JobReport { progress: None, ..progress("") };
    let end = Settlement { report: Some(Box::new(report)), ..settlement(&fetched, AttemptEnd::Dropped) };
    assert_eq!(worker.call(&[end], 0, |_| {}).await.settled, [SettleOutcome::Accepted]);
    assert_eq!(redis.command("EXISTS phalanx:laws:reports:a").await, ":0\r\n");
}

#[tokio::test]
async fn a_full_redis_refuses_progress_and_keeps_the_end_of_a_job() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[job("a")]).await;
    let fetched = worker.fetch_one().await;
    redis.command("CONFIG SET maxmemory 1").await;
    let refused = store.report(nodes()[0], &fetched.attempt, &progress("1"), 5_000).await;
    assert!(matches!(refused, Err(BackendError::Full)), "{refused:?}");
    assert_eq!(worker.call(&[done(&fetched, "1")], 0, |_| {}).await.settled, [SettleOutcome::Accepted]);
    let status = store.status("a").await.unwrap();
    assert_eq!((status.state, status.result.as_deref()), (JobState::Done, Some(&b"1"[..])));
}

#[tokio::test]
async fn a_spoilt_report_is_named_and_prevents_nothing() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[job("a")]).await;
    let fetched = worker.fetch_one().await;
    redis.command("RPUSH phalanx:laws:reports:a x").await;
    let report = store.report(nodes()[0], &fetched.attempt, &progress("1"), 5_000).await;
    assert!(matches!(report, Err(BackendError::WrongKind { .. })), "{report:?}");
    assert_eq!(store.status("a").await.unwrap().state, JobState::Running(nodes()[0]));
    let reply = worker.call(&[done(&fetched, "1")], 0, |_| {}).await;
    assert_eq!(reply.settled, [SettleOutcome::Accepted]);
    assert_eq!(reply.spoilt, ["phalanx:laws:reports:a"]);
    assert_eq!(store.status("a").await.unwrap().state, JobState::Done);
}

/// A Redis's reply is not trusted.
#[tokio::test]
async fn an_unreadable_report_shows_nothing() {
    let (store, redis) = super::store().await;
    for attempt in ["", "aaaaaaaaaa", "aaaaaaaaaa 1 q x 0 0", "none 1 q 1 0 0"] {
        redis.command(&format!("HSET phalanx:laws:reports:a attempt '{attempt}'")).await;
        let status = store.status("a").await.unwrap();
        assert_eq!((status.state, status.attempt), (JobState::Unknown, None), "{attempt}");
    }
}

/// A tracked job is known from its enqueue on: for a week, which a progress does not shorten, then for a day after its end.
#[tokio::test]
async fn a_tracked_job_is_known_for_a_week_and_its_end_for_a_day() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[NewJob { tracked: true, ..job("a") }]).await;
    let fetched = worker.fetch_one().await;
    assert!(store.report(nodes()[0], &fetched.attempt, &progress("1"), 5_000).await.unwrap());
    assert!((6 * DAY_MS..=7 * DAY_MS).contains(&ttl_ms(&redis).await));
    assert_eq!(worker.call(&[done(&fetched, "1")], 0, |_| {}).await.settled, [SettleOutcome::Accepted]);
    assert!((DAY_MS - 5_000..=DAY_MS).contains(&ttl_ms(&redis).await));
}

/// A message that was lost with its connection, or with all of Redis's clients.
#[tokio::test]
async fn a_caller_that_waits_learns_of_an_end_that_was_published_while_it_was_cut_off() {
    let redis = Redis::start().await;
    super::prepare(&redis).await;
    let proxy = Proxy::before(redis.addr()).await;
    let (store, direct) = (super::over(&redis.url_through(proxy.addr())), super::over(&redis.url()));
    let worker = LawWorker::new(&direct, 0);
    enqueue(&direct, &[NewJob { tracked: true, ..job("a") }]).await;
    let waiting = tokio::spawn(async move { store.ended("a").await });
    let subscribed = async {
        while !redis.command("PUBSUB NUMSUB laws:wake:a").await.contains(":1\r\n") {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, subscribed).await.expect("it subscribes");
    proxy.cut();
    let fetched = worker.fetch_one().await;
    worker.call(&[done(&fetched, "1")], 0, |_| {}).await;
    proxy.restore();
    let ended = timeout(SOON, waiting).await.expect("it learns of it").unwrap().unwrap().expect("it is tracked");
    assert_eq!((ended.state, ended.result.as_deref()), (JobState::Done, Some(&b"1"[..])));
    let gone = async {
        while redis.command("PUBSUB NUMSUB laws:wake:a").await.contains(":1\r\n") {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, gone).await.expect("no one waits any more");
}
