//! Laws of jobs that take turns by their keys.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use phalanx_core::backend::{
    AttemptEnd, Consequences, DeleteOutcome, FailedTake, FetchedJob, GiveBackOutcome, JobRate, JobState, LimitedQueue,
    MAX_TURN_KEYS, NewBatch, NewJob, QueueLimits, SettleOutcome, Settlement, TakeOutcome, UniqueClaim,
};
use phalanx_core::job::{MAX_TURN_BYTES, turn_of};

use tokio::time::timeout;

use super::{
    LawTicks, LawWorker, NEVER_US, SharedTasks, enqueue, failure, ids_of, job, nodes, now_ms, settlement, state,
};
use crate::laws::eventually;

/// A wake-up comes within that. A connection that is silent for longer wakes as well.
const SOON: Duration = Duration::from_secs(2);

type Queues = LazyLock<[LimitedQueue; 1]>;

/// The queue `q`, in which jobs take turns.
fn queue_with(limits: QueueLimits) -> [LimitedQueue; 1] {
    [LimitedQueue { queue: "q".into(), limits, takes_turns: true }]
}

static TURNS: Queues = LazyLock::new(|| queue_with(QueueLimits::NONE));

/// The same with a limit of two.
static TWO: Queues = LazyLock::new(|| queue_with(QueueLimits { running: Some(2), ..QueueLimits::NONE }));

/// The same with a rate, by which four begin together.
static RATE: Queues = LazyLock::new(|| {
    let rate = Some(JobRate { jobs: 80, window: Duration::from_secs(3600) });
    queue_with(QueueLimits { rate, ..QueueLimits::NONE })
});

fn of_key(id: &str, key: &str) -> NewJob {
    let text = format!(r#"{{"class":"c","queue":"q","args":[],"id":"{id}","fair":"{key}"}}"#);
    NewJob { text: text.into(), ..job(id) }
}

fn many(count: usize, key: &str) -> Vec<NewJob> {
    (0..count).map(|number| of_key(&format!("{key}{number}"), key)).collect()
}

async fn call(worker: &LawWorker, ends: &[Settlement], wanted: usize) -> Vec<FetchedJob> {
    worker.skip_tokens(1); // the first token of a node's next call has another parity, by which a store may take turns
    worker.call(ends, wanted, |call| call.limited = &*TURNS).await.fetched
}

async fn fetch(worker: &LawWorker, wanted: usize) -> Vec<FetchedJob> {
    call(worker, &[], wanted).await
}

/// How many of these jobs are of each key; `""` for those without one.
fn counts(jobs: &[FetchedJob]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    jobs.iter().for_each(|job| *counts.entry(turn_of(&job.text).unwrap_or_default()).or_default() += 1);
    counts
}

/// The job of a key that is fetched within two turns; one of another key that is before it ends.
async fn next_of(worker: &LawWorker, key: &str, after: &str) -> FetchedJob {
    let mut fetched = fetch(worker, 1).await.remove(0);
    if turn_of(&fetched.text) != Some(key) {
        worker.settle(&fetched, AttemptEnd::Done).await;
        fetched = fetch(worker, 1).await.remove(0);
    }
    assert_eq!(turn_of(&fetched.text), Some(key), "after {after}");
    fetched
}

/// Whether they are fetched one by one or many at once; and in the order of their enqueue among those of their key.
pub async fn jobs_of_one_key_keep_none_of_others_waiting(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &many(100, "a")).await;
    enqueue(&store, &many(10, "b")).await;
    assert_eq!(store.stats().await.expect("the backend answers").queues, [("q".to_owned(), 110)]);
    let mut fetched = Vec::new();
    for wanted in [1, 1, 1, 1, 8, 3, 1, 4] {
        fetched.extend(fetch(&worker, wanted).await);
    }
    assert_eq!(counts(&fetched), BTreeMap::from([("a", 10), ("b", 10)]));
    let of_few: Vec<String> = ids_of(&fetched).into_iter().filter(|id| id.starts_with('b')).collect();
    assert_eq!(of_few, (0..10).map(|number| format!("b{number}")).collect::<Vec<_>>());
    let mut left = 0;
    while left < 90 {
        let more = fetch(&worker, 32).await.len();
        assert!(more > 0, "{left} of 90");
        left += more;
    }
    assert_eq!(fetch(&worker, 9).await, []);
}

