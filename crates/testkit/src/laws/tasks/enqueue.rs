//! Laws of storing jobs: ids, claims, when they are due.

use phalanx_core::backend::{AttemptEnd, EnqueueOutcome, NewJob, SettleOutcome, UniqueClaim};
use tokio::time::timeout;

use super::{LawWorker, SharedTasks, claiming, enqueue, ids_of, job, now_ms};
use crate::laws::{SOON, eventually};

/// The same content may be enqueued again and is stored once, for as long as a day; another content is refused.
pub async fn an_id_names_one_content(store: SharedTasks) {
    let chosen = |digest: u8| NewJob { digest: Some([digest; 16]), ..job("mine") };
    let existing = || EnqueueOutcome::Existing("mine".into());
    assert_eq!(
        enqueue(&store, &[chosen(1), chosen(1), chosen(2)]).await,
        [EnqueueOutcome::Stored, existing(), EnqueueOutcome::Conflict]
    );
    assert_eq!(enqueue(&store, &[chosen(2)]).await, [EnqueueOutcome::Conflict]);
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch_one().await;
    worker.settle(&fetched, AttemptEnd::Done).await;
    assert_eq!(enqueue(&store, &[chosen(1)]).await, [existing()], "also after its end");
    assert_eq!(worker.fetch(1).await.len(), 0);
}

/// Done, dropped or failed; not by a retry.
pub async fn a_claim_has_one_job_until_that_is_over(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    for (round, ends) in
        [AttemptEnd::Done, AttemptEnd::Dropped, AttemptEnd::Failed { record: "{}".into() }].into_iter().enumerate()
    {
        let [first, second] = ["a", "b"].map(|name| format!("{name}{round}"));
        assert_eq!(
            enqueue(&store, &[claiming(&first, "k"), claiming(&second, "k")]).await,
            [EnqueueOutcome::Stored, EnqueueOutcome::Existing(first.as_str().into())]
        );
        let fetched = worker.fetch_one().await;
        for end in [AttemptEnd::Retry { due_ms: 0 }, AttemptEnd::GiveBack] {
            let fetched = if end == AttemptEnd::GiveBack { worker.fetch_one().await } else { fetched.clone() };
            assert_eq!(worker.settle(&fetched, end).await, SettleOutcome::Accepted);
            let again = enqueue(&store, &[claiming(&second, "k")]).await;
            assert_eq!(again, [EnqueueOutcome::Existing(first.as_str().into())]);
        }
        let fetched = worker.fetch_one().await;
        assert_eq!(worker.settle(&fetched, ends).await, SettleOutcome::Accepted);
        assert_eq!(enqueue(&store, &[claiming(&second, "k"), claiming("other", "l")]).await[0], EnqueueOutcome::Stored);
        for job in worker.fetch(2).await {
            worker.settle(&job, AttemptEnd::Done).await;
        }
    }
}

/// It expired, and its job is over all the same; the claim of the other job stays.
pub async fn a_claim_that_another_job_has_by_then_is_reported(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    let brief = UniqueClaim { key: "k".into(), ttl_ms: 5 };
    enqueue(&store, &[NewJob { unique: Some(brief), ..claiming("a", "k") }]).await;
    let fetched = worker.fetch_one().await;
    eventually("the claim expires", || async {
        enqueue(&store, &[claiming("b", "k")]).await == [EnqueueOutcome::Stored]
    })
    .await;
    assert_eq!(worker.settle(&fetched, AttemptEnd::Done).await, SettleOutcome::ClaimLost);
    assert_eq!(worker.settle(&fetched, AttemptEnd::Done).await, SettleOutcome::Superseded);
    assert_eq!(enqueue(&store, &[claiming("c", "k")]).await, [EnqueueOutcome::Existing("b".into())]);
}

/// And by no other; its own end then releases nothing that another job has claimed since.
pub async fn a_claim_is_released_by_the_job_that_has_it(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[claiming("a", "k")]).await;
    let fetched = worker.fetch_one().await;
    let release = async |key: &str, id: &str| store.release(key, id).await.expect("the backend answers");
    assert!(!release("k", "b").await && !release("l", "a").await);
    assert_eq!(enqueue(&store, &[claiming("b", "k")]).await, [EnqueueOutcome::Existing("a".into())]);
    assert!(release("k", "a").await && !release("k", "a").await);
    assert_eq!(enqueue(&store, &[claiming("b", "k")]).await, [EnqueueOutcome::Stored]);
    assert_eq!(worker.settle(&fetched, AttemptEnd::Done).await, SettleOutcome::ClaimLost);
    assert_eq!(enqueue(&store, &[claiming("c", "k")]).await, [EnqueueOutcome::Existing("b".into())]);
}

/// In the order of the times; the reply to a fetch says when the next one is.
pub async fn a_job_is_fetched_when_it_is_due(store: SharedTasks) {
    let (now, worker) = (now_ms(), LawWorker::new(&store, 0));
    let at = |id: &str, due_ms: u64| NewJob { due_ms: Some(due_ms), ..job(id) };
    let far = now + 600_000;
    enqueue(&store, &[at("far", far), at("second", now + 1600), at("first", now + 1500), at("past", now - 5)]).await;
    let reply = worker.call(&[], 9, |_| {}).await;
    assert_eq!((ids_of(&reply.fetched), reply.next_due_ms), (vec!["past".to_owned()], Some(now + 1500)));
    eventually("two are due", || async {
        store.promote().await.expect("the backend answers").next_due_ms == Some(far)
    })
    .await;
    assert!(now_ms() >= now + 1600);
    let reply = worker.call(&[], 9, |_| {}).await;
    assert_eq!((ids_of(&reply.fetched), reply.next_due_ms), (vec!["first".into(), "second".into()], Some(far)));
    assert_eq!(store.promote().await.expect("the backend answers").moved, 0);
}

/// A request that arrives late must not store what its sender has given up.
pub async fn an_enqueue_after_its_deadline_stores_nothing(store: SharedTasks) {
    assert!(store.enqueue(&[job("late")], 1000).await.is_err());
    assert_eq!(LawWorker::new(&store, 0).fetch(1).await.len(), 0);
}

/// A worker that waits for jobs need not ask again and again.
pub async fn an_enqueue_wakes(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    let is_woken = || async { timeout(std::time::Duration::from_millis(200), store.woken()).await.is_ok() };
    // The first ones may be for the subscription itself.
    while is_woken().await {}
    for round in ["a", "b"] {
        enqueue(&store, &[job(round)]).await;
        timeout(SOON, store.woken()).await.expect("a job was added");
        let fetched = worker.fetch_one().await;
        worker.settle(&fetched, AttemptEnd::Done).await;
    }
}
