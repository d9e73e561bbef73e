//! Laws of follow-on jobs: all of them with the success of their job, or none.

use phalanx_core::backend::{
    AttemptEnd, Consequences, DeleteOutcome, FetchedJob, JobReport, JobState, NewJob, SettleOutcome, Settlement,
};

use super::{LawWorker, SharedTasks, claiming, enqueue, failure, id_of, ids_of, job, nodes, now_ms, settlement, state};

fn child(id: &str) -> NewJob {
    NewJob { digest: Some([1; 16]), ..job(id) }
}

fn with(job: &FetchedJob, end: AttemptEnd, follow_ups: Vec<NewJob>) -> Settlement {
    let consequences = Some(Box::new(Consequences { follow_ups, ..Consequences::default() }));
    Settlement { consequences, ..settlement(job, end) }
}

/// In their order, in the same call, and with all that an enqueue of them would have stored.
pub async fn follow_on_jobs_are_stored_with_the_success_of_their_job(store: SharedTasks) {
    enqueue(&store, &[job("a")]).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch_one().await;
    let late = NewJob { due_ms: Some(now_ms() + 600_000), ..child("late") };
    let due = NewJob { due_ms: Some(now_ms() - 1), ..child("due") };
    let unique = NewJob { digest: Some([1; 16]), ..claiming("unique", "k") };
    let follow_ups = vec![child("b"), late, unique, due, child("c")];
    let reply = worker.call(&[with(&fetched, AttemptEnd::Done, follow_ups)], 9, |_| {}).await;
    assert_eq!(
        (reply.settled, ids_of(&reply.fetched)),
        (vec![SettleOutcome::Accepted], ["b", "unique", "due", "c"].map(str::to_owned).to_vec())
    );
    assert_eq!(reply.fetched[0].text, job("b").text);
    assert!(matches!(state(&store, "late").await, JobState::Delayed(_)));
    assert!(reply.next_due_ms.is_some());
    assert_eq!(store.claimant("k").await.expect("the backend answers").as_deref(), Some("unique"));
    assert_eq!(state(&store, "a").await, JobState::Done);
}

/// As one that is enqueued at once.
pub async fn the_end_of_a_tracked_follow_on_job_is_awaited(store: SharedTasks) {
    enqueue(&store, &[job("a")]).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch_one().await;
    let follow_ups = vec![NewJob { tracked: true, ..child("b") }, child("c")];
    let reply = worker.call(&[with(&fetched, AttemptEnd::Done, follow_ups)], 9, |_| {}).await;
    let waiting = store.clone();
    let waiting = tokio::spawn(async move { waiting.ended("b").await });
    for job in &reply.fetched {
        let report = JobReport { id: id_of(job).into(), progress: None, result: None, missing: None };
        let end = Settlement { report: Some(Box::new(report)), ..settlement(job, AttemptEnd::Dropped) };
        worker.call(&[end], 0, |_| {}).await;
    }
    let ended = waiting.await.expect("it ends").expect("the backend answers");
    assert_eq!(ended.map(|status| status.state), Some(JobState::Dropped));
    assert_eq!(store.ended("c").await.expect("the backend answers"), None);
}

/// The next attempt says again what follows.
pub async fn follow_on_jobs_of_another_end_are_not_stored(store: SharedTasks) {
    enqueue(&store, &[job("a")]).await;
    let worker = LawWorker::new(&store, 0);
    for end in [AttemptEnd::Retry { due_ms: 0 }, AttemptEnd::GiveBack] {
        let fetched = worker.fetch_one().await;
        worker.call(&[with(&fetched, end, vec![child("b")])], 0, |_| {}).await;
    }
    let fetched = worker.fetch_one().await;
    assert_eq!(id_of(&fetched), "a");
    let ends = [with(&fetched, failure(&fetched), vec![child("b")])];
    assert_eq!(worker.call(&ends, 9, |_| {}).await.fetched, []);
    assert_eq!(state(&store, "b").await, JobState::Unknown);
}

/// Each with its own.
pub async fn several_jobs_with_follow_on_jobs_are_settled_at_once(store: SharedTasks) {
    enqueue(&store, &["a", "b", "c"].map(job)).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch(3).await;
    let ends = [
        with(&fetched[0], AttemptEnd::Done, vec![child("a1"), child("a2")]),
        with(&fetched[1], AttemptEnd::Done, vec![child("b1")]),
        settlement(&fetched[2], AttemptEnd::Dropped),
    ];
    let reply = worker.call(&ends, 9, |_| {}).await;
    let expected = (vec![SettleOutcome::Accepted; 3], ["a1", "a2", "b1"].map(str::to_owned).to_vec());
    assert_eq!((reply.settled, ids_of(&reply.fetched)), expected);
}

/// By its id, or by its claim.
pub async fn a_follow_on_job_that_is_there_already_is_not_stored_again(store: SharedTasks) {
    enqueue(&store, &[job("a"), child("b"), claiming("c", "k")]).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch(3).await;
    let unique = NewJob { digest: Some([1; 16]), ..claiming("d", "k") };
    let ends = [with(&fetched[0], AttemptEnd::Done, vec![child("b"), unique, child("e"), child("e")])];
    assert_eq!(ids_of(&worker.call(&ends, 9, |_| {}).await.fetched), ["e"]);
}

/// The mark of that outlives a job that succeeded before it was cancelled.
pub async fn a_follow_on_job_is_not_deleted_with_an_earlier_job_of_its_id(store: SharedTasks) {
    enqueue(&store, &["a", "b"].map(job)).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch(2).await;
    assert_eq!(store.delete("b").await.expect("the backend answers"), DeleteOutcome::Cancelling(nodes()[0]));
    assert_eq!(worker.settle(&fetched[1], AttemptEnd::Done).await, SettleOutcome::Accepted);
    let reply = worker.call(&[with(&fetched[0], AttemptEnd::Done, vec![child("b")])], 9, |_| {}).await;
    assert_eq!((ids_of(&reply.fetched), reply.deleted), (vec!["b".to_owned()], vec![]));
}

/// The attempt is another node's by then.
pub async fn a_settlement_that_comes_too_late_stores_no_follow_on_jobs(store: SharedTasks) {
    enqueue(&store, &[job("a")]).await;
    let (worker, dying) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    let fetched = dying.fetch_one().await;
    store.give_back(nodes()[0], nodes()[1], "w").await.expect("the backend answers");
    let late = with(&fetched, AttemptEnd::Done, vec![child("b")]);
    let reply = dying.call(&[late], 0, |_| {}).await;
    assert_eq!(reply.settled, [SettleOutcome::Superseded]);
    let again = worker.fetch_one().await;
    let reply = worker.call(&[with(&again, AttemptEnd::Done, vec![child("b")])], 9, |_| {}).await;
    assert_eq!(ids_of(&reply.fetched), ["b"]);
    let reply = worker.call(&[with(&again, AttemptEnd::Done, vec![child("c")])], 9, |_| {}).await;
    assert_eq!((reply.settled, reply.fetched), (vec![SettleOutcome::Superseded], vec![]));
}
