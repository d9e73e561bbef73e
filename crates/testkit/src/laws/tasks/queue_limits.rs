//! Laws of limits of queues in the cluster.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use phalanx_core::backend::{
    AttemptEnd, FetchedJob, GiveBackOutcome, HeldUpQueue, JobRate, JobReport, LimitedQueue, NewBatch, NewJob,
    QueueLimits, SettleOutcome, Settlement, WorkerReply,
};
use tokio::time::timeout;

use super::{LawWorker, NEVER_US, SharedTasks, claiming, enqueue, failure, ids_of, job, nodes, now_ms, settlement};
use crate::laws::eventually;

/// The queue `q` with a limit of three, beside one of another name.
static THREE: LazyLock<[LimitedQueue; 2]> = LazyLock::new(|| {
    let of =
        |queue: &str, running| LimitedQueue::new(queue, QueueLimits { running: Some(running), ..QueueLimits::NONE });
    [of("another", 1), of("q", 3)]
});

/// The queue `q` with a rate: two begin together, each next one a quarter of a second later.
static RATE: LazyLock<[LimitedQueue; 1]> = LazyLock::new(|| {
    let rate = Some(JobRate { jobs: 40, window: Duration::from_secs(10) });
    [LimitedQueue::new("q", QueueLimits { rate, ..QueueLimits::NONE })]
});

async fn call(worker: &LawWorker, settlements: &[Settlement], wanted: usize) -> WorkerReply {
    worker.call(settlements, wanted, |call| call.limited = &*THREE).await
}

async fn end_as(worker: &LawWorker, job: &FetchedJob, end: AttemptEnd) -> SettleOutcome {
    call(worker, &[settlement(job, end)], 0).await.settled.remove(0)
}

fn held_up(queue: &str) -> HeldUpQueue {
    HeldUpQueue { queue: queue.into(), opens_in: None }
}

/// However an attempt ends, its end makes room for one, and what waits beyond is no reason to look again.
pub async fn no_more_jobs_of_a_queue_run_in_the_cluster_than_its_limit(store: SharedTasks) {
    let jobs: Vec<NewJob> = (0..12).map(|number| claiming(&number.to_string(), &number.to_string())).collect();
    enqueue(&store, &jobs[..3]).await;
    enqueue(&store, &(3..12).map(|number| job(&number.to_string())).collect::<Vec<_>>()).await;
    let (one, other) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    let reply = call(&one, &[], 9).await;
    let mut running = reply.fetched;
    assert_eq!((ids_of(&running), reply.has_more), (["0", "1", "2"].map(str::to_owned).to_vec(), false));
    assert_eq!((reply.held_up, reply.spoilt), (vec![held_up("q")], vec![]));
    for (end, goes_back) in [
        (AttemptEnd::Done, false), // with a claim, and so by a step of its own
        (AttemptEnd::Dropped, false),
        (AttemptEnd::Park { class: "c".into() }, false),
        (AttemptEnd::Done, false),
        (AttemptEnd::Retry { due_ms: now_ms() + 3_600_000 }, false),
        (AttemptEnd::Snooze { due_ms: now_ms() + 3_600_000 }, false),
        (AttemptEnd::Retry { due_ms: 0 }, true),
        (AttemptEnd::GiveBack, true),
        (AttemptEnd::Failed { record: Bytes::from_static(b"{}") }, false),
    ] {
        assert_eq!(call(&other, &[], 9).await.fetched, [], "before one ends as {end:?}");
        let (node, job) = (&one, running.remove(0));
        let by_other = node.call(&[], 0, |_| {}).await; // a call that ends nothing makes no room
        assert_eq!(by_other.fetched, []);
        let is_failure = matches!(end, AttemptEnd::Failed { .. });
        let end = if is_failure { failure(&job) } else { end };
        let reply = call(node, &[settlement(&job, end.clone())], 9).await;
        assert_eq!(reply.settled, [SettleOutcome::Accepted]);
        assert_eq!(reply.fetched.len(), 1, "as one ends as {end:?}");
        assert!(!reply.has_more && reply.held_up == [held_up("q")] || !goes_back, "{end:?}: {reply:?}");
        running.extend(reply.fetched);
    }
}

