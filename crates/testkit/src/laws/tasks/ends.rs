//! Laws of the ends of tracked jobs, which callers wait for.

use std::future::Future;
use std::time::Duration;

use phalanx_core::backend::{
    AttemptEnd, DeleteOutcome, FailedTake, GiveBackOutcome, JobReport, JobState, NewJob, ResultMissing, SettleOutcome,
    Settlement, StoredStatus, TakeOutcome,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{LawWorker, SharedTasks, enqueue, failure, job, nodes, now_ms, settlement};
use crate::laws::SOON;

fn tracked(id: &str) -> NewJob {
    NewJob { tracked: true, ..job(id) }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("it does not wait for ever")
}

async fn ended(store: &SharedTasks, id: &str) -> Option<StoredStatus> {
    soon(store.ended(id)).await.expect("the backend answers")
}

/// A caller that waits, and does so since before this returns, as far as that can be known.
async fn waiter(store: &SharedTasks, id: &'static str) -> JoinHandle<Option<JobState>> {
    let store = store.clone();
    let mut waiting = tokio::spawn(async move { ended(&store, id).await.map(|status| status.state) });
    let early = timeout(Duration::from_millis(20), &mut waiting).await;
    assert!(early.is_err(), "the job is not over: {early:?}");
    waiting
}

async fn settle_with(worker: &LawWorker, settlement: Settlement, report: JobReport) {
    let settlement = Settlement { report: Some(Box::new(report)), ..settlement };
    assert_eq!(worker.call(&[settlement], 0, |_| {}).await.settled, [SettleOutcome::Accepted]);
}

fn report(id: &str) -> JobReport {
    JobReport { id: id.into(), progress: None, result: None, missing: None }
}

/// With its result, and for those who come later as well.
pub async fn the_end_of_a_tracked_job_reaches_those_who_wait(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[tracked("a"), tracked("b"), tracked("c"), job("d")]).await;
    let waiting = [waiter(&store, "a").await, waiter(&store, "a").await];
    let (failing, dropped) = (waiter(&store, "b").await, waiter(&store, "c").await);
    let fetched = worker.fetch(3).await;
    worker.settle(&fetched[0], AttemptEnd::Retry { due_ms: 0 }).await;
    let again = worker.fetch(2).await.into_iter().find(|job| super::id_of(job) == "a").expect("it waits");
    let result = JobReport { result: Some("5".into()), ..report("a") };
    settle_with(&worker, settlement(&again, AttemptEnd::Done), result).await;
    settle_with(&worker, settlement(&fetched[1], failure(&fetched[1])), report("b")).await;
    settle_with(&worker, settlement(&fetched[2], AttemptEnd::Dropped), report("c")).await;
    for waiting in waiting {
        assert_eq!(soon(waiting).await.expect("no panic"), Some(JobState::Done));
    }
    assert_eq!(soon(failing).await.expect("no panic"), Some(JobState::Failed));
    assert_eq!(soon(dropped).await.expect("no panic"), Some(JobState::Dropped));
    let expected = StoredStatus {
        state: JobState::Done,
        attempt: Some((nodes()[0], 2)),
        progress: None,
        result: Some("5".into()),
        missing: None,
    };
    assert_eq!(ended(&store, "a").await, Some(expected.clone()));
    assert_eq!(super::status(&store, "a").await, expected);
    assert_eq!(super::state(&store, "c").await, JobState::Dropped);
}

/// The store may have come back empty: the node that runs it knows that its task is tracked.
pub async fn the_end_of_a_tracked_job_that_is_listed_again_is_awaited(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[tracked("a"), tracked("b"), job("c")]).await;
    let fetched = worker.fetch(3).await;
    for lost in &fetched {
        settle_with(&worker, settlement(lost, AttemptEnd::Dropped), report(&super::id_of(lost))).await;
    }
    for _ in 0..2 {
        let tracked = ["a".into(), "b".into()];
        store.list_again(nodes()[0], &fetched, &[], &tracked).await.expect("the backend answers");
    }
    let waiting = [waiter(&store, "a").await, waiter(&store, "b").await];
    assert_eq!(ended(&store, "c").await, None);
    for job in &fetched {
        settle_with(&worker, settlement(job, AttemptEnd::Done), report(&super::id_of(job))).await;
    }
    for waiting in waiting {
        assert_eq!(soon(waiting).await.expect("no panic"), Some(JobState::Done));
    }
}

