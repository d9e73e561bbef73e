//! Follow-on jobs whose keys are spoilt, or for which there is no room.

use phalanx_core::backend::{
    AttemptEnd, Consequences, FetchedJob, JobState, NewJob, SettleOutcome, Settlement, UniqueClaim,
};
use phalanx_testkit::laws::tasks::{LawWorker, job, settlement};

/// The key of each thing that a follow-on job needs.
const KEYS: [&str; 5] = [
    "resque:queue:other",
    "phalanx:laws:ids:child",
    "phalanx:laws:unique:k",
    "phalanx:laws:delayed",
    "phalanx:laws:delayed:jobs",
];

fn children() -> Vec<NewJob> {
    let unique = Some(UniqueClaim { key: "k".into(), ttl_ms: 60_000 });
    let child = NewJob { queue: "other".into(), digest: Some([1; 16]), ..job("child") };
    vec![child, NewJob { due_ms: Some(4_000_000_000_000), unique, digest: Some([1; 16]), ..job("late") }]
}

fn done(parent: &FetchedJob) -> Settlement {
    let consequences = Consequences { follow_ups: children(), ..Consequences::default() };
    Settlement { consequences: Some(Box::new(consequences)), ..settlement(parent, AttemptEnd::Done) }
}

/// None of its follow-on jobs is stored: all or none.
#[tokio::test]
async fn a_job_whose_follow_on_jobs_cannot_be_stored_stays() {
    for key in KEYS {
        let (store, redis) = super::store().await;
        let worker = LawWorker::new(&store, 0);
        let running = super::running(&store, &worker, &["a", "b"]).await;
        redis.command(&format!("SADD {key} x")).await;
        let ends = [done(&running[0]), settlement(&running[1], AttemptEnd::Done)];
        let settled = worker.call(&ends, 0, |_| {}).await.settled;
        assert_eq!(settled, [SettleOutcome::Spoilt { key: key.to_owned() }, SettleOutcome::Accepted]);
        assert_eq!(store.attempts(phalanx_testkit::laws::tasks::nodes()[0]).await.unwrap().len(), 1);
        redis.command(&format!("DEL {key}")).await;
        assert_eq!(store.status("late").await.unwrap().state, JobState::Unknown, "{key}");
        assert_eq!(store.waiting("other", 0, 9).await.unwrap().len(), 0, "{key}");
        assert_eq!(worker.call(&ends[..1], 0, |_| {}).await.settled, [SettleOutcome::Accepted], "{key}");
        assert_eq!(store.waiting("other", 0, 9).await.unwrap().len(), 1, "{key}");
        assert!(matches!(store.status("late").await.unwrap().state, JobState::Delayed(_)), "{key}");
    }
}

/// The job has succeeded: refused, it would hold its slot until there is room.
#[tokio::test]
async fn a_full_redis_takes_follow_on_jobs() {
    let (store, redis) = super::store().await;
    let worker = LawWorker::new(&store, 0);
    let running = super::running(&store, &worker, &["a"]).await;
    redis.command("CONFIG SET maxmemory-policy noeviction").await;
    redis.command("CONFIG SET maxmemory 1").await;
    assert_eq!(worker.call(&[done(&running[0])], 0, |_| {}).await.settled, [SettleOutcome::Accepted]);
    assert_eq!(store.waiting("other", 0, 9).await.unwrap().len(), 1);
    redis.command("CONFIG SET maxmemory 0").await;
}
