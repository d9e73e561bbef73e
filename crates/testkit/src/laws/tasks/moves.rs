//! Laws of jobs that change their place: due, of a dead node, parked.

use phalanx_core::backend::{
    AttemptEnd, DeleteOutcome, EnqueueOutcome, FetchedJob, GiveBackOutcome, JobCounters, JobState, MAX_REAPS,
    MAX_UNATTENDED, MOVE_BATCH, NewJob, SettleOutcome,
};
use phalanx_core::job::FailedJob;

use super::{LawWorker, SharedTasks, claiming, counters, enqueue, failure, ids_of, job, nodes, now_ms, state};
use crate::laws::eventually;

/// A batch is bounded: it holds up the store.
pub async fn due_jobs_are_promoted_in_batches(store: SharedTasks) {
    let due_ms = now_ms() + 300;
    let jobs: Vec<NewJob> =
        (0..250).map(|number| NewJob { due_ms: Some(due_ms), ..job(&format!("{number:03}")) }).collect();
    enqueue(&store, &jobs).await;
    assert_eq!(store.promote().await.expect("the backend answers").next_due_ms, Some(due_ms));
    eventually("they are due", || async { now_ms() > due_ms }).await;
    let mut moved = Vec::new();
    while moved.last() != Some(&0) {
        moved.push(store.promote().await.expect("the backend answers").moved);
    }
    assert_eq!(moved, [MOVE_BATCH, MOVE_BATCH, 50, 0]);
    assert_eq!(store.waiting("q", 0, 999).await.expect("the backend answers").len(), 250);
}

async fn give_back_all(store: &SharedTasks) -> Vec<FetchedJob> {
    let mut convicted = Vec::new();
    loop {
        match store.give_back(nodes()[0], nodes()[1], "host:9").await.expect("the backend answers") {
            GiveBackOutcome::Some(jobs) => convicted.extend(jobs),
            GiveBackOutcome::Done => return convicted,
            GiveBackOutcome::ClaimLost => panic!("the first node of the laws has the claim"),
        }
    }
}

/// The attempt does not count, and a settlement of the dead node is superseded.
pub async fn attempts_of_a_dead_node_go_back_and_count_a_death(store: SharedTasks) {
    let (worker, dying) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    enqueue(&store, &["a", "b", "c"].map(job)).await;
    let dead = dying.fetch(2).await;
    assert_eq!(give_back_all(&store).await, []);
    assert_eq!(store.attempts(nodes()[1]).await.expect("the backend answers"), []);
    assert_eq!(dying.settle(&dead[0], AttemptEnd::Done).await, SettleOutcome::Superseded);
    let mut fetched = worker.fetch(2).await; // a share of what waits is left to other nodes
    fetched.extend(worker.fetch(1).await);
    assert_eq!(ids_of(&fetched), ["a", "b", "c"], "they are the next ones, in their order");
    let of: Vec<JobCounters> = fetched.iter().map(|job| job.attempt.counters).collect();
    assert_eq!(of, [counters(1, 1), counters(1, 1), counters(1, 0)]);
}

/// All of them.
pub async fn many_attempts_of_a_dead_node_go_back_in_batches(store: SharedTasks) {
    let (worker, dying) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    let jobs: Vec<NewJob> = (0..450).map(|number| job(&number.to_string())).collect();
    enqueue(&store, &jobs).await;
    while !dying.fetch(32).await.is_empty() {}
    assert_eq!(store.stats().await.expect("the backend answers").running, 450);
    give_back_all(&store).await;
    let mut ids = Vec::new();
    loop {
        let fetched = worker.fetch(32).await;
        if fetched.is_empty() {
            break;
        }
        ids.extend(ids_of(&fetched));
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 450);
}

/// With a record that names the node, and without its claim.
pub async fn the_third_death_convicts(store: SharedTasks) {
    let dying = LawWorker::new(&store, 1);
    enqueue(&store, &[claiming("a", "k")]).await;
    for death in 1..=3 {
        let fetched = dying.fetch_one().await;
        assert_eq!(fetched.attempt.counters, counters(1, death - 1));
        let convicted = give_back_all(&store).await;
        assert_eq!(ids_of(&convicted), if death == 3 { vec!["a"] } else { vec![] });
        if let Some(convicted) = convicted.first() {
            assert_eq!(convicted.attempt.counters.deaths, 3);
        }
    }
    let record = FailedJob::read(&store.failed(0, 1).await.expect("the backend answers")[0]);
    assert_eq!((record.id.as_deref(), record.worker.as_str(), record.queue.as_str()), (Some("a"), "host:9", "q"));
    assert_eq!((record.exception.as_str(), record.counters.deaths), ("poison", 3));
    assert_eq!(state(&store, "a").await, JobState::Failed);
    assert_eq!(enqueue(&store, &[claiming("b", "k")]).await, [EnqueueOutcome::Stored]);
}