/// Nor an unknown one. It is known at once.
pub async fn the_end_of_a_job_that_is_not_tracked_is_not_awaited(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[job("a"), NewJob { tracked: true, ..job("beside") }]).await;
    assert_eq!(ended(&store, "a").await, None);
    assert_eq!(ended(&store, "never").await, None);
    let fetched = worker.fetch(1).await.remove(0);
    assert!(
        store
            .report(nodes()[0], &fetched.attempt, &JobReport { progress: Some("1".into()), ..report("a") }, 60_000)
            .await
            .expect("the backend answers")
    );
    settle_with(&worker, settlement(&fetched, AttemptEnd::Dropped), report("a")).await;
    assert_eq!(ended(&store, "a").await, None);
}

/// The job is done all the same.
pub async fn a_result_that_is_missing_says_why(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[tracked("a")]).await;
    let fetched = worker.fetch_one().await;
    let large = JobReport { missing: Some(ResultMissing::TooLarge), ..report("a") };
    settle_with(&worker, settlement(&fetched, AttemptEnd::Done), large).await;
    let done = ended(&store, "a").await.expect("it is tracked");
    assert_eq!((done.state, done.result, done.missing), (JobState::Done, None, Some(ResultMissing::TooLarge)));
}

/// The job ends in no attempt: it is deleted, was parked for too long, or is convicted.
pub async fn the_end_of_a_job_that_no_attempt_ends_is_awaited_too(store: SharedTasks) {
    let (worker, other) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    let later = NewJob { due_ms: Some(now_ms() + 60_000), ..tracked("later") };
    enqueue(&store, &[later, tracked("parked")]).await;
    let (deleted, parked) = (waiter(&store, "later").await, waiter(&store, "parked").await);
    assert_eq!(store.delete("later").await.expect("the backend answers"), DeleteOutcome::Deleted);
    assert_eq!(soon(deleted).await.expect("no panic"), Some(JobState::Dropped));
    let fetched = worker.fetch_one().await;
    worker.settle(&fetched, AttemptEnd::Park { class: "c".into() }).await;
    assert_eq!(store.fail_parked(now_ms() + 1000, "w", &[]).await.expect("the backend answers"), 1);
    assert_eq!(soon(parked).await.expect("no panic"), Some(JobState::Failed));
    enqueue(&store, &[tracked("poison")]).await;
    let convicted = waiter(&store, "poison").await;
    for _ in 0..3 {
        other.fetch_one().await;
        let given = store.give_back(nodes()[0], nodes()[1], "w").await.expect("the backend answers");
        assert!(matches!(given, GiveBackOutcome::Some(_)), "{given:?}");
        other.skip_tokens(1);
    }
    assert_eq!(soon(convicted).await.expect("no panic"), Some(JobState::Failed));
}

/// Its earlier end is forgotten.
pub async fn a_failed_job_that_runs_again_is_awaited_anew(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[tracked("a")]).await;
    let fetched = worker.fetch_one().await;
    settle_with(&worker, settlement(&fetched, failure(&fetched)), report("a")).await;
    assert_eq!(ended(&store, "a").await.map(|status| status.state), Some(JobState::Failed));
    let record = store.failed(0, 1).await.expect("the backend answers").remove(0);
    let retried = [FailedTake { record, retry: Some(tracked("a")) }];
    assert_eq!(store.take_failed(&retried).await.expect("the backend answers"), [TakeOutcome::Taken]);
    let waiting = waiter(&store, "a").await;
    let fetched = worker.fetch_one().await;
    settle_with(&worker, settlement(&fetched, AttemptEnd::Done), report("a")).await;
    assert_eq!(soon(waiting).await.expect("no panic"), Some(JobState::Done));
    // One that is not tracked is not by its retry either.
    enqueue(&store, &[job("b")]).await;
    let fetched = worker.fetch_one().await;
    worker.settle(&fetched, failure(&fetched)).await;
    let record = store.failed(0, 1).await.expect("the backend answers").remove(0);
    let retried = [FailedTake { record, retry: Some(job("b")) }];
    assert_eq!(store.take_failed(&retried).await.expect("the backend answers"), [TakeOutcome::Taken]);
    assert_eq!(ended(&store, "b").await, None);
}
