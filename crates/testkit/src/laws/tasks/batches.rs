//! Laws of batches: each member counts once, whatever ends it, and the last one enqueues the completion.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use phalanx_core::backend::{
    AttemptEnd, BatchRefusal, BatchStage, DeleteOutcome, EnqueueOutcome, FailedTake, JobReport, JobState, LimitedQueue,
    NewBatch, NewJob, QueueLimits, SealOutcome, SettleOutcome, Settlement, StoredBatch, TakeOutcome, UniqueClaim,
};
use tokio::time::timeout;

use super::{LawWorker, NEVER_US, SharedTasks, enqueue, failure, ids_of, job, nodes, now_ms, settlement};
use crate::laws::{SOON, eventually};

/// A time that does not come.
const NEVER_MS: u64 = 4_000_000_000_000;

/// The queue `q` with a limit of one.
static ONE: LazyLock<[LimitedQueue; 1]> = LazyLock::new(|| {
    let limits = QueueLimits { running: Some(1), ..QueueLimits::NONE };
    [LimitedQueue::new("q", limits)]
});

fn member(id: &str) -> NewJob {
    let text = format!(r#"{{"class":"c","queue":"q","args":[],"id":"{id}","batch":"b"}}"#);
    NewJob { text: text.into(), batch: Some("b".into()), ..job(id) }
}

/// Creates the batch `b` with the completion `end` in the queue `q`.
async fn create(store: &SharedTasks, deadline_ms: u64) {
    let batch = NewBatch { id: "b".into(), deadline_ms, completion: Some(job("end")) };
    assert_eq!(store.create_batch(&batch, NEVER_US).await.expect("the backend answers"), None);
}

async fn add(store: &SharedTasks, ids: &[&str]) {
    let jobs: Vec<NewJob> = ids.iter().map(|id| member(id)).collect();
    assert_eq!(enqueue(store, &jobs).await, vec![EnqueueOutcome::Stored; ids.len()]);
}

async fn seal(store: &SharedTasks) -> StoredBatch {
    match store.seal_batch("b").await.expect("the backend answers") {
        SealOutcome::Sealed(stored) => stored,
        SealOutcome::Refused(refusal) => panic!("{refusal:?}"),
    }
}

/// The stage of the batch, and how many members it has, are done, failed, and were deleted.
async fn counts(store: &SharedTasks) -> (BatchStage, [u64; 4]) {
    let stored = store.batch("b").await.expect("the backend answers").expect("there is a batch");
    assert_eq!(stored.completion, Some(Arc::from("end")));
    (stored.stage, [stored.total, stored.done, stored.failed, stored.deleted])
}

/// The settlement comes first in a call, so the completion is there for the fetch behind it.
pub async fn the_call_that_settles_the_last_member_fetches_the_completion(store: SharedTasks) {
    create(&store, NEVER_MS).await;
    add(&store, &["a", "b"]).await;
    add(&store, &["c"]).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch(9).await;
    assert_eq!(ids_of(&fetched), ["a", "b", "c"]);
    assert_eq!(counts(&store).await, (BatchStage::Open, [3, 0, 0, 0]));
    assert_eq!(store.stats().await.expect("the backend answers").delayed, 0, "its deadline is no job");
    assert_eq!(seal(&store).await.stage, BatchStage::Sealed);
    assert_eq!(worker.settle(&fetched[0], AttemptEnd::Done).await, SettleOutcome::Accepted);
    assert_eq!(worker.settle(&fetched[1], failure(&fetched[1])).await, SettleOutcome::Accepted);
    assert_eq!(counts(&store).await, (BatchStage::Sealed, [3, 1, 1, 0]));
    let reply = worker.call(&[settlement(&fetched[2], AttemptEnd::Dropped)], 1, |_| {}).await;
    assert_eq!(ids_of(&reply.fetched), ["end"]);
    assert_eq!(reply.fetched[0].text, job("end").text);
    assert_eq!(counts(&store).await, (BatchStage::Finished, [3, 1, 1, 1]));
    let next_due_ms = worker.call(&[], 0, |_| {}).await.next_due_ms;
    assert_eq!(next_due_ms, None, "its deadline is no more");
}

/// In the same call, too.
pub async fn many_members_of_a_batch_are_settled_at_once(store: SharedTasks) {
    create(&store, NEVER_MS).await;
    let ids: Vec<String> = (0..32).map(|number| number.to_string()).collect();
    add(&store, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    seal(&store).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch(32).await;
    let ends: Vec<_> = fetched.iter().map(|job| settlement(job, AttemptEnd::Done)).collect();
    let reply = worker.call(&ends, 2, |_| {}).await;
    assert_eq!((reply.settled, ids_of(&reply.fetched)), (vec![SettleOutcome::Accepted; 32], vec!["end".to_owned()]));
    assert_eq!(counts(&store).await, (BatchStage::Finished, [32, 32, 0, 0]));
}

/// Its last member may not be stored yet.
pub async fn a_batch_that_is_not_sealed_does_not_end(store: SharedTasks) {
    create(&store, NEVER_MS).await;
    add(&store, &["a"]).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch_one().await;
    worker.settle(&fetched, AttemptEnd::Done).await;
    assert_eq!(worker.fetch(9).await, []);
    assert_eq!(counts(&store).await, (BatchStage::Open, [1, 1, 0, 0]));
    assert_eq!(seal(&store).await.stage, BatchStage::Finished);
    assert_eq!(ids_of(&worker.fetch(9).await), ["end"]);
}

/// It has nothing to wait for.
pub async fn an_empty_batch_ends_when_it_is_sealed(store: SharedTasks) {
    create(&store, NEVER_MS).await;
    assert_eq!(seal(&store).await.stage, BatchStage::Finished);
    assert_eq!(ids_of(&LawWorker::new(&store, 0).fetch(9).await), ["end"]);
    assert_eq!(counts(&store).await, (BatchStage::Finished, [0; 4]));
}

/// By its last member, or at its deadline.
pub async fn a_batch_without_a_completion_ends_too(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    for (id, deadline_ms) in [("b", NEVER_MS), ("late", now_ms() + 5)] {
        let batch = NewBatch { id: id.into(), deadline_ms, completion: None };
        assert_eq!(store.create_batch(&batch, NEVER_US).await.expect("the backend answers"), None);
    }
    add(&store, &["a"]).await;
    let fetched = worker.fetch_one().await;
    let sealed = seal(&store).await;
    assert_eq!((sealed.stage, sealed.completion), (BatchStage::Sealed, None));
    assert_eq!(worker.settle(&fetched, AttemptEnd::Done).await, SettleOutcome::Accepted);
    let stage = async |id: &str| store.batch(id).await.expect("the backend answers").expect("there is a batch").stage;
    assert_eq!(stage("b").await, BatchStage::Finished);
    eventually("its deadline passes", || async {
        store.promote().await.expect("the backend answers");
        stage("late").await == BatchStage::Expired
    })
    .await;
    assert_eq!(worker.fetch(9).await, []);
}

/// A retry of one that failed reopens nothing, before the end of the batch and after.
pub async fn a_member_counts_once(store: SharedTasks) {
    create(&store, NEVER_MS).await;
    add(&store, &["a", "b"]).await;
    seal(&store).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch(2).await;
    for end in [failure(&fetched[0]), AttemptEnd::Done, failure(&fetched[0])] {
        worker.settle(&fetched[0], end).await;
    }
    let retry = async || {
        let record = store.failed(0, 1).await.expect("the backend answers").remove(0);
        let again = NewJob { text: fetched[0].text.clone(), ..job("a") };
        let taken = store.take_failed(&[FailedTake { record, retry: Some(again) }]).await;
        assert_eq!(taken.expect("the backend answers"), [TakeOutcome::Taken]);
        worker.fetch_one().await
    };
    let again = retry().await;
    assert_eq!(again.text, fetched[0].text);
    worker.settle(&again, failure(&again)).await;
    assert_eq!(counts(&store).await, (BatchStage::Sealed, [2, 0, 1, 0]));
    assert_eq!(worker.settle(&fetched[1], AttemptEnd::Done).await, SettleOutcome::Accepted);
    assert_eq!(ids_of(&worker.fetch(9).await), ["end"]);
    let again = retry().await;
    worker.settle(&again, AttemptEnd::Done).await;
    assert_eq!(counts(&store).await, (BatchStage::Finished, [2, 1, 1, 0]));
    assert_eq!(worker.fetch(9).await, []);
}

/// It has not ended.
pub async fn a_member_that_runs_again_does_not_count(store: SharedTasks) {
    create(&store, NEVER_MS).await;
    add(&store, &["a"]).await;
    seal(&store).await;
    let (worker, dying) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    for end in [AttemptEnd::Retry { due_ms: 0 }, AttemptEnd::Snooze { due_ms: now_ms() + 2 }, AttemptEnd::GiveBack] {
        eventually("it is due", || async {
            store.promote().await.expect("the backend answers");
            !store.waiting("q", 0, 1).await.expect("the backend answers").is_empty()
        })
        .await;
        let fetched = worker.fetch_one().await;
        worker.settle(&fetched, end).await;
    }
    let given_back = dying.fetch_one().await;
    store.give_back(nodes()[0], nodes()[1], "w").await.expect("the backend answers");
    assert_eq!(dying.settle(&given_back, AttemptEnd::Done).await, SettleOutcome::Superseded, "it came back");
    let fetched = worker.fetch_one().await;
    worker.settle(&fetched, AttemptEnd::Park { class: "c".into() }).await;
    assert_eq!(counts(&store).await, (BatchStage::Sealed, [1, 0, 0, 0]));
    let taken = worker.take_parked(&["c"], 1).await.expect("the backend answers").fetched;
    worker.settle(&taken[0], AttemptEnd::Done).await;
    assert_eq!(counts(&store).await, (BatchStage::Finished, [1, 1, 0, 0]));
}

/// By a deletion, a conviction, and a parking that took too long; each in the step that ends it.
pub async fn a_member_that_ends_in_no_attempt_counts(store: SharedTasks) {
    create(&store, NEVER_MS).await;
    let late = NewJob { due_ms: Some(NEVER_MS), ..member("late") };
    assert_eq!(enqueue(&store, &[late]).await, [EnqueueOutcome::Stored]);
    assert_eq!(store.delete("late").await.expect("the backend answers"), DeleteOutcome::Deleted);
    assert_eq!(counts(&store).await, (BatchStage::Open, [1, 0, 0, 1]));
    add(&store, &["poison"]).await;
    let (worker, dying) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    for _ in 0..3 {
        dying.fetch_one().await;
        store.give_back(nodes()[0], nodes()[1], "w").await.expect("the backend answers");
    }
    assert_eq!(counts(&store).await, (BatchStage::Open, [2, 0, 1, 1]));
    add(&store, &["deleted"]).await;
    dying.fetch_one().await;
    assert_eq!(store.delete("deleted").await.expect("the backend answers"), DeleteOutcome::Cancelling(nodes()[1]));
    store.give_back(nodes()[0], nodes()[1], "w").await.expect("the backend answers");
    assert_eq!(counts(&store).await, (BatchStage::Open, [3, 0, 1, 2]));
    add(&store, &["parked"]).await;
    let fetched = worker.fetch_one().await;
    worker.settle(&fetched, AttemptEnd::Park { class: "c".into() }).await;
    seal(&store).await;
    assert_eq!(store.fail_parked(NEVER_MS, "w", &[]).await.expect("the backend answers"), 1);
    assert_eq!(counts(&store).await, (BatchStage::Finished, [4, 0, 2, 2]));
    assert_eq!(ids_of(&worker.fetch(9).await), ["end"]);
}

/// Nor one that there is not, or that would be too large: nothing is stored then.
pub async fn a_batch_that_was_sealed_takes_no_members(store: SharedTasks) {
    let refused = async |expected: BatchRefusal| {
        let outcomes = enqueue(&store, &[member("x"), member("y")]).await;
        assert_eq!(outcomes, vec![EnqueueOutcome::NoMember(expected); 2]);
        assert_eq!(store.waiting("q", 0, 9).await.expect("the backend answers").len(), 0);
    };
    refused(BatchRefusal::Unknown).await;
    let unknown = store.seal_batch("b").await.expect("the backend answers");
    assert_eq!(unknown, SealOutcome::Refused(BatchRefusal::Unknown));
    assert_eq!(store.batch("b").await.expect("the backend answers"), None);
    create(&store, NEVER_MS).await;
    let late = store.create_batch(&NewBatch { id: "c".into(), deadline_ms: NEVER_MS, completion: None }, 1000).await;
    assert!(late.is_err() && store.batch("c").await.expect("the backend answers").is_none(), "{late:?}");
    add(&store, &["a"]).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch_one().await;
    seal(&store).await;
    for _ in 0..2 {
        refused(BatchRefusal::Sealed).await;
        let again = store.seal_batch("b").await.expect("the backend answers");
        assert_eq!(again, SealOutcome::Refused(BatchRefusal::Sealed));
        worker.settle(&fetched, AttemptEnd::Done).await;
        worker.fetch(9).await; // once it is over: its completion
    }
    assert_eq!(counts(&store).await, (BatchStage::Finished, [1, 1, 0, 0]));
}

/// A job that runs again adds the members of its first run once more, which may have sealed the batch.
pub async fn members_that_are_there_already_are_known_after_the_seal(store: SharedTasks) {
    let chosen = |id: &str| NewJob { digest: Some([1; 16]), ..member(id) };
    create(&store, NEVER_MS).await;
    assert_eq!(enqueue(&store, &[chosen("a"), chosen("b")]).await, vec![EnqueueOutcome::Stored; 2]);
    seal(&store).await;
    let worker = LawWorker::new(&store, 0);
    for stage in [BatchStage::Sealed, BatchStage::Finished] {
        let known = ["a", "b"].map(|id| EnqueueOutcome::Existing(id.into()));
        assert_eq!(enqueue(&store, &[chosen("a"), chosen("b")]).await, known);
        let refused = vec![EnqueueOutcome::NoMember(BatchRefusal::Sealed); 2];
        assert_eq!(enqueue(&store, &[chosen("a"), chosen("c")]).await, refused);
        assert_eq!((counts(&store).await.0, counts(&store).await.1[0]), (stage, 2));
        for fetched in worker.fetch(2).await {
            worker.settle(&fetched, AttemptEnd::Done).await;
        }
    }
    assert_eq!(counts(&store).await, (BatchStage::Finished, [2, 2, 0, 0]));
}

/// A job that is there already is no member.
pub async fn a_member_that_is_not_stored_does_not_count(store: SharedTasks) {
    create(&store, NEVER_MS).await;
    let chosen = || NewJob { digest: Some([1; 16]), ..member("a") };
    assert_eq!(enqueue(&store, &[chosen()]).await, [EnqueueOutcome::Stored]);
    assert_eq!(enqueue(&store, &[chosen(), member("b")]).await[0], EnqueueOutcome::Existing("a".into()));
    assert_eq!(counts(&store).await, (BatchStage::Open, [2, 0, 0, 0]));
}

/// Sealed or not; the numbers stay as they were then, and its members run all the same.
pub async fn a_batch_ends_at_its_deadline_once(store: SharedTasks) {
    create(&store, now_ms() + 20).await;
    add(&store, &["a", "b"]).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch(2).await;
    let next_due_ms = worker.call(&[settlement(&fetched[0], AttemptEnd::Done)], 0, |_| {}).await.next_due_ms;
    assert!(next_due_ms.is_some(), "a node wakes for it");
    eventually("it is over", || async {
        store.promote().await.expect("the backend answers");
        counts(&store).await.0.is_over()
    })
    .await;
    assert_eq!(ids_of(&worker.fetch(9).await), ["end"]);
    let refused = store.seal_batch("b").await.expect("the backend answers");
    assert_eq!(refused, SealOutcome::Refused(BatchRefusal::Expired));
    assert_eq!(enqueue(&store, &[member("c")]).await, [EnqueueOutcome::NoMember(BatchRefusal::Expired)]);
    assert_eq!(worker.settle(&fetched[1], AttemptEnd::Done).await, SettleOutcome::Accepted);
    assert_eq!(counts(&store).await, (BatchStage::Expired, [2, 1, 0, 0]));
    assert_eq!(worker.fetch(9).await, []);
}

/// Nor does it make what is due later begin.
pub async fn a_delayed_job_waits_while_a_batch_expires(store: SharedTasks) {
    create(&store, now_ms() + 5).await;
    enqueue(&store, &[NewJob { due_ms: Some(NEVER_MS), ..job("late") }]).await;
    eventually("it is over", || async {
        store.promote().await.expect("the backend answers");
        counts(&store).await.0.is_over()
    })
    .await;
    let fetched = LawWorker::new(&store, 0).fetch(9).await;
    assert_eq!(ids_of(&fetched), ["end"], "nothing else is due");
}

/// Before it is enqueued, too.
pub async fn the_end_of_a_tracked_completion_is_waited_for(store: SharedTasks) {
    let completion = Some(NewJob { tracked: true, ..job("end") });
    let batch = NewBatch { id: "b".into(), deadline_ms: NEVER_MS, completion };
    assert_eq!(store.create_batch(&batch, NEVER_US).await.expect("the backend answers"), None);
    let waiting = store.clone();
    let waiting = tokio::spawn(async move { waiting.ended("end").await.expect("the backend answers") });
    seal(&store).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch_one().await;
    let report = JobReport { id: "end".into(), progress: None, result: Some("1".into()), missing: None };
    let end = Settlement { report: Some(Box::new(report)), ..settlement(&fetched, AttemptEnd::Done) };
    worker.call(&[end], 0, |_| {}).await;
    let ended = waiting.await.expect("it ends").expect("it is tracked");
    assert_eq!((ended.state, ended.result.as_deref()), (JobState::Done, Some(&b"1"[..])));
}

/// All of it in the step that settles it, once, though that is repeated: its batch, its claim, its result, and its room, in which
/// the completion is the next one.
pub async fn a_member_that_is_tracked_unique_and_limited_ends_with_all_of_that(store: SharedTasks) {
    create(&store, NEVER_MS).await;
    let members = ["a", "z"].map(|id| {
        let text = format!(r#"{{"class":"c","queue":"q","args":[],"id":"{id}","unique":"{id}","batch":"b"}}"#);
        let unique = Some(UniqueClaim { key: id.into(), ttl_ms: 600_000 });
        NewJob { text: text.into(), unique, tracked: true, ..member(id) }
    });
    assert_eq!(enqueue(&store, &members).await, vec![EnqueueOutcome::Stored; 2]);
    seal(&store).await;
    let worker = LawWorker::new(&store, 0);
    let call = async |ends: &[Settlement]| worker.call(ends, 9, |call| call.limited = &*ONE).await;
    let mut fetched = call(&[]).await.fetched;
    for (id, end, state) in [("a", AttemptEnd::Done, JobState::Done), ("z", AttemptEnd::Dropped, JobState::Dropped)] {
        assert_eq!(ids_of(&fetched), [id]);
        let waiting = store.clone();
        let waiting = tokio::spawn(async move { waiting.ended(id).await.expect("the backend answers") });
        let result = (state == JobState::Done).then(|| "1".into());
        let report = JobReport { id: id.into(), progress: None, result: result.clone(), missing: None };
        let ends = [Settlement { report: Some(Box::new(report)), ..settlement(&fetched[0], end) }];
        let reply = call(&ends).await;
        assert_eq!((reply.settled, reply.fetched.len()), (vec![SettleOutcome::Accepted], 1));
        let repeated = call(&ends).await;
        assert_eq!((repeated.settled, repeated.fetched), (vec![SettleOutcome::Superseded], vec![]));
        assert_eq!(store.claimant(id).await.expect("the backend answers"), None);
        let ended = waiting.await.expect("it ends").expect("it is tracked");
        assert_eq!((ended.state, ended.result), (state, result));
        fetched = reply.fetched;
    }
    assert_eq!(ids_of(&fetched), ["end"]);
    assert_eq!(counts(&store).await, (BatchStage::Finished, [2, 1, 0, 1]));
}

/// A node sleeps until what it knows to be due first.
pub async fn the_deadline_and_the_end_of_a_batch_wake(store: SharedTasks) {
    let is_woken = || async { timeout(Duration::from_millis(200), store.woken()).await.is_ok() };
    // The first ones may be for the subscription itself.
    while is_woken().await {}
    create(&store, NEVER_MS).await;
    timeout(SOON, store.woken()).await.expect("its deadline is the first");
    enqueue(&store, &[NewJob { due_ms: Some(NEVER_MS), ..member("late") }]).await;
    seal(&store).await;
    while is_woken().await {}
    store.delete("late").await.expect("the backend answers");
    timeout(SOON, store.woken()).await.expect("its completion waits");
}
