//! Several nodes at one queue.

use std::collections::BTreeSet;

use phalanx_core::backend::{MOVE_BATCH, NewJob};
use phalanx_testkit::laws::tasks::{LawWorker, enqueue, job};
use tokio::task::JoinSet;

#[tokio::test]
async fn a_node_takes_its_share_of_what_waits() {
    let (store, _redis) = super::store().await;
    let (one, other) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    for worker in [&one, &other] {
        assert_eq!(worker.fetch(1).await, [], "both say that they serve the queue");
    }
    enqueue(&store, &(0..10).map(|number| job(&number.to_string())).collect::<Vec<_>>()).await;
    let shares = [one.fetch(32).await.len(), other.fetch(32).await.len(), one.fetch(32).await.len()];
    assert_eq!(shares, [5, 3, 1], "half of what waits");
    assert_eq!(other.fetch(32).await.len(), 1);
}

#[tokio::test]
async fn each_job_is_fetched_once_by_many_workers() {
    let (store, redis) = super::store().await;
    let jobs: Vec<NewJob> = (0..2000).map(|number| job(&number.to_string())).collect();
    for batch in jobs.chunks(500) {
        enqueue(&store, batch).await;
    }
    let mut workers = JoinSet::new();
    for number in 0..4 {
        let store = super::over(&redis.url());
        workers.spawn(async move {
            let worker = LawWorker::new(&store, number % 2);
            let mut texts = Vec::new();
            loop {
                let fetched = worker.fetch(32).await;
                if fetched.is_empty() {
                    return texts;
                }
                texts.extend(fetched.into_iter().map(|job| job.text));
            }
        });
    }
    let all: Vec<_> = workers.join_all().await.into_iter().flatten().collect();
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (2000, 2000));
}

#[tokio::test]
async fn one_node_promotes_at_a_time_and_any_node_after_it() {
    let (store, redis) = super::store().await;
    let other = super::over(&redis.url());
    let at = |number: usize| NewJob { due_ms: Some(4_000_000_000_000), ..job(&number.to_string()) };
    enqueue(&store, &(0..MOVE_BATCH + 5).map(at).collect::<Vec<_>>()).await;
    for number in 0..MOVE_BATCH + 5 {
        redis.command(&format!("ZADD phalanx:laws:delayed XX 1 {number}")).await;
    }
    assert_eq!(store.promote().await.unwrap().moved, MOVE_BATCH);
    let refused = other.promote().await.unwrap();
    assert_eq!((refused.moved, refused.next_due_ms), (0, Some(1)), "the first one is at it");
    redis.command("DEL phalanx:laws:promoter").await; // as after 200 ms
    assert_eq!(other.promote().await.unwrap().moved, 5);
    assert_eq!(store.promote().await.unwrap().moved, 0);
    assert_eq!(redis.command("EXISTS phalanx:laws:promoter").await, ":0\r\n", "nothing is left to do");
}
