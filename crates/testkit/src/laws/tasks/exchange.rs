//! Laws of fetching jobs and settling their attempts.

use bytes::Bytes;
use phalanx_core::backend::{AttemptEnd, EnqueueOutcome, JobState, NewJob, SettleOutcome};

use super::{
    FIRST_TOKEN, LawWorker, SharedTasks, counters, enqueue, id_of, ids_of, job, nodes, now_ms, settlement, state,
};
use crate::laws::eventually;

/// First in, first out, over several enqueues and fetches.
pub async fn jobs_are_fetched_in_the_order_of_their_enqueue(store: SharedTasks) {
    for batch in [&["1", "2", "3"][..], &["4"], &["5", "6"]] {
        let jobs: Vec<NewJob> = batch.iter().copied().map(job).collect();
        assert_eq!(enqueue(&store, &jobs).await, vec![EnqueueOutcome::Stored; jobs.len()]);
    }
    let worker = LawWorker::new(&store, 0);
    let (first, second) = (worker.fetch(4).await, worker.call(&[], 4, |_| {}).await);
    assert_eq!(ids_of(&first), ["1", "2", "3", "4"]);
    assert_eq!(ids_of(&second.fetched), ["5", "6"]);
    assert!(!second.has_more && !second.is_reaped && second.next_due_ms.is_none() && second.spoilt.is_empty());
    let tokens: Vec<u64> = first.iter().map(|job| job.attempt.token).collect();
    assert_eq!(tokens, [0, 1, 2, 3].map(|number| FIRST_TOKEN + number));
    assert!(first.iter().all(|job| job.attempt.counters == counters(1, 0) && *job.attempt.queue == *"q"));
}

/// A later queue is served when all earlier ones are empty.
pub async fn queues_are_served_in_their_order(store: SharedTasks) {
    let of = |id: &str, queue: &str| NewJob { queue: queue.into(), ..job(id) };
    enqueue(&store, &[of("1", "low"), of("2", "high"), of("3", "other"), of("4", "high")]).await;
    let worker = LawWorker::serving(&store, nodes()[0], &["high", "low"]);
    let reply = worker.call(&[], 2, |_| {}).await;
    assert_eq!(ids_of(&reply.fetched), ["2", "4"]);
    assert!(reply.has_more);
    let reply = worker.call(&[], 5, |_| {}).await;
    assert_eq!(ids_of(&reply.fetched), ["1"]);
    assert!(!reply.has_more, "other queues are not this worker's");
}

/// On every way: a parser that wrote it again would change numbers and empty lists.
pub async fn a_job_is_returned_byte_for_byte_by_every_way(store: SharedTasks) {
    let texts: [&[u8]; 5] = [
        br#"{"class":"c","queue":"q","args":[{"big":9007199254740993,"list":[],"map":{},"f":1.0}]}"#,
        b"\xff\xfe not even text \0 with \r\n lines",
        b"1 0 0 like counters",
        b"!1 0 0 like one that was given back",
        b"",
    ];
    let (worker, other) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    for (number, text) in texts.into_iter().enumerate() {
        let text = Bytes::from_static(text);
        let stored = NewJob { text: text.clone(), ..job(&number.to_string()) };
        enqueue(&store, std::slice::from_ref(&stored)).await;
        let soon = || now_ms() + 2;
        for end in [
            AttemptEnd::GiveBack,
            AttemptEnd::Retry { due_ms: 0 },
            AttemptEnd::Retry { due_ms: soon() },
            AttemptEnd::GiveBack,
            AttemptEnd::Snooze { due_ms: soon() },
            AttemptEnd::Park { class: "c".into() },
        ] {
            let fetched = worker.fetch_one().await;
            assert_eq!(fetched.text, text, "before {end:?}");
            let park = matches!(end, AttemptEnd::Park { .. });
            assert_eq!(worker.settle(&fetched, end).await, SettleOutcome::Accepted);
            if park {
                let taken = worker.take_parked(&["c"], 9).await.expect("the backend answers").fetched;
                assert_eq!((taken.len(), &taken[0].text), (1, &text));
                assert_eq!(worker.settle(&taken[0], AttemptEnd::GiveBack).await, SettleOutcome::Accepted);
            }
            eventually("it waits again", || async {
                store.promote().await.expect("the backend answers");
                !store.waiting("q", 0, 10).await.expect("the backend answers").is_empty()
            })
            .await;
        }
        let fetched = other.fetch_one().await;
        assert_eq!(fetched.text, text);
        store.give_back(nodes()[0], nodes()[1], "w").await.expect("the backend answers");
        let fetched = worker.fetch_one().await;
        assert_eq!((&fetched.text, fetched.attempt.counters), (&text, counters(3, 1)));
        assert_eq!(store.attempts(nodes()[0]).await.expect("the backend answers")[0].text, text);
        assert_eq!(worker.settle(&fetched, AttemptEnd::Done).await, SettleOutcome::Accepted);
        // Delayed from the start.
        enqueue(&store, &[NewJob { due_ms: Some(now_ms() + 5), ..stored.clone() }]).await;
        eventually("it is due", || async {
            store.promote().await.expect("the backend answers");
            worker.fetch(1).await.pop().is_some_and(|fetched| fetched.text == text)
        })
        .await;
        for attempt in store.attempts(nodes()[0]).await.expect("the backend answers") {
            worker.settle(&attempt, AttemptEnd::Done).await;
        }
    }
}

