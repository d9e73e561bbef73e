//! What jobs report, in Redis: how long it is kept, on a full Redis, under a spoilt key.

use std::sync::Arc;
use std::time::Duration;

use phalanx_core::backend::{
    AttemptEnd, BackendError, FetchedJob, JobReport, JobState, NewJob, REPORT_TTL_MS, SettleOutcome, Settlement,
    StoredStatus, TaskStore,
};
use phalanx_testkit::laws::tasks::{LawWorker, enqueue, job, nodes, settlement};
use phalanx_testkit::{Proxy, Redis, check_time};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

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

/// A caller that waits for the end of the tracked job `a`, once it has subscribed.
async fn waiter(store: &Arc<dyn TaskStore>, redis: &Redis) -> JoinHandle<Option<StoredStatus>> {
    let store = store.clone();
    let waiting = tokio::spawn(async move { store.ended("a").await.expect("the backend answers") });
    let subscribed = async {
        while !redis.command("PUBSUB NUMSUB laws:wake:a").await.contains(":1\r\n") {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, subscribed).await.expect("it subscribes");
    waiting
}

/// Its node lists it again, later than the caller looks for it.
#[tokio::test]
async fn a_caller_that_waits_learns_of_an_end_after_redis_came_back_empty() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[NewJob { tracked: true, ..job("a") }]).await;
    let fetched = [worker.fetch_one().await];
    let waiting = waiter(&store, &redis).await;
    redis.command("FLUSHALL").await;
    super::prepare(&redis).await;
    let looks = redis.ran("hgetall").await;
    redis.command("CLIENT KILL TYPE pubsub").await;
    let looked = async {
        while redis.ran("hgetall").await == looks {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, looked).await.expect("it looks for its job");
    store.list_again(nodes()[0], &fetched, &[], &["a".into()]).await.unwrap();
    assert!(ttl_ms(&redis).await > 6 * 24 * 60 * 60 * 1000);
    // What was reported since then is kept, also where the node lists it once more.
    assert!(store.report(nodes()[0], &fetched[0].attempt, &progress("1"), 5_000).await.unwrap());
    redis.command(&format!("DEL phalanx:laws:running:{}", nodes()[0])).await;
    store.list_again(nodes()[0], &fetched, &[], &["a".into()]).await.unwrap();
    assert_eq!(store.status("a").await.unwrap().progress.as_deref(), Some(&b"1"[..]));
    worker.call(&[done(&fetched[0], "1")], 0, |_| {}).await;
    let ended = timeout(SOON, waiting).await.expect("it learns of it").unwrap().expect("it is tracked");
    assert_eq!((ended.state, ended.result.as_deref()), (JobState::Done, Some(&b"1"[..])));
}

/// If no node has it, it is not listed again.
#[tokio::test]
async fn a_caller_that_waits_learns_that_its_job_is_not_known_any_more() {
    let (store, redis) = super::store().await;
    enqueue(&store, &[NewJob { tracked: true, ..job("a") }]).await;
    let waiting = waiter(&store, &redis).await;
    redis.command("FLUSHALL").await;
    let since = Instant::now();
    redis.command("CLIENT KILL TYPE pubsub").await;
    let ended = timeout(3 * SOON, waiting).await.expect("it does not wait for ever").unwrap();
    assert_eq!(ended, None);
    check_time("a caller learns that its job is lost", since.elapsed(), Duration::from_secs(15));
}

/// It costs its own job alone, which is not tracked then.
#[tokio::test]
async fn attempts_are_listed_again_where_a_report_is_spoilt() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    let fetched = super::running(&store, &worker, &["a", "b"]).await;
    redis.command("FLUSHALL").await;
    super::prepare(&redis).await;
    redis.command("SET phalanx:laws:reports:a x").await;
    store.list_again(nodes()[0], &fetched, &[], &["a".into(), "b".into()]).await.unwrap();
    assert_eq!(store.attempts(nodes()[0]).await.unwrap(), fetched);
    assert_eq!(redis.command("HGET phalanx:laws:reports:b tracked").await, "$1\r\n1\r\n");
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
