//! Laws of what operators do: failed jobs, pauses, deletion, states and numbers.

use bytes::Bytes;
use phalanx_core::backend::{
    AttemptEnd, DeleteOutcome, EnqueueOutcome, FailedTake, JobState, MOVE_BATCH, NewJob, SettleOutcome, TakeOutcome,
};
use phalanx_core::job::FailedJob;

use super::{LawWorker, SharedTasks, claiming, counters, enqueue, failure, id_of, ids_of, job, nodes, now_ms, state};
use crate::laws::eventually;

async fn take(store: &SharedTasks, record: &Bytes, retry: Option<NewJob>) -> TakeOutcome {
    let job = FailedTake { record: record.clone(), retry };
    store.take_failed(&[job]).await.expect("the backend answers").remove(0)
}

/// Each with an outcome of its own.
pub async fn a_hundred_failed_jobs_are_taken_at_once(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    let name = |number: usize| format!("{number:03}");
    let jobs: Vec<NewJob> = (0..MOVE_BATCH).map(|number| claiming(&name(number), &name(number))).collect();
    enqueue(&store, &jobs).await;
    let mut left = jobs.len();
    while left > 0 {
        for fetched in worker.fetch(32).await {
            worker.settle(&fetched, failure(&fetched)).await;
            left -= 1;
        }
    }
    let failed = store.failed(0, 999).await.expect("the backend answers");
    enqueue(&store, &[claiming("other", "001")]).await;
    take(&store, &failed[2], None).await;
    let takes: Vec<FailedTake> = failed
        .iter()
        .zip(&jobs)
        .map(|(record, job)| FailedTake { record: record.clone(), retry: Some(job.clone()) })
        .collect();
    let outcomes = store.take_failed(&takes).await.expect("the backend answers");
    for (number, outcome) in outcomes.iter().enumerate() {
        let expected = match number {
            1 => TakeOutcome::Claimed("other".into()),
            2 => TakeOutcome::NotFound,
            _ => TakeOutcome::Taken,
        };
        assert_eq!(*outcome, expected, "{number}");
    }
    assert_eq!(store.failed(0, 9).await.expect("the backend answers"), failed[1..2]);
    let mut ids = Vec::new();
    while ids.len() < MOVE_BATCH - 1 {
        ids.extend(ids_of(&worker.fetch(32).await));
    }
    let expected =
        std::iter::once("other".to_owned()).chain((0..MOVE_BATCH).filter(|it| ![1, 2].contains(it)).map(name));
    assert!(ids.iter().cloned().eq(expected), "{ids:?}");
}

/// By its record, as it is listed.
pub async fn a_failed_job_is_listed_removed_and_retried(store: SharedTasks) {
    enqueue(&store, &["a", "b", "c"].map(job)).await;
    let worker = LawWorker::new(&store, 0);
    for fetched in worker.fetch(3).await {
        let end = failure(&fetched);
        assert_eq!(worker.settle(&fetched, end).await, SettleOutcome::Accepted);
    }
    let failed = store.failed(0, 10).await.expect("the backend answers");
    let ids: Vec<_> = failed.iter().map(|record| FailedJob::read(record).id.expect("it has an id")).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(store.failed(1, 1).await.expect("the backend answers"), failed[1..2]);
    assert_eq!(store.failed(3, 1).await.expect("the backend answers"), Vec::<Bytes>::new());
    for outcome in [TakeOutcome::Taken, TakeOutcome::NotFound] {
        assert_eq!(take(&store, &failed[1], None).await, outcome);
    }
    for outcome in [TakeOutcome::Taken, TakeOutcome::NotFound] {
        let retry = Some(job("c"));
        assert_eq!(take(&store, &failed[2], retry).await, outcome);
    }
    assert_eq!(store.failed(0, 10).await.expect("the backend answers"), failed[..1]);
    let again = worker.fetch_one().await;
    assert_eq!((id_of(&again).as_str(), again.attempt.counters), ("c", counters(1, 0)));
}

