//! A Redis that is full refuses jobs and gets emptier all the same.

use phalanx_core::backend::{
    AttemptEnd, BackendError, DeleteOutcome, FailedTake, GiveBackOutcome, NewJob, SettleOutcome, TakeOutcome,
};
use phalanx_testkit::laws::tasks::{LawWorker, enqueue, failure, job, nodes, settlement};

#[tokio::test]
async fn a_full_redis_refuses_jobs_and_everything_else_goes_on() {
    let (store, redis) = super::store().await;
    let (worker, dying) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    let ids: Vec<String> = (0..8).map(|number| number.to_string()).collect();
    let running = super::running(&store, &worker, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    super::running(&store, &dying, &["d0", "d1"]).await;
    worker.settle(&running[7], failure(&running[7])).await;
    let later = NewJob { due_ms: Some(4_000_000_000_000), ..job("later") };
    enqueue(&store, &[job("w0"), job("w1"), job("w2"), later]).await;
    redis.command("ZADD phalanx:laws:delayed XX 1 later").await;
    redis.command("CONFIG SET maxmemory-policy noeviction").await;
    redis.command("CONFIG SET maxmemory 1").await;
    assert!(redis.command("SET any value").await.starts_with("-OOM"));

    assert!(matches!(store.enqueue(&[job("x")], u64::MAX / 4).await, Err(BackendError::Full)));
    let now = AttemptEnd::Retry { due_ms: 0 };
    let ends = [
        AttemptEnd::Done,
        AttemptEnd::Dropped,
        now,
        AttemptEnd::Snooze { due_ms: 4_000_000_000_000 },
        AttemptEnd::GiveBack,
        AttemptEnd::Park { class: "c".into() },
        failure(&running[6]),
    ];
    let settlements: Vec<_> = running.iter().zip(ends).map(|(job, end)| settlement(job, end)).collect();
    let reply = worker.call(&settlements, 3, |_| {}).await;
    assert_eq!(reply.settled, vec![SettleOutcome::Accepted; 7]);
    assert_eq!(reply.fetched.len(), 3);
    assert!(matches!(store.give_back(nodes()[0], nodes()[1], "w").await.unwrap(), GiveBackOutcome::Some(_)));
    assert_eq!(worker.take_parked(&["c"], 1).await.unwrap().fetched.len(), 1);
    assert_eq!(store.promote().await.unwrap().moved, 1);
    assert_eq!(store.delete("3").await.unwrap(), DeleteOutcome::Deleted);
    assert_eq!(store.delete("later").await.unwrap(), DeleteOutcome::Marked);
    store.list_again(nodes()[0], &running[..1], &[], &[]).await.unwrap();
    let record = store.failed(0, 1).await.unwrap().remove(0);
    let take = FailedTake { record, retry: Some(job("7")) };
    assert_eq!(store.take_failed(&[take]).await.unwrap(), [TakeOutcome::Taken]);
    let mut fetched = reply.fetched.len() + 1;
    while fetched < 11 {
        let more = worker.fetch(32).await.len();
        assert!(more > 0, "{fetched} jobs of w0-2, 2, 4, 5, 7, d0-1, later: 10, and one that was listed again");
        fetched += more;
        if fetched == 10 {
            break;
        }
    }
    redis.command("CONFIG SET maxmemory 0").await;
    enqueue(&store, &[job("x")]).await;
}