/// Whether it comes back before its jobs are given back, or after. The fifth reap convicts.
pub async fn a_reap_of_a_node_that_came_back_is_a_stall(store: SharedTasks) {
    let dying = LawWorker::new(&store, 1);
    enqueue(&store, &[claiming("a", "k")]).await;
    let mut counted = Vec::new();
    for reap in 1..=MAX_REAPS {
        let fetched = dying.fetch_one().await;
        counted.push((fetched.attempt.counters.deaths, fetched.attempt.counters.stalls));
        let convicted = give_back_all(&store).await;
        assert_eq!(convicted.len(), usize::from(reap == MAX_REAPS), "{reap}");
        for _ in 0..2 {
            store.came_back(nodes()[1]).await.expect("the backend answers"); // from now on it came back before
        }
    }
    assert_eq!(counted, [(0, 0), (1, 0), (0, 2), (0, 3), (0, 4)]);
    let record = FailedJob::read(&store.failed(0, 1).await.expect("the backend answers")[0]);
    assert_eq!((record.exception.as_str(), record.counters.deaths, record.counters.stalls), ("stalled", 0, 5));
    assert_eq!((record.id.as_deref(), record.counters.attempts), (Some("a"), 1));
    let taken = store.take_unattended(&["c"], 9).await.expect("the backend answers");
    assert_eq!(taken, store.failed(0, 1).await.expect("the backend answers"));
    assert_eq!(enqueue(&store, &[claiming("b", "k")]).await, [EnqueueOutcome::Stored]);
}

/// Also one that was parked for too long. Other nodes may know its class.
pub async fn a_job_that_failed_in_no_attempt_is_taken_once_by_its_class(store: SharedTasks) {
    let (worker, dying) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    enqueue(&store, &[job("a")]).await;
    for _ in 0..3 {
        dying.fetch_one().await;
        give_back_all(&store).await;
    }
    enqueue(&store, &["b", "c"].map(job)).await;
    for fetched in worker.fetch(2).await {
        worker.settle(&fetched, AttemptEnd::Park { class: "c".into() }).await;
    }
    assert_eq!(store.fail_parked(now_ms() + 60_000, "w:1", &[]).await.expect("the backend answers"), 2);
    let take = async |classes: &[&str], most| {
        let records = store.take_unattended(classes, most).await.expect("the backend answers");
        let failed = records.iter().map(FailedJob::read);
        failed.map(|failed| format!("{} {}", failed.id.unwrap_or_default(), failed.exception)).collect::<Vec<_>>()
    };
    assert_eq!(take(&["d"], 9).await, [""; 0]);
    assert_eq!(take(&["c"], 0).await, [""; 0]);
    assert_eq!(take(&["d", "c"], 2).await, ["a poison", "b unknown_task"]);
    assert_eq!(take(&["c"], 9).await, ["c unknown_task"]);
    assert_eq!(take(&["c"], 9).await, [""; 0]);
    // One that failed in an attempt is its node's affair.
    enqueue(&store, &[job("d")]).await;
    let fetched = worker.fetch_one().await;
    worker.settle(&fetched, failure(&fetched)).await;
    assert_eq!(take(&["c"], 9).await, [""; 0]);
    assert_eq!(store.stats().await.expect("the backend answers").failed, 4, "all of them stay on the list");
}

/// Beyond the bound the oldest are dropped.
pub async fn the_last_jobs_that_failed_in_no_attempt_are_kept(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    for round in 0..3 {
        let jobs: Vec<NewJob> = (0..MOVE_BATCH).map(|number| job(&format!("{round}-{number}"))).collect();
        enqueue(&store, &jobs).await;
        let mut left = MOVE_BATCH;
        while left > 0 {
            for fetched in worker.fetch(32).await {
                worker.settle(&fetched, AttemptEnd::Park { class: "c".into() }).await;
                left -= 1;
            }
        }
        let failed = store.fail_parked(now_ms() + 60_000, "w:1", &[]).await.expect("the backend answers");
        assert_eq!(failed, MOVE_BATCH);
    }
    let kept = store.take_unattended(&["c"], 999).await.expect("the backend answers");
    assert_eq!(kept.len(), MAX_UNATTENDED);
    assert_eq!(FailedJob::read(&kept[0]).id.as_deref(), Some("1-0"));
}