/// Another job may have it by then: then the failed one stays.
pub async fn a_retry_of_a_failed_job_needs_its_claim(store: SharedTasks) {
    enqueue(&store, &[claiming("a", "k")]).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch_one().await;
    worker.settle(&fetched, failure(&fetched)).await;
    enqueue(&store, &[claiming("b", "k")]).await;
    let record = store.failed(0, 1).await.expect("the backend answers").remove(0);
    let retry = async || take(&store, &record, Some(claiming("a", "k"))).await;
    assert_eq!(retry().await, TakeOutcome::Claimed("b".into()));
    assert_eq!(store.failed(0, 9).await.expect("the backend answers").len(), 1);
    let other = worker.fetch_one().await;
    worker.settle(&other, AttemptEnd::Done).await;
    assert_eq!(retry().await, TakeOutcome::Taken);
    assert_eq!(enqueue(&store, &[claiming("c", "k")]).await, [EnqueueOutcome::Existing("a".into())]);
}

/// In the whole cluster, until it is resumed, which wakes workers.
pub async fn a_paused_queue_keeps_its_jobs(store: SharedTasks) {
    enqueue(&store, &[job("a"), NewJob { queue: "other".into(), ..job("b") }]).await;
    store.set_paused("q", true).await.expect("the backend answers");
    let worker = LawWorker::serving(&store, nodes()[0], &["q", "other"]);
    let reply = worker.call(&[], 9, |_| {}).await;
    assert_eq!((ids_of(&reply.fetched), reply.has_more), (vec!["b".to_owned()], false));
    assert_eq!(store.stats().await.expect("the backend answers").paused, ["q"]);
    store.set_paused("q", false).await.expect("the backend answers");
    assert_eq!(ids_of(&worker.fetch(9).await), ["a"]);
    assert!(store.stats().await.expect("the backend answers").paused.is_empty());
}

/// At once.
pub async fn a_delayed_job_is_deleted_with_its_claim(store: SharedTasks) {
    enqueue(&store, &[NewJob { due_ms: Some(now_ms() + 60_000), ..claiming("a", "k") }]).await;
    assert_eq!(store.delete("a").await.expect("the backend answers"), DeleteOutcome::Deleted);
    assert_eq!(store.delete("a").await.expect("the backend answers"), DeleteOutcome::NotFound);
    assert_eq!(store.stats().await.expect("the backend answers").delayed, 0);
    assert_eq!(enqueue(&store, &[claiming("b", "k")]).await, [EnqueueOutcome::Stored]);
}

/// The worker that fetches it drops it.
pub async fn a_waiting_job_that_was_deleted_is_marked_when_it_is_fetched(store: SharedTasks) {
    enqueue(&store, &["a", "b"].map(job)).await;
    assert_eq!(store.delete("b").await.expect("the backend answers"), DeleteOutcome::Marked);
    assert_eq!(store.delete("c").await.expect("the backend answers"), DeleteOutcome::NotFound);
    let worker = LawWorker::new(&store, 0);
    let reply = worker.call(&[], 5, |_| {}).await;
    let b = reply.fetched.iter().find(|job| id_of(job) == "b").expect("it was fetched");
    assert_eq!((reply.fetched.len(), &reply.deleted[..]), (2, &[b.attempt.token][..]));
    // The answer may be lost: who reads the list of attempts learns it as well.
    let deleted = store.deleted_of(nodes()[0], &reply.fetched).await.expect("the backend answers");
    assert_eq!(deleted, reply.deleted);
    assert_eq!(worker.settle(b, AttemptEnd::Dropped).await, SettleOutcome::Accepted);
    assert_eq!(store.delete("b").await.expect("the backend answers"), DeleteOutcome::NotFound);
}

/// By its node.
pub async fn a_running_job_that_was_deleted_is_to_be_cancelled(store: SharedTasks) {
    enqueue(&store, &[job("a")]).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch_one().await;
    let outcome = store.delete("a").await.expect("the backend answers");
    assert_eq!(outcome, DeleteOutcome::Cancelling(nodes()[0]));
    assert_eq!(worker.settle(&fetched, AttemptEnd::Dropped).await, SettleOutcome::Accepted);
    assert_eq!(store.delete("a").await.expect("the backend answers"), DeleteOutcome::NotFound);
}