/// A second settlement, also with another end, changes nothing.
pub async fn an_attempt_is_settled_once(store: SharedTasks) {
    enqueue(&store, &[job("a"), job("b")]).await;
    let (worker, other) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    let fetched = worker.fetch(2).await;
    assert_eq!(other.settle(&fetched[0], AttemptEnd::Done).await, SettleOutcome::Superseded, "another node's");
    let both = [settlement(&fetched[0], AttemptEnd::Done), settlement(&fetched[1], AttemptEnd::GiveBack)];
    let settled = worker.call(&both, 0, |_| {}).await.settled;
    assert_eq!(settled, [SettleOutcome::Accepted, SettleOutcome::Accepted]);
    for end in [AttemptEnd::Done, AttemptEnd::GiveBack, AttemptEnd::Dropped, AttemptEnd::Retry { due_ms: 0 }] {
        for job in &fetched {
            assert_eq!(worker.settle(job, end.clone()).await, SettleOutcome::Superseded);
        }
    }
    assert_eq!(store.stats().await.expect("the backend answers").processed, 1);
    assert_eq!(ids_of(&worker.fetch(9).await), ["b"]);
}

/// Nothing would run what a late call fetches, but an end is an end.
pub async fn a_call_after_its_deadline_settles_and_fetches_nothing(store: SharedTasks) {
    enqueue(&store, &[job("a"), job("b")]).await;
    let worker = LawWorker::new(&store, 0);
    let first = worker.fetch(1).await;
    let reply = worker.call(&[settlement(&first[0], AttemptEnd::Done)], 5, |call| call.fetch_until_us = 1000).await;
    assert_eq!((reply.settled, reply.fetched), (vec![SettleOutcome::Accepted], vec![]));
    assert_eq!(store.attempts(nodes()[0]).await.expect("the backend answers"), []);
    assert_eq!(ids_of(&worker.fetch(5).await), ["b"]);
}

/// As do a give-back and a parking.
pub async fn a_retry_counts_the_attempt_and_a_snooze_does_not(store: SharedTasks) {
    enqueue(&store, &[job("a")]).await;
    let worker = LawWorker::new(&store, 0);
    for (end, attempts) in [
        (AttemptEnd::Retry { due_ms: 0 }, 1),
        (AttemptEnd::Retry { due_ms: now_ms() + 10 }, 2),
        (AttemptEnd::Snooze { due_ms: 0 }, 3),
        (AttemptEnd::Snooze { due_ms: now_ms() + 20 }, 3),
        (AttemptEnd::GiveBack, 3),
        (AttemptEnd::Done, 3),
    ] {
        eventually("it is due", || async {
            store.promote().await.expect("the backend answers");
            !store.waiting("q", 0, 1).await.expect("the backend answers").is_empty()
        })
        .await;
        let fetched = worker.fetch_one().await;
        assert_eq!(fetched.attempt.counters, counters(attempts, 0), "before {end:?}");
        worker.settle(&fetched, end).await;
    }
}

