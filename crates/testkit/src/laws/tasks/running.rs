//! Laws of what is seen of jobs that run and that wait.

use phalanx_core::backend::{AttemptEnd, NewJob};

use super::{FIRST_TOKEN, LawWorker, SharedTasks, enqueue, job, now_ms};

/// Node by node, in the order of their beginning, and in parts.
pub async fn running_attempts_are_listed(store: SharedTasks) {
    enqueue(&store, &["a", "b", "c", "d"].map(job)).await;
    let foreign = NewJob { text: "no job".into(), ..job("e") };
    enqueue(&store, &[foreign]).await;
    let (one, other) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    let mut fetched = one.fetch(1).await;
    fetched.extend(other.fetch(1).await);
    fetched.extend(one.fetch(1).await);
    let retried = other.fetch(1).await.remove(0);
    other.settle(&retried, AttemptEnd::Retry { due_ms: 0 }).await;
    other.settle(&fetched.remove(1), AttemptEnd::Done).await;
    for _ in 0..2 {
        fetched.extend(other.fetch(1).await);
    }
    assert_eq!(fetched.len(), 4, "a and c on the first node, d and the foreign one on the other");
    let listed = store.running(0, 9).await.expect("the backend answers");
    assert_eq!(listed.iter().map(|listed| &listed.attempt).collect::<Vec<_>>(), {
        fetched.iter().map(|job| &job.attempt).collect::<Vec<_>>()
    });
    let mut ids: Vec<_> = listed.iter().map(|it| (it.id.as_deref(), it.class.as_deref())).collect();
    ids.sort_unstable();
    assert_eq!(ids, [(None, None), (Some("a"), Some("c")), (Some("c"), Some("c")), (Some("d"), Some("c"))]);
    assert!(listed.iter().all(|listed| listed.attempt.fetched_us() >= Some(FIRST_TOKEN)), "{listed:?}");
    for (skip, limit) in [(0, 2), (1, 2), (2, 9), (3, 1), (4, 9), (0, 0)] {
        let expected = &listed[skip..(skip + limit).min(4)];
        assert_eq!(store.running(skip, limit).await.expect("the backend answers"), expected, "{skip} {limit}");
    }
}

/// Of each queue in which one waits: since when that at its head could begin.
pub async fn the_age_of_the_oldest_job_of_a_queue_is_known(store: SharedTasks) {
    let of = |id: &str, queue: &str, times: &str| {
        let text = format!(r#"{{"class":"c","queue":"{queue}","args":[],"id":"{id}"{times}}}"#);
        NewJob { queue: queue.into(), text: text.into(), ..job(id) }
    };
    let late = NewJob { due_ms: Some(now_ms() + 60_000), ..of("f", "later", r#","enqueued_at":7"#) };
    enqueue(
        &store,
        &[
            of("a", "q", r#","enqueued_at":7"#),
            of("b", "q", r#","enqueued_at":9"#),
            of("c", "delayed", r#","enqueued_at":7,"due_at":8"#),
            of("d", "foreign", ""),
            late,
        ],
    )
    .await;
    let oldest = async || store.stats().await.expect("the backend answers").oldest;
    assert_eq!(oldest().await, [("delayed".to_owned(), 8), ("q".to_owned(), 7)]);
    let worker = LawWorker::new(&store, 0);
    worker.fetch(1).await;
    assert_eq!(oldest().await, [("delayed".to_owned(), 8), ("q".to_owned(), 9)]);
    worker.fetch(1).await;
    assert_eq!(oldest().await, [("delayed".to_owned(), 8)]);
}
