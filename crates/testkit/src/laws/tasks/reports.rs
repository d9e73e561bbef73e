//! Laws of what jobs report: progress, results, and the status that shows them.

use phalanx_core::backend::{
    AttemptEnd, FetchedJob, JobReport, JobState, NewJob, SettleOutcome, Settlement, StoredStatus,
};

use super::{LawWorker, SharedTasks, enqueue, failure, job, nodes, settlement, state, status};
use crate::laws::SOON;

const TTL_MS: u64 = 60_000;

fn progress(id: &str, value: &str) -> JobReport {
    JobReport { id: id.into(), progress: Some(value.to_owned().into()), result: None, missing: None }
}

async fn report(store: &SharedTasks, node: usize, fetched: &FetchedJob, report: &JobReport) -> bool {
    store.report(nodes()[node], &fetched.attempt, report, TTL_MS).await.expect("the backend answers")
}

fn with_report(job: &FetchedJob, end: AttemptEnd, report: JobReport) -> Settlement {
    Settlement { report: Some(Box::new(report)), ..settlement(job, end) }
}

/// The last value stays until the next one, also after the attempt.
pub async fn progress_is_kept_as_long_as_its_attempt_is_listed(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[job("a")]).await;
    assert_eq!(status(&store, "a").await.attempt, None);
    let fetched = worker.fetch_one().await;
    let running = || JobState::Running(nodes()[0]);
    assert_eq!((status(&store, "a").await.attempt, state(&store, "a").await), (Some((nodes()[0], 1)), running()));
    for value in ["1", r#"{"of":[]}"#] {
        assert!(report(&store, 0, &fetched, &progress("a", value)).await);
        let expected = StoredStatus {
            state: running(),
            attempt: Some((nodes()[0], 1)),
            progress: Some(value.to_owned().into()),
            result: None,
            missing: None,
        };
        assert_eq!(status(&store, "a").await, expected);
    }
    let retried = with_report(&fetched, AttemptEnd::Retry { due_ms: 0 }, progress("a", "2"));
    assert_eq!(worker.call(&[retried], 0, |_| {}).await.settled, [SettleOutcome::Accepted]);
    let waiting = status(&store, "a").await;
    assert_eq!((waiting.state, waiting.progress.as_deref()), (JobState::Waiting, Some(&b"2"[..])));
    let fetched = worker.fetch_one().await;
    let last = with_report(&fetched, failure(&fetched), progress("a", "3"));
    assert_eq!(worker.call(&[last], 0, |_| {}).await.settled, [SettleOutcome::Accepted]);
    let failed = status(&store, "a").await;
    assert_eq!((failed.state, failed.attempt), (JobState::Failed, Some((nodes()[0], 2))));
    assert_eq!(failed.progress.as_deref(), Some(&b"3"[..]));
}

/// Neither a progress that arrives late nor a settlement that is superseded.
pub async fn a_report_of_an_attempt_that_is_over_changes_nothing(store: SharedTasks) {
    let (worker, other) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    enqueue(&store, &[job("a")]).await;
    let stale = other.fetch_one().await;
    assert!(!report(&store, 0, &stale, &progress("a", "0")).await, "it is another node's");
    assert!(report(&store, 1, &stale, &progress("a", "1")).await);
    other.settle(&stale, AttemptEnd::GiveBack).await;
    let fetched = worker.fetch_one().await;
    assert!(!report(&store, 1, &stale, &progress("a", "2")).await);
    let late = JobReport { result: Some("2".into()), ..progress("a", "2") };
    let settled = other.call(&[with_report(&stale, AttemptEnd::Done, late)], 0, |_| {}).await.settled;
    assert_eq!(settled, [SettleOutcome::Superseded]);
    let running = status(&store, "a").await;
    assert_eq!((running.state, running.attempt), (JobState::Running(nodes()[0]), Some((nodes()[0], 1))));
    assert_eq!((running.progress.as_deref(), running.result), (Some(&b"1"[..]), None));
    worker.settle(&fetched, AttemptEnd::Done).await;
    assert!(!report(&store, 0, &fetched, &progress("a", "3")).await);
    assert_eq!(status(&store, "a").await.progress.as_deref(), Some(&b"1"[..]));
}

/// Never done without it, and no result before. Beside plain ends, whose outcomes keep their order.
pub async fn a_result_is_shown_from_the_end_of_its_job_on(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &["a", "b", "c"].map(job)).await;
    let fetched = worker.fetch(3).await;
    let result = JobReport { id: "b".into(), progress: None, result: Some(r#"{"steps":5}"#.into()), missing: None };
    let watch = async {
        loop {
            let seen = status(&store, "b").await;
            assert_eq!(seen.state == JobState::Done, seen.result.is_some(), "{seen:?}");
            if let Some(result) = seen.result {
                return result;
            }
            tokio::task::yield_now().await; // the embedded backend never waits
        }
    };
    let settle = async {
        let ends = [
            settlement(&fetched[0], AttemptEnd::Done),
            with_report(&fetched[1], AttemptEnd::Done, result),
            settlement(&fetched[2], AttemptEnd::Done),
        ];
        worker.call(&ends, 0, |_| {}).await.settled
    };
    let both = async { tokio::join!(watch, settle) };
    let (seen, settled) = tokio::time::timeout(SOON, both).await.expect("it is done");
    assert_eq!((&seen[..], settled.len()), (&br#"{"steps":5}"#[..], 3));
    assert!(settled.iter().all(|outcome| *outcome == SettleOutcome::Accepted), "{settled:?}");
    assert_eq!(store.stats().await.expect("the backend answers").processed, 3);
    assert_eq!((state(&store, "a").await, state(&store, "c").await), (JobState::Done, JobState::Done));
}

/// Jobs of other programs have none.
pub async fn a_report_of_a_job_without_an_id_names_its_attempt(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    let text = r#"{"class":"c","queue":"q","args":[]}"#;
    enqueue(&store, &[NewJob { text: text.into(), ..job("a") }]).await;
    let fetched = worker.fetch_one().await;
    let id = format!("{}-{}", nodes()[0], fetched.attempt.token);
    assert!(report(&store, 0, &fetched, &progress(&id, "1")).await);
    assert_eq!(state(&store, &id).await, JobState::Running(nodes()[0]));
    let report = JobReport { id: id.as_str().into(), progress: None, result: Some("2".into()), missing: None };
    worker.call(&[with_report(&fetched, AttemptEnd::Done, report)], 0, |_| {}).await;
    let done = status(&store, &id).await;
    assert_eq!((done.state, done.result.as_deref()), (JobState::Done, Some(&b"2"[..])));
}