/// From their list.
pub async fn a_failed_job_is_deleted(store: SharedTasks) {
    enqueue(&store, &["a", "b"].map(job)).await;
    let worker = LawWorker::new(&store, 0);
    for fetched in worker.fetch(2).await {
        worker.settle(&fetched, failure(&fetched)).await;
    }
    assert_eq!(store.delete("a").await.expect("the backend answers"), DeleteOutcome::Deleted);
    assert_eq!(store.delete("a").await.expect("the backend answers"), DeleteOutcome::NotFound);
    let failed = store.failed(0, 9).await.expect("the backend answers");
    assert_eq!((failed.len(), FailedJob::read(&failed[0]).id.as_deref()), (1, Some("b")));
}

/// From its enqueue to its end.
pub async fn the_state_of_a_job_follows_it(store: SharedTasks) {
    let (worker, state) = (LawWorker::new(&store, 0), async |id: &str| state(&store, id).await);
    let due_ms = now_ms() + 300;
    assert_eq!(state("a").await, JobState::Unknown);
    enqueue(&store, &[NewJob { due_ms: Some(due_ms), ..job("a") }]).await;
    assert_eq!(state("a").await, JobState::Delayed(due_ms));
    eventually("it is due", || async { store.promote().await.expect("the backend answers").moved == 1 }).await;
    assert_eq!(state("a").await, JobState::Waiting);
    let fetched = worker.fetch_one().await;
    assert_eq!(state("a").await, JobState::Running(nodes()[0]));
    let later = now_ms() + 60_000;
    worker.settle(&fetched, AttemptEnd::Retry { due_ms: later }).await;
    assert_eq!(state("a").await, JobState::Delayed(later));
    enqueue(&store, &["b", "c"].map(job)).await;
    for (fetched, end) in worker.fetch(2).await.iter().zip([AttemptEnd::Done, AttemptEnd::Failed { record: "".into() }])
    {
        let end = if end == AttemptEnd::Done { end } else { failure(fetched) };
        worker.settle(fetched, end).await;
    }
    assert_eq!((state("b").await, state("c").await), (JobState::Done, JobState::Failed));
    let record = store.failed(0, 1).await.expect("the backend answers").remove(0);
    take(&store, &record, None).await;
    assert_eq!(state("c").await, JobState::Unknown);
}

/// Each job is counted at one place.
pub async fn the_numbers_of_the_queue_add_up(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    let of = |id: &str, queue: &str| NewJob { queue: queue.into(), ..job(id) };
    let delayed = NewJob { due_ms: Some(now_ms() + 60_000), ..job("f") };
    enqueue(&store, &[job("a"), job("b"), job("c"), job("d"), job("e"), of("g", "other"), delayed]).await;
    let fetched = worker.fetch(4).await;
    worker.settle(&fetched[0], AttemptEnd::Done).await;
    worker.settle(&fetched[1], failure(&fetched[1])).await;
    worker.settle(&fetched[2], AttemptEnd::Retry { due_ms: 0 }).await;
    let stats = store.stats().await.expect("the backend answers");
    assert_eq!(stats.queues, [("other".to_owned(), 1), ("q".to_owned(), 2)]);
    let numbers = [stats.running, stats.delayed, stats.parked, stats.failed, stats.processed];
    assert_eq!(numbers, [1, 1, 0, 1, 1]);
}

/// All of a queue, in parts.
pub async fn waiting_jobs_are_listed(store: SharedTasks) {
    enqueue(&store, &["a", "b", "c", "d"].map(job)).await;
    let worker = LawWorker::new(&store, 0);
    let first = worker.fetch(1).await.remove(0);
    worker.settle(&first, AttemptEnd::Retry { due_ms: 0 }).await;
    let all = store.waiting("q", 0, 9).await.expect("the backend answers");
    assert_eq!(all, ["a", "b", "c", "d"].map(|id| job(id).text));
    for (skip, limit) in [(0, 2), (1, 2), (3, 9), (4, 1), (0, 0)] {
        let expected = &all[skip..(skip + limit).min(4)];
        assert_eq!(store.waiting("q", skip, limit).await.expect("the backend answers"), expected, "{skip} {limit}");
    }
}
