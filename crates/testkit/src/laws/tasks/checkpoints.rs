//! Laws of checkpoints: the next attempt of the job has the last one.

use bytes::Bytes;
use phalanx_core::Generation;
use phalanx_core::backend::{AttemptEnd, Consequences, EnqueueOutcome, FetchedJob, NewJob, Settlement};

use super::{LawWorker, SharedTasks, enqueue, failure, job, nodes, settlement};

const MINUTE_MS: u64 = 60_000;

async fn keep(store: &SharedTasks, of: Generation, job: &FetchedJob, value: &'static str, ttl_ms: u64) -> bool {
    let kept = store.keep_checkpoint(of, (&job.attempt, "a"), Bytes::from_static(value.as_bytes()), ttl_ms).await;
    kept.expect("the backend answers")
}

async fn kept(store: &SharedTasks) -> Option<Bytes> {
    store.checkpoint("a").await.expect("the backend answers")
}

fn with_checkpoint(job: &FetchedJob, end: AttemptEnd) -> Settlement {
    let consequences = Some(Box::new(Consequences { has_checkpoint: true, ..Consequences::default() }));
    Settlement { consequences, ..settlement(job, end) }
}

/// Also where its node died, and where the job failed and is retried by hand; not once it has succeeded.
pub async fn a_checkpoint_is_kept_until_its_job_succeeds(store: SharedTasks) {
    enqueue(&store, &[job("a")]).await;
    let (worker, dying) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    assert_eq!(kept(&store).await, None);
    let fetched = dying.fetch_one().await;
    assert!(keep(&store, nodes()[1], &fetched, "1", MINUTE_MS).await);
    assert!(keep(&store, nodes()[1], &fetched, "2", MINUTE_MS).await);
    store.give_back(nodes()[0], nodes()[1], "w").await.expect("the backend answers");
    assert!(!keep(&store, nodes()[1], &fetched, "late", MINUTE_MS).await, "its attempt is over");
    for end in [AttemptEnd::Retry { due_ms: 0 }, AttemptEnd::GiveBack] {
        let fetched = worker.fetch_one().await;
        worker.call(&[with_checkpoint(&fetched, end)], 0, |_| {}).await;
        assert_eq!(kept(&store).await.as_deref(), Some(&b"2"[..]));
    }
    let fetched = worker.fetch_one().await;
    worker.call(&[with_checkpoint(&fetched, failure(&fetched))], 0, |_| {}).await;
    assert_eq!(kept(&store).await.as_deref(), Some(&b"2"[..]));
    for end in [AttemptEnd::Done, AttemptEnd::Dropped] {
        enqueue(&store, &[job("a")]).await;
        let fetched = worker.fetch_one().await;
        assert!(keep(&store, nodes()[0], &fetched, "3", MINUTE_MS).await);
        worker.call(&[with_checkpoint(&fetched, end)], 0, |_| {}).await;
        assert_eq!(kept(&store).await, None);
        assert!(!keep(&store, nodes()[0], &fetched, "late", MINUTE_MS).await);
    }
}

/// Fails the only job that is there, with a checkpoint.
async fn fail(store: &SharedTasks, worker: &LawWorker) {
    let fetched = worker.fetch_one().await;
    assert!(keep(store, nodes()[0], &fetched, "1", MINUTE_MS).await);
    worker.call(&[with_checkpoint(&fetched, failure(&fetched))], 0, |_| {}).await;
    assert!(kept(store).await.is_some());
}

/// An id that an enqueuer chose may come again once it is forgotten.
pub async fn a_checkpoint_is_not_handed_to_a_later_job_of_its_id(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[job("a")]).await;
    fail(&store, &worker).await;
    let chosen = [NewJob { digest: Some([1; 16]), ..job("a") }];
    assert_eq!(enqueue(&store, &chosen).await, [EnqueueOutcome::Stored]);
    assert_eq!(kept(&store).await, None);
    fail(&store, &worker).await;
    assert_eq!(enqueue(&store, &chosen).await, [EnqueueOutcome::Existing("a".into())]);
    assert!(kept(&store).await.is_some(), "it is the same job");
}

/// Its id follows from that of its job, which may come again.
pub async fn a_checkpoint_is_not_handed_to_a_later_follow_on_job_of_its_id(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[job("a")]).await;
    fail(&store, &worker).await;
    enqueue(&store, &[job("parent")]).await;
    let follow_ups = vec![NewJob { digest: Some([1; 16]), ..job("a") }];
    let consequences = Some(Box::new(Consequences { follow_ups, ..Consequences::default() }));
    let end = Settlement { consequences, ..settlement(&worker.fetch_one().await, AttemptEnd::Done) };
    assert_eq!(worker.call(&[end], 1, |_| {}).await.fetched.len(), 1);
    assert_eq!(kept(&store).await, None);
}

/// Whatever becomes of its job.
pub async fn a_checkpoint_has_an_end(store: SharedTasks) {
    enqueue(&store, &[job("a")]).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch_one().await;
    assert!(keep(&store, nodes()[0], &fetched, "1", 20).await);
    crate::laws::eventually("it is gone", || async { kept(&store).await.is_none() }).await;
}