/// It is new each time it has a job again, and has the turn of a new one.
pub async fn a_key_whose_jobs_come_one_by_one_keeps_none_of_others_waiting(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    for key in ["m", "z"] {
        enqueue(&store, &many(6, key)).await;
    }
    let mut fetched = Vec::new();
    for number in 0..18 {
        // By name it is before the others.
        if fetched.last().is_none_or(|job: &FetchedJob| turn_of(&job.text) == Some("a")) {
            enqueue(&store, &[of_key(&format!("a{number}"), "a")]).await;
        }
        fetched.extend(fetch(&worker, 1).await);
    }
    let counts = counts(&fetched);
    assert!(["a", "m", "z"].iter().all(|key| counts.get(key).is_some_and(|count| *count >= 4)), "{counts:?}");
}

/// A node takes its share of all that wait, also where each key has only one.
pub async fn a_node_takes_its_share_of_the_jobs_of_many_keys(store: SharedTasks) {
    let (worker, other) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    enqueue(&store, &(0..100).map(|key| of_key(&key.to_string(), &key.to_string())).collect::<Vec<_>>()).await;
    for node in [&worker, &other] {
        call(node, &[], 0).await; // it serves the queue
    }
    assert_eq!((fetch(&worker, 32).await.len(), fetch(&other, 32).await.len()), (32, 32));
}

/// Those without a key, retried and fresh ones, have every second turn together.
pub async fn jobs_with_and_without_keys_take_turns(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &(0..40).map(|number| job(&format!("r{number}"))).collect::<Vec<_>>()).await;
    let mut ends = Vec::new();
    while ends.len() < 40 {
        let retried = fetch(&worker, 32).await;
        ends.extend(retried.iter().map(|job| settlement(job, AttemptEnd::Retry { due_ms: 0 })));
    }
    for ends in ends.chunks(20) {
        call(&worker, ends, 0).await;
    }
    enqueue(&store, &(0..40).map(|number| job(&number.to_string())).collect::<Vec<_>>()).await;
    enqueue(&store, &many(80, "a")).await;
    for wanted in [8, 1] {
        let mut fetched = Vec::new();
        while fetched.len() < 40 {
            fetched.extend(fetch(&worker, wanted).await);
        }
        let keyed = counts(&fetched)["a"];
        let retried = ids_of(&fetched).iter().filter(|id| id.starts_with('r')).count();
        assert!((16..=24).contains(&keyed) && (4..=16).contains(&retried), "{wanted} at once: {keyed}, {retried}");
    }
}

/// By whichever way it comes to its queue: of two keys, one job at most is before it.
pub async fn a_job_that_comes_back_takes_its_turn(store: SharedTasks) {
    let (worker, dying) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    enqueue(&store, &many(40, "a")).await;
    let new = of_key("b", "b");
    enqueue(&store, std::slice::from_ref(&new)).await;
    let mut attempts = 1;
    for (end, counted) in [
        (AttemptEnd::Retry { due_ms: 0 }, 1),
        (AttemptEnd::Retry { due_ms: now_ms() + 5 }, 1),
        (AttemptEnd::GiveBack, 0),
        (AttemptEnd::Snooze { due_ms: now_ms() + 10 }, 0),
    ] {
        let fetched = next_of(&worker, "b", "the ends before").await;
        assert_eq!((&fetched.text, fetched.attempt.counters.attempts), (&new.text, attempts), "before {end:?}");
        worker.settle(&fetched, end).await;
        attempts += counted;
        eventually("it waits", || async {
            store.promote().await.expect("the backend answers");
            state(&store, "b").await == JobState::Waiting
        })
        .await;
    }
    next_of(&dying, "b", "its snooze").await;
    let [by, of] = nodes();
    assert_eq!(store.give_back(by, of, "w:1").await.expect("the backend answers"), GiveBackOutcome::Some(vec![]));
    let fetched = next_of(&worker, "b", "a reap").await;
    assert_eq!(fetched.attempt.counters.deaths, 1);
    worker.settle(&fetched, failure(&fetched)).await;
    let record = store.failed(0, 1).await.expect("the backend answers").remove(0);
    let again = FailedTake { record, retry: Some(new.clone()) };
    assert_eq!(store.take_failed(&[again]).await.expect("the backend answers"), [TakeOutcome::Taken]);
    let fetched = next_of(&worker, "b", "a retry of a failed one").await;
    worker.settle(&fetched, AttemptEnd::Park { class: "c".into() }).await;
    let parked = worker.take_parked_with(&["c"], 1, |call| call.limited = &*TURNS).await.expect("the backend answers");
    assert_eq!(parked.fetched[0].text, new.text);
    let follow_on = NewJob { digest: Some([1; 16]), ..of_key("c", "b") };
    let consequences = Consequences { follow_ups: vec![follow_on], ..Consequences::default() };
    let end = settlement(&parked.fetched[0], AttemptEnd::Done);
    call(&worker, &[Settlement { consequences: Some(Box::new(consequences)), ..end }], 0).await;
    let fetched = next_of(&worker, "b", "the end that it follows").await;
    assert_eq!(ids_of(&[fetched]), ["c"]);
}