/// By the call of another node, in which the queue is beside others without a limit.
pub async fn a_limit_keeps_no_jobs_of_other_queues(store: SharedTasks) {
    let of = |id: &str, queue: &str| NewJob { queue: queue.into(), ..job(id) };
    enqueue(&store, &[of("a", "another"), of("b", "another"), of("x", "free"), of("1", "q"), of("2", "q")]).await;
    let worker = LawWorker::serving(&store, nodes()[0], &["another", "free", "q"]);
    let reply = call(&worker, &[], 9).await;
    assert_eq!((ids_of(&reply.fetched), reply.has_more), (["a", "x", "1", "2"].map(str::to_owned).to_vec(), false));
    assert_eq!(reply.held_up, [held_up("another")]);
    // All of them by one call, plain ones of several queues among them, and one with a step of its own without a limit.
    let end = |job: &FetchedJob| if &*job.attempt.queue == "free" { AttemptEnd::Dropped } else { AttemptEnd::Done };
    let ends: Vec<Settlement> = reply.fetched.iter().map(|job| settlement(job, end(job))).collect();
    let reply = call(&worker, &ends, 9).await;
    assert_eq!((reply.settled, ids_of(&reply.fetched)), (vec![SettleOutcome::Accepted; 4], vec!["b".to_owned()]));
    assert_eq!((reply.held_up, store.stats().await.expect("the backend answers").processed), (vec![], 3));
    // Nor parked ones.
    enqueue(&store, &[of("y", "free")]).await;
    let parked = call(&worker, &[], 1).await.fetched.remove(0);
    end_as(&worker, &parked, AttemptEnd::Park { class: "c".into() }).await;
    let taken = worker.take_parked_with(&["c"], 9, |call| call.limited = &*THREE).await;
    assert_eq!(ids_of(&taken.expect("the backend answers").fetched), ["y"]);
    // One that another node serves stays parked: only those of a queue at its limit go back.
    enqueue(&store, &[of("z", "elsewhere")]).await;
    let elsewhere = LawWorker::serving(&store, nodes()[1], &["elsewhere"]);
    let parked = elsewhere.fetch_one().await;
    elsewhere.settle(&parked, AttemptEnd::Park { class: "c".into() }).await;
    let taken = worker.take_parked_with(&["c"], 9, |call| call.limited = &*THREE).await;
    assert_eq!(taken.expect("the backend answers").fetched, []);
    assert_eq!(store.waiting("elsewhere", 0, 9).await.expect("the backend answers").len(), 0);
}

/// Also if it is plain; and an attempt with a report makes room as well.
pub async fn a_repeated_settlement_makes_room_once(store: SharedTasks) {
    let jobs: Vec<NewJob> = (0..9).map(|number| job(&number.to_string())).collect();
    enqueue(&store, &jobs).await;
    let (one, other) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    let running = call(&one, &[], 9).await.fetched;
    assert_eq!(running.len(), 3);
    for _ in 0..3 {
        end_as(&one, &running[0], AttemptEnd::Done).await;
    }
    assert_eq!(end_as(&one, &running[0], AttemptEnd::GiveBack).await, SettleOutcome::Superseded);
    assert_eq!(call(&other, &[], 9).await.fetched.len(), 1);
    let report = JobReport { id: "1".into(), progress: Some("1".into()), result: None, missing: None };
    let reported = Settlement { report: Some(Box::new(report)), ..settlement(&running[1], AttemptEnd::Done) };
    assert_eq!(call(&one, &[reported], 0).await.settled, [SettleOutcome::Accepted]);
    assert_eq!(call(&other, &[], 9).await.fetched.len(), 1);
}

