//! Laws of what is seen of jobs that run and that wait.

use std::sync::LazyLock;

use phalanx_core::backend::{AttemptEnd, LimitedQueue, NewJob, QueueLimits};

use super::{FIRST_TOKEN, LawWorker, SharedTasks, enqueue, ids_of, job, now_ms};

/// The queue `q`, in which jobs take turns.
static TURNS: LazyLock<[LimitedQueue; 1]> =
    LazyLock::new(|| [LimitedQueue { queue: "q".into(), limits: QueueLimits::NONE, takes_turns: true }]);

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

/// Jobs that wait for their turns: of each key, the next one, however many others are before it.
pub async fn the_age_of_the_oldest_job_counts_those_that_take_turns(store: SharedTasks) {
    let of = |id: usize, at_ms: usize, key: &str| {
        let key = if key.is_empty() { String::new() } else { format!(r#","fair":"{key}""#) };
        let text = format!(r#"{{"class":"c","queue":"q","args":[],"id":"{id}","enqueued_at":{at_ms}{key}}}"#);
        NewJob { text: text.into(), ..job(&id.to_string()) }
    };
    enqueue(&store, &[of(0, 9_000, "")]).await;
    let keys: Vec<NewJob> = (1..=300).map(|key| of(key, 8_000 - key, &format!("k{key}"))).collect();
    enqueue(&store, &keys).await;
    enqueue(&store, &[of(301, 5_000, "k7")]).await;
    let oldest = async || store.stats().await.expect("the backend answers").oldest;
    assert_eq!(oldest().await, [("q".to_owned(), 7_700)], "that behind another one of its key is not read");
    let worker = LawWorker::new(&store, 0);
    let mut left: Vec<usize> = (0..=301).collect();
    while left.len() > 20 {
        let fetched = worker.call(&[], 9, |call| call.limited = &*TURNS).await.fetched;
        left.retain(|id| !ids_of(&fetched).contains(&id.to_string()));
    }
    let ages = [9_000].into_iter().chain((1..=300).map(|key| 8_000 - key)).chain([5_000]).collect::<Vec<u64>>();
    let expected = left.iter().map(|id| ages[*id]).min();
    assert_eq!(oldest().await.into_iter().map(|(_, since)| since).min(), expected, "{left:?}");
}