/// Also if no node has fetched them yet.
pub async fn jobs_that_take_turns_are_listed_found_and_deleted(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &[of_key("a", "x"), of_key("b", "y"), of_key("c", "x")]).await;
    let stats = store.stats().await.expect("the backend answers");
    assert_eq!((stats.queues, stats.in_turns), (vec![("q".to_owned(), 3)], vec!["q".to_owned()]));
    for (skip, limit, count) in [(0, 9, 3), (1, 9, 2), (1, 1, 1), (2, 9, 1), (3, 9, 0)] {
        let texts = store.waiting("q", skip, limit).await.expect("the backend answers");
        assert_eq!(texts.len(), count, "{limit} from {skip}");
        assert!(texts.iter().all(|text| text.starts_with(b"{")), "{texts:?}");
    }
    assert_eq!(state(&store, "b").await, JobState::Waiting);
    assert_eq!(store.delete("b").await.expect("the backend answers"), DeleteOutcome::Marked);
    let reply = worker.call(&[], 9, |call| call.limited = &*TURNS).await;
    assert_eq!((reply.fetched.len(), reply.deleted.len()), (3, 1));
    let stats = store.stats().await.expect("the backend answers");
    assert_eq!((stats.queues, stats.in_turns), (vec![("q".to_owned(), 0)], vec![]));
}