/// Its end has consequences, and so a step of its own.
pub async fn a_member_of_a_batch_makes_room_at_its_end(store: SharedTasks) {
    let batch = NewBatch { id: "b".into(), deadline_ms: now_ms() + 3_600_000, completion: None };
    assert_eq!(store.create_batch(&batch, NEVER_US).await.expect("the backend answers"), None);
    let member = |id: String| {
        let text = format!(r#"{{"class":"c","queue":"q","args":[],"id":"{id}","batch":"b"}}"#);
        NewJob { text: text.into(), batch: Some("b".into()), ..job(&id) }
    };
    enqueue(&store, &(0..6).map(|number| member(number.to_string())).collect::<Vec<_>>()).await;
    let (one, other) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    let running = call(&one, &[], 9).await.fetched;
    assert_eq!((running.len(), call(&other, &[], 9).await.fetched.len()), (3, 0));
    for (job, end) in running.iter().zip([AttemptEnd::Done, AttemptEnd::Dropped, failure(&running[2])]) {
        assert!(settlement(job, end.clone()).consequences.is_some(), "it counts for its batch");
        assert_eq!(call(&one, &[settlement(job, end)], 0).await.settled, [SettleOutcome::Accepted]);
        assert_eq!(call(&other, &[], 9).await.fetched.len(), 1);
    }
}

/// They are counted with no one once the first of them has gone back.
pub async fn the_attempts_of_a_dead_node_take_no_room(store: SharedTasks) {
    let jobs: Vec<NewJob> = (0..4).map(|number| job(&number.to_string())).collect();
    enqueue(&store, &jobs).await;
    let (reaper, dead) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    assert_eq!(call(&dead, &[], 2).await.fetched.len(), 2);
    assert_eq!(call(&reaper, &[], 9).await.fetched.len(), 1);
    let [by, of] = nodes();
    let given_back = store.give_back(by, of, "w:1").await.expect("the backend answers");
    assert_eq!(given_back, GiveBackOutcome::Some(vec![]));
    assert_eq!(call(&reaper, &[], 9).await.fetched.len(), 2);
    assert_eq!(call(&reaper, &[], 9).await.fetched, []);
}

/// At once: another node may fetch before this one calls again. Those that were listed stay, and count once.
pub async fn attempts_that_are_listed_again_take_room_at_once(store: SharedTasks) {
    let jobs: Vec<NewJob> = (0..9).map(|number| job(&number.to_string())).collect();
    enqueue(&store, &jobs).await;
    let (one, other) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    let running = call(&one, &[], 9).await.fetched;
    for lost in &running[..2] {
        end_as(&one, lost, AttemptEnd::Dropped).await;
    }
    for _ in 0..2 {
        store.list_again(nodes()[0], &running, &*THREE, &[]).await.expect("the backend answers");
        assert_eq!(call(&other, &[], 9).await.fetched, []);
    }
    let reply = call(&one, &running.iter().map(|job| settlement(job, AttemptEnd::Done)).collect::<Vec<_>>(), 9).await;
    assert_eq!(reply.settled, vec![SettleOutcome::Accepted; 3]);
    assert!(reply.fetched.len() > 1, "its share of three: {:?}", reply.fetched);
}

/// Once, and as soon as the limit permits it: those ends that make room fill it from the queue, so it has to be the next one there.
pub async fn a_parked_job_waits_for_room_in_its_queue(store: SharedTasks) {
    let jobs: Vec<NewJob> = (0..5).map(|number| job(&number.to_string())).collect();
    enqueue(&store, &jobs).await;
    let (one, other) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    for parked in call(&one, &[], 2).await.fetched {
        end_as(&one, &parked, AttemptEnd::Park { class: "c".into() }).await;
    }
    let running = call(&one, &[], 2).await.fetched;
    let take = async || {
        let reply = other.take_parked_with(&["c"], 9, |call| call.limited = &*THREE).await;
        reply.expect("the backend answers").fetched
    };
    assert_eq!((running.len(), take().await.len()), (2, 1));
    assert_eq!((call(&one, &[], 9).await.fetched, take().await), (vec![], vec![]), "those that were parked count");
    let settled = call(&one, &[settlement(&running[0], AttemptEnd::Done)], 9).await;
    assert_eq!((ids_of(&settled.fetched), take().await), (vec!["1".to_owned()], vec![]));
}

/// It waits for a node that may take it: among the jobs of its queue it would be fetched beside others that may be what kills nodes.
pub async fn a_parked_suspect_of_a_queue_at_its_limit_stays_parked(store: SharedTasks) {
    enqueue(&store, &[job("suspect")]).await;
    let (one, dying) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    for _ in 0..2 {
        assert_eq!(dying.fetch(9).await.len(), 1);
        store.give_back(nodes()[0], nodes()[1], "w:1").await.expect("the backend answers");
    }
    let suspect = call(&one, &[], 9).await.fetched.remove(0);
    assert!(suspect.attempt.counters.is_suspect());
    end_as(&one, &suspect, AttemptEnd::Park { class: "c".into() }).await;
    enqueue(&store, &["a", "b", "c"].map(job)).await;
    let running = call(&one, &[], 9).await.fetched;
    assert_eq!(running.len(), 3);
    let take = async || {
        let reply = one.take_parked_with(&["c"], 9, |call| call.limited = &*THREE).await;
        ids_of(&reply.expect("the backend answers").fetched)
    };
    assert_eq!(take().await, Vec::<String>::new());
    let stats = store.stats().await.expect("the backend answers");
    assert_eq!((stats.queues, stats.parked), (vec![("q".to_owned(), 0)], 1));
    end_as(&one, &running[0], AttemptEnd::Done).await;
    assert_eq!(take().await, ["suspect"]);
}

/// Whichever nodes ask. What was not used is kept for a short while only.
pub async fn jobs_of_a_queue_begin_by_its_rate(store: SharedTasks) {
    let jobs: Vec<NewJob> = (0..9).map(|number| job(&number.to_string())).collect();
    enqueue(&store, &jobs).await;
    let workers = [LawWorker::new(&store, 0), LawWorker::new(&store, 1)];
    let look = async |of: &LawWorker| of.call(&[], 9, |call| call.limited = &*RATE).await;
    let began_ms = now_ms();
    let reply = look(&workers[0]).await;
    assert_eq!((reply.fetched.len(), reply.has_more, reply.held_up.len()), (2, false, 1), "{reply:?}");
    let opens_in = reply.held_up[0].opens_in.expect("the rate opens it");
    assert!((1..=250_000).contains(&opens_in.as_micros()), "{opens_in:?}");
    for number in [1, 0, 1] {
        eventually("the next one may begin", || async { look(&workers[number]).await.fetched.len() == 1 }).await;
    }
    assert!(now_ms() - began_ms >= 749, "three quarters of a second for three: {} ms", now_ms() - began_ms);
}

/// The call that ends an attempt, and leaves what waits to others, wakes them.
pub async fn a_settlement_that_makes_room_in_a_queue_at_its_limit_wakes(store: SharedTasks) {
    let jobs: Vec<NewJob> = (0..5).map(|number| job(&number.to_string())).collect();
    let worker = LawWorker::new(&store, 0);
    // Until the subscription stands, and nothing is left of earlier wake-ups.
    let wakes = async |limit| timeout(Duration::from_millis(limit), store.woken()).await.is_ok();
    eventually("enqueues wake", || async {
        enqueue(&store, &[job("first")]).await;
        let is_woken = wakes(100).await;
        for fetched in worker.fetch(9).await {
            worker.settle(&fetched, AttemptEnd::Done).await;
        }
        is_woken
    })
    .await;
    enqueue(&store, &jobs).await;
    let running = call(&worker, &[], 9).await.fetched;
    while wakes(50).await {}
    let reply = call(&worker, &[settlement(&running[0], AttemptEnd::Done)], 9).await;
    assert_eq!(reply.fetched.len(), 1);
    assert!(!wakes(20).await, "its own call has filled the room");
    let reply = call(&worker, &[settlement(&running[1], AttemptEnd::Done)], 0).await;
    assert_eq!(reply.held_up, [], "it has room");
    assert!(wakes(4_000).await, "the room is another's"); // a connection that is quiet for 5 s wakes by its heartbeat
}