/// Before jobs that were enqueued earlier, and in its first order if several are.
pub async fn a_job_that_is_given_back_is_the_next_one(store: SharedTasks) {
    enqueue(&store, &["a", "b", "c", "d"].map(job)).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch(2).await;
    worker.settle(&fetched[0], AttemptEnd::Retry { due_ms: 0 }).await;
    let [again] = &worker.fetch(2).await.into_iter().filter(|job| id_of(job) == "a").collect::<Vec<_>>()[..] else {
        panic!("a retried job and a fresh one take turns")
    };
    assert_eq!(again.attempt.counters.attempts, 2);
    worker.settle(again, AttemptEnd::GiveBack).await;
    worker.settle(&fetched[1], AttemptEnd::GiveBack).await;
    let next = ids_of(&worker.fetch(2).await);
    assert!(next == ["a", "b"] || next == ["b", "a"], "{next:?}");
}

/// Neither waits until all of the others are done.
pub async fn retried_and_fresh_jobs_take_turns(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    let retried: Vec<String> = (0..8).map(|number| format!("r{number}")).collect();
    enqueue(&store, &retried.iter().map(|id| job(id)).collect::<Vec<_>>()).await;
    for fetched in worker.fetch(8).await {
        worker.settle(&fetched, AttemptEnd::Retry { due_ms: 0 }).await;
    }
    let fresh: Vec<String> = (0..8).map(|number| format!("f{number}")).collect();
    enqueue(&store, &fresh.iter().map(|id| job(id)).collect::<Vec<_>>()).await;
    let all = ids_of(&worker.fetch(8).await);
    let of_retried: Vec<_> = all.iter().filter(|id| id.starts_with('r')).cloned().collect();
    let of_fresh: Vec<_> = all.iter().filter(|id| id.starts_with('f')).cloned().collect();
    assert_eq!((of_retried, of_fresh), (retried[..4].to_vec(), fresh[..4].to_vec()));
    assert_eq!(worker.fetch(9).await.len(), 8);
}

/// It is gone.
pub async fn a_dropped_job_is_over_and_counts_as_nothing(store: SharedTasks) {
    enqueue(&store, &[job("a")]).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch_one().await;
    assert_eq!(worker.settle(&fetched, AttemptEnd::Dropped).await, SettleOutcome::Accepted);
    let stats = store.stats().await.expect("the backend answers");
    assert_eq!((stats.processed, stats.failed, stats.running), (0, 0, 0));
    assert_eq!(state(&store, "a").await, JobState::Unknown);
}

/// Also none.
pub async fn no_more_jobs_are_fetched_than_wanted(store: SharedTasks) {
    let jobs: Vec<NewJob> = (0..40).map(|number| job(&number.to_string())).collect();
    enqueue(&store, &jobs).await;
    let worker = LawWorker::new(&store, 0);
    for wanted in [0, 1, 7, 32] {
        let reply = worker.call(&[], wanted, |_| {}).await;
        assert_eq!(reply.fetched.len(), wanted);
        assert!(reply.has_more || matches!(wanted, 0 | 32));
    }
    assert_eq!(store.attempts(nodes()[0]).await.expect("the backend answers").len(), 40);
}

/// But one job is fetched, however long it is.
pub async fn no_more_bytes_are_fetched_than_allowed(store: SharedTasks) {
    let long = |id: &str| NewJob { text: vec![b'x'; 50_000].into(), ..job(id) };
    let jobs: Vec<NewJob> = (0..6).map(|number| long(&number.to_string())).collect();
    enqueue(&store, &jobs).await;
    let worker = LawWorker::new(&store, 0);
    let reply = worker.call(&[], 32, |call| call.max_bytes = 100).await;
    assert_eq!((reply.fetched.len(), reply.has_more), (1, true));
    let reply = worker.call(&[], 32, |call| call.max_bytes = 100_000).await;
    assert_eq!(reply.fetched.len(), 2);
}