/// Until then it is not fetched.
pub async fn a_parked_job_waits_for_a_node_that_knows_its_class(store: SharedTasks) {
    enqueue(&store, &["a", "b"].map(job)).await;
    let worker = LawWorker::new(&store, 0);
    for fetched in worker.fetch(2).await {
        assert_eq!(worker.settle(&fetched, AttemptEnd::Park { class: "c".into() }).await, SettleOutcome::Accepted);
    }
    assert_eq!(worker.fetch(2).await, []);
    assert_eq!(store.stats().await.expect("the backend answers").parked, 2);
    assert_eq!(state(&store, "a").await, JobState::Waiting);
    assert_eq!(store.parked().await.expect("the backend answers"), ["c"]);
    let take = async |classes: &[&str], wanted| worker.take_parked(classes, wanted).await.expect("the backend answers");
    assert_eq!(take(&["d"], 2).await.fetched, []);
    let first = take(&["d", "c"], 1).await.fetched;
    assert_eq!((ids_of(&first), first[0].attempt.counters), (vec!["a".into()], counters(1, 0)));
    let second = take(&["d", "c"], 2).await.fetched;
    assert_eq!(ids_of(&second), ["b"]);
    assert_eq!(store.attempts(nodes()[0]).await.expect("the backend answers"), [first, second].concat());
    assert_eq!(take(&["c"], 2).await.fetched, []);
    assert_eq!(store.parked().await.expect("the backend answers"), [""; 0]);
    assert_eq!(store.stats().await.expect("the backend answers").parked, 0);
}

/// In its order, and as old as it is: that of a queue which the node does not serve, which is paused, or at its limit.
pub async fn a_parked_job_that_is_not_to_be_fetched_stays_parked(store: SharedTasks) {
    let (worker, other) = (LawWorker::new(&store, 0), LawWorker::serving(&store, nodes()[1], &["another"]));
    let both = LawWorker::serving(&store, nodes()[0], &["q", "another"]);
    let another = NewJob { queue: "another".into(), ..job("c") };
    enqueue(&store, &[job("a"), job("b"), another]).await;
    for fetched in [both.fetch(3).await, both.fetch(3).await].concat() {
        both.settle(&fetched, AttemptEnd::Park { class: "c".into() }).await;
    }
    let parked_ms = now_ms();
    eventually("time passes", || async { now_ms() > parked_ms }).await;
    let take = async |of: &LawWorker, limit: usize| {
        let reply = of.take_parked_with(&["c"], 9, |call| call.limits = std::slice::from_ref(&limit)).await;
        ids_of(&reply.expect("the backend answers").fetched)
    };
    store.set_paused("q", true).await.expect("the backend answers");
    assert_eq!(take(&worker, usize::MAX).await, [""; 0]);
    store.set_paused("q", false).await.expect("the backend answers");
    assert_eq!(take(&worker, 0).await, [""; 0]);
    assert_eq!(take(&other, usize::MAX).await, ["c"], "behind the others");
    assert_eq!(take(&worker, 1).await, ["a"]);
    assert_eq!(worker.fetch(9).await, []);
    assert_eq!(store.stats().await.expect("the backend answers").parked, 1);
    assert_eq!(store.fail_parked(parked_ms + 1, "w:1", &[]).await.expect("the backend answers"), 1);
}

/// One that was parked later does not.
pub async fn a_job_that_was_parked_for_too_long_fails(store: SharedTasks) {
    enqueue(&store, &[claiming("a", "k")]).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch_one().await;
    worker.settle(&fetched, AttemptEnd::Park { class: "c".into() }).await;
    let known = store.fail_parked(now_ms() + 60_000, "w:1", &["b", "c"]).await;
    assert_eq!(known.expect("the backend answers"), 0, "the caller will take it");
    assert_eq!(store.fail_parked(now_ms() - 60_000, "w:1", &[]).await.expect("the backend answers"), 0);
    assert_eq!(store.fail_parked(now_ms() + 60_000, "w:1", &[]).await.expect("the backend answers"), 1);
    let record = FailedJob::read(&store.failed(0, 1).await.expect("the backend answers")[0]);
    assert_eq!((record.id.as_deref(), record.exception.as_str()), (Some("a"), "unknown_task"));
    assert_eq!(worker.take_parked(&["c"], 9).await.expect("the backend answers").fetched, []);
    assert_eq!(enqueue(&store, &[claiming("b", "k")]).await, [EnqueueOutcome::Stored]);
}

/// They are not to run again.
pub async fn the_reaper_drops_deleted_jobs(store: SharedTasks) {
    enqueue(&store, &["a", "b"].map(job)).await;
    let (worker, dying) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    assert_eq!(dying.fetch(2).await.len(), 2);
    assert_eq!(store.delete("a").await.expect("the backend answers"), DeleteOutcome::Cancelling(nodes()[1]));
    give_back_all(&store).await;
    assert_eq!(ids_of(&worker.fetch(9).await), ["b"]);
}