/// Whose name comes behind its key. The completion takes the turn of a new key.
pub async fn a_member_of_a_batch_takes_its_turn_and_the_completion_too(store: SharedTasks) {
    let completion = Some(of_key("completion", "few"));
    let batch = NewBatch { id: "b".into(), deadline_ms: now_ms() + 3_600_000, completion };
    assert_eq!(store.create_batch(&batch, NEVER_US).await.expect("the backend answers"), None);
    let member = |id: &str, key: &str| {
        let text = format!(r#"{{"class":"c","queue":"q","args":[],"id":"{id}","fair":"{key}","batch":"b"}}"#);
        NewJob { text: text.into(), batch: Some("b".into()), ..job(id) }
    };
    enqueue(&store, &many(20, "a")).await;
    enqueue(&store, &[member("one", "few"), member("other", "few")]).await;
    let worker = LawWorker::new(&store, 0);
    for id in ["one", "other"] {
        let fetched = next_of(&worker, "few", "the enqueue").await;
        assert_eq!(ids_of(std::slice::from_ref(&fetched)), [id]);
        assert_eq!(worker.settle(&fetched, AttemptEnd::Done).await, SettleOutcome::Accepted);
    }
    store.seal_batch("b").await.expect("the backend answers");
    let fetched = next_of(&worker, "few", "the seal").await;
    assert_eq!(ids_of(&[fetched]), ["completion"]);
}

/// None is lost for it.
pub async fn jobs_of_further_keys_share_a_turn(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    let further = 5;
    let jobs: Vec<NewJob> =
        (0..MAX_TURN_KEYS + further).map(|key| of_key(&key.to_string(), &key.to_string())).collect();
    for batch in jobs.chunks(500) {
        enqueue(&store, batch).await;
    }
    let stats = store.stats().await.expect("the backend answers");
    assert_eq!(stats.queues, [("q".to_owned(), (MAX_TURN_KEYS + further) as u64)]);
    let mut fetched = Vec::new();
    loop {
        let more = fetch(&worker, 32).await;
        if more.is_empty() {
            break;
        }
        fetched.extend(ids_of(&more));
    }
    fetched.sort_unstable();
    fetched.dedup();
    assert_eq!(fetched.len(), MAX_TURN_KEYS + further);
}

/// A job is fetched once, as it came, whatever its text ends with; and takes turns if a node finds its key there.
pub async fn the_end_of_a_text_has_the_key(store: SharedTasks) {
    let longest = "x".repeat(MAX_TURN_BYTES);
    let tails = [
        r#""fair":"acme-1.b_c:d"}"#.to_owned(),
        format!(r#""fair":"{longest}"}}"#),
        r#""fair":"k","batch":"b#17"}"#.to_owned(),
        r#""fair":"k","batch":"b\\x#1"}"#.to_owned(),
        format!(r#""fair":"{longest}","batch":"{}"}}"#, "b".repeat(200)),
        // These have none.
        format!(r#""fair":"{longest}x"}}"#),
        format!(r#""fair":"k","batch":"{}"}}"#, "b".repeat(600)),
        r#""fair":"k","batch":"b\"x1"}"#.to_owned(),
        r#""fair":"k","batch":7}"#.to_owned(),
        r#""fair":"k","other":"x"}"#.to_owned(),
        r#""fair":"a b"}"#.to_owned(),
        r#""fair":"a\"b"}"#.to_owned(),
        r#""fair":"é"}"#.to_owned(),
        r#""fair":"~"}"#.to_owned(),
        r#""fair":""}"#.to_owned(),
        r#""fair":7}"#.to_owned(),
        r#""fair": "k"}"#.to_owned(),
        r#""unfair":"k"}"#.to_owned(),
        r#""a\",\"fair":"k"}"#.to_owned(),
        r#""a":",\"fair\":\"k"}"#.to_owned(),
        r#""a":{"b":1,"fair":"k"}}"#.to_owned(),
        r#""a":[{"b":1,"fair":"k"}],"batch":"b#1"}"#.to_owned(),
    ];
    let worker = LawWorker::new(&store, 0);
    for (number, tail) in tails.iter().enumerate() {
        let text = format!(r#"{{"class":"c","args":[],"id":"{number}",{tail}"#);
        enqueue(&store, &[NewJob { text: text.clone().into(), ..job(&number.to_string()) }]).await;
        for end in [AttemptEnd::Retry { due_ms: 0 }, AttemptEnd::Done] {
            let in_turns = store.stats().await.expect("the backend answers").in_turns.len();
            assert_eq!((turn_of(text.as_bytes()).is_some(), in_turns), (number < 5, usize::from(number < 5)), "{tail}");
            let fetched = fetch(&worker, 9).await;
            assert_eq!(fetched.iter().map(|job| &job.text[..]).collect::<Vec<_>>(), [text.as_bytes()]);
            worker.settle(&fetched[0], end).await;
        }
    }
}

/// A job that makes room is followed by the next turn; and a parked one for which there is none has the next turn of its key.
pub async fn a_queue_with_a_limit_has_turns(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    let of_limit = async |ends: &[Settlement]| worker.call(ends, 9, |call| call.limited = &*TWO).await;
    enqueue(&store, &many(20, "a")).await;
    enqueue(&store, &many(10, "b")).await;
    let mut running = of_limit(&[]).await.fetched;
    let mut all = counts(&running).into_iter().map(|(key, count)| (key.to_owned(), count)).collect::<BTreeMap<_, _>>();
    for _ in 0..18 {
        assert_eq!(running.len(), 2);
        let reply = of_limit(&[settlement(&running.remove(0), AttemptEnd::Done)]).await;
        assert_eq!((reply.fetched.len(), reply.has_more, reply.held_up.len()), (1, false, 1));
        running.extend(reply.fetched);
        *all.entry(turn_of(&running[1].text).unwrap_or_default().to_owned()).or_default() += 1;
    }
    assert_eq!(all, BTreeMap::from([("a".to_owned(), 10), ("b".to_owned(), 10)]));
    // One is parked, and another one takes its place.
    let parked = ids_of(&running[..1]).remove(0);
    let reply = of_limit(&[settlement(&running.remove(0), AttemptEnd::Park { class: "c".into() })]).await;
    running.extend(reply.fetched);
    let taken = worker.take_parked_with(&["c"], 9, |call| call.limited = &*TWO).await.expect("the backend answers");
    assert_eq!(taken.fetched, []);
    let mut followed = Vec::new();
    for _ in 0..2 {
        let reply = of_limit(&[settlement(&running.remove(0), AttemptEnd::Done)]).await;
        followed.extend(ids_of(&reply.fetched));
        running.extend(reply.fetched);
    }
    assert!(followed.contains(&parked), "{followed:?}, {parked}");
}

/// Jobs that are held up stay in their turns.
pub async fn a_rate_and_a_pause_hold_up_turns(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    enqueue(&store, &many(20, "a")).await;
    enqueue(&store, &many(2, "b")).await;
    store.set_paused("q", true).await.expect("the backend answers");
    let reply = worker.call(&[], 9, |call| call.limited = &*RATE).await;
    assert_eq!((reply.fetched, reply.has_more, reply.held_up), (vec![], false, vec![]));
    store.set_paused("q", false).await.expect("the backend answers");
    let reply = worker.call(&[], 9, |call| call.limited = &*RATE).await;
    assert_eq!(counts(&reply.fetched), BTreeMap::from([("a", 2), ("b", 2)]));
    assert!(!reply.has_more && reply.held_up.iter().all(|it| it.opens_in.is_some()) && reply.held_up.len() == 1);
    assert_eq!(store.stats().await.expect("the backend answers").queues, [("q".to_owned(), 18)]);
}

/// The attempts of a dead node go back before those of their keys that wait, each once, in their order.
pub async fn attempts_of_a_dead_node_have_the_next_turns_of_their_keys(store: SharedTasks) {
    let (worker, dying) = (LawWorker::new(&store, 0), LawWorker::new(&store, 1));
    enqueue(&store, &many(6, "a")).await;
    enqueue(&store, &many(6, "b")).await;
    assert_eq!(fetch(&dying, 6).await.len(), 6);
    let [by, of] = nodes();
    while store.give_back(by, of, "w:1").await.expect("the backend answers") != GiveBackOutcome::Done {}
    let mut fetched = Vec::new();
    while fetched.len() < 12 {
        let more = fetch(&worker, 3).await;
        assert!(!more.is_empty(), "{fetched:?}");
        fetched.extend(ids_of(&more));
    }
    for key in ["a", "b"] {
        let of_key: Vec<&str> = fetched.iter().map(String::as_str).filter(|id| id.starts_with(key)).collect();
        assert_eq!(of_key, (0..6).map(|number| format!("{key}{number}")).collect::<Vec<_>>());
    }
}

/// A store looks for it where it may be.
pub async fn a_tick_is_skipped_while_the_job_of_the_last_one_waits_for_its_turn(store: SharedTasks) {
    let ticks = LawTicks::skipping(&store);
    let unique = Some(UniqueClaim { key: "@t".into(), ttl_ms: 600_000 });
    enqueue(&store, &[NewJob { unique, ..of_key("t@-2", "x") }]).await;
    assert_eq!(ticks.ask(Some(-2), &[-1]).await, ticks.ticked(-1, &[], 1));
}

/// It is the first one of its queue.
pub async fn an_enqueue_of_a_job_that_takes_turns_wakes(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    let is_woken = || async { timeout(Duration::from_millis(200), store.woken()).await.is_ok() };
    // The first ones may be for the subscription itself.
    while is_woken().await {}
    for id in ["a", "b"] {
        enqueue(&store, &[of_key(id, "x")]).await;
        timeout(SOON, store.woken()).await.expect("a job was added");
        let fetched = next_of(&worker, "x", "its enqueue").await;
        worker.settle(&fetched, AttemptEnd::Done).await;
    }
}