/// So that one of them, if it kills its node, takes no other with it.
pub async fn one_suspect_is_fetched_at_a_time(store: SharedTasks) {
    let (worker, dying) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    enqueue(&store, &["a", "b", "c"].map(job)).await;
    for death in 1..=2 {
        assert_eq!(dying.fetch(3).await.len(), 3, "before death {death}");
        store.give_back(nodes()[0], nodes()[1], "w").await.expect("the backend answers");
    }
    enqueue(&store, &[job("d")]).await;
    let reply = worker.call(&[], 9, |call| call.takes_suspect = false).await;
    assert_eq!(ids_of(&reply.fetched), ["d"]);
    let first = worker.fetch_one().await;
    assert_eq!((id_of(&first).as_str(), first.attempt.counters), ("a", counters(1, 2)));
    worker.settle(&first, AttemptEnd::Retry { due_ms: 0 }).await;
    let ids: Vec<String> = vec![id_of(&worker.fetch_one().await), id_of(&worker.fetch_one().await)];
    assert_eq!(ids, ["b", "c"], "a retried suspect is one, and behind the others");
    enqueue(&store, &[job("e")]).await;
    let reply = worker.call(&[], 1, |_| {}).await;
    assert_eq!((ids_of(&reply.fetched), reply.has_more), (vec!["a".to_owned()], true), "a fresh one waits");
}

/// Tokens count on, whatever number the first one is, and whether or not jobs have counters.
pub async fn tokens_count_on(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    for first in [0, 7, 999_998, 1_999_999, 1_999_999_999_998] {
        enqueue(&store, &["a", "b", "c"].map(job)).await;
        for attempts in 1..=2 {
            let fetched = worker.call(&[], 3, |call| call.first_token = first).await.fetched;
            let mut listed = store.attempts(nodes()[0]).await.expect("the backend answers");
            listed.sort_by_key(|job| job.attempt.token);
            let tokens: Vec<u64> = listed.iter().map(|job| job.attempt.token).collect();
            assert_eq!(tokens, [first, first + 1, first + 2]);
            assert_eq!(listed, fetched);
            for job in &fetched {
                assert_eq!(job.attempt.counters, counters(attempts, 0));
                let end = if attempts == 1 { AttemptEnd::Retry { due_ms: 0 } } else { AttemptEnd::Done };
                assert_eq!(worker.settle(job, end).await, SettleOutcome::Accepted);
            }
        }
    }
}

/// Resque's tools may name a queue in any way.
pub async fn a_queue_may_have_any_name(store: SharedTasks) {
    for name in ["100%", "%d %s %%", "a b 1 2 3", "%1"] {
        let worker = LawWorker::serving(&store, nodes()[0], &[name]);
        enqueue(&store, &["a", "b", "c"].map(|id| NewJob { queue: name.into(), ..job(id) })).await;
        for attempts in 1..=2 {
            let fetched = worker.fetch(3).await;
            assert_eq!(ids_of(&fetched), ["a", "b", "c"], "{name}");
            for job in &fetched {
                assert_eq!((&*job.attempt.queue, job.attempt.counters), (name, counters(attempts, 0)));
                let end = if attempts == 1 { AttemptEnd::Retry { due_ms: 0 } } else { AttemptEnd::Done };
                assert_eq!(worker.settle(job, end).await, SettleOutcome::Accepted, "{name}");
            }
        }
    }
}

/// Those that are listed already stay as they are.
pub async fn attempts_are_listed_again(store: SharedTasks) {
    enqueue(&store, &["a", "b"].map(job)).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch(2).await;
    worker.settle(&fetched[0], AttemptEnd::Dropped).await;
    store.list_again(nodes()[0], &fetched, &[], &[]).await.expect("the backend answers");
    let mut listed = store.attempts(nodes()[0]).await.expect("the backend answers");
    listed.sort_by_key(|job| job.attempt.token);
    assert_eq!(listed, fetched);
    for job in &fetched {
        assert_eq!(worker.settle(job, AttemptEnd::Done).await, SettleOutcome::Accepted);
    }
}
