//! Laws of tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use phalanx_core::Generation;
use phalanx_core::backend::{
    AttemptEnd, DeleteOutcome, EnqueueOutcome, FetchedJob, GiveBackOutcome, JobCounters, JobState, MOVE_BATCH, NewJob,
    SettleOutcome, Settlement, TakeOutcome, TaskStore, UniqueClaim, WorkerCall, WorkerReply,
};
use phalanx_core::job::{FailedJob, FailedRecord, JobText};
use tokio::time::timeout;

use super::{SOON, eventually};

/// Turns each law of tasks into a test: `task_laws!(memory: make())`.
#[macro_export]
macro_rules! task_laws {
    ($backend:ident: $make:expr) => {
        $crate::laws_of!(
            tasks,
            $backend,
            $make,
            [
                jobs_are_fetched_in_the_order_of_their_enqueue,
                queues_are_served_in_their_order,
                a_job_is_returned_byte_for_byte_by_every_way,
                an_id_names_one_content,
                a_claim_has_one_job_until_that_is_over,
                a_claim_that_another_job_has_by_then_is_reported,
                a_job_is_fetched_when_it_is_due,
                an_enqueue_after_its_deadline_stores_nothing,
                an_attempt_is_settled_once,
                a_call_after_its_deadline_settles_and_fetches_nothing,
                a_retry_counts_the_attempt_and_a_snooze_does_not,
                a_job_that_is_given_back_is_the_next_one,
                retried_and_fresh_jobs_take_turns,
                a_dropped_job_is_over_and_counts_as_nothing,
                a_failed_job_is_listed_removed_and_retried,
                a_retry_of_a_failed_job_needs_its_claim,
                a_paused_queue_keeps_its_jobs,
                no_more_jobs_are_fetched_than_wanted,
                no_more_bytes_are_fetched_than_allowed,
                one_suspect_is_fetched_at_a_time,
                due_jobs_are_promoted_in_batches,
                attempts_of_a_dead_node_go_back_and_count_a_death,
                many_attempts_of_a_dead_node_go_back_in_batches,
                the_third_death_convicts,
                a_parked_job_waits_for_a_node_that_knows_its_class,
                a_job_that_was_parked_for_too_long_fails,
                a_delayed_job_is_deleted_with_its_claim,
                a_waiting_job_that_was_deleted_is_marked_when_it_is_fetched,
                a_running_job_that_was_deleted_is_to_be_cancelled,
                a_failed_job_is_deleted,
                the_reaper_drops_deleted_jobs,
                the_state_of_a_job_follows_it,
                the_numbers_of_the_queue_add_up,
                attempts_are_listed_again,
                waiting_jobs_are_listed,
                an_enqueue_wakes,
            ]
        );
    };
}

type SharedTasks = Arc<dyn TaskStore>;

/// A time that does not come.
const NEVER_US: u64 = u64::MAX / 4;

/// The most bytes of a call, unless the law is about them.
const MANY_BYTES: usize = 256 * 1024;

/// A token as nodes count them, from the µs of their start: Lua writes such a number with an exponent by default.
const FIRST_TOKEN: u64 = 1_795_959_890_195_300;

/// The generations of the laws: both have a lease where the store checks that, and the first has the claim on the second.
pub fn nodes() -> [Generation; 2] {
    ["aaaaaaaaaa", "bbbbbbbbbb"].map(|name| Generation::parse(name).expect("ten characters of base32"))
}

fn now_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    u64::try_from(elapsed.as_millis()).expect("a time of this age")
}

/// A job of the queue `q`.
pub fn job(id: &str) -> NewJob {
    let text = format!(r#"{{"class":"c","queue":"q","args":[],"id":"{id}"}}"#);
    NewJob { id: id.into(), queue: "q".into(), text: text.into(), due_ms: None, unique: None, digest: None }
}

fn claiming(id: &str, key: &str) -> NewJob {
    let text = format!(r#"{{"class":"c","queue":"q","args":[],"id":"{id}","unique":"{key}"}}"#);
    let unique = Some(UniqueClaim { key: key.into(), ttl_ms: 600_000 });
    NewJob { text: text.into(), unique, ..job(id) }
}

/// Stores jobs.
pub async fn enqueue(store: &SharedTasks, jobs: &[NewJob]) -> Vec<EnqueueOutcome> {
    store.enqueue(jobs, NEVER_US).await.expect("the backend answers")
}

fn id_of(job: &FetchedJob) -> String {
    JobText::read(&job.text).and_then(|text| text.id).expect("jobs of laws have ids").into_owned()
}

fn ids_of(jobs: &[FetchedJob]) -> Vec<String> {
    jobs.iter().map(id_of).collect()
}

/// The settlement of a job of these laws.
pub fn settlement(job: &FetchedJob, end: AttemptEnd) -> Settlement {
    let text = JobText::read(&job.text);
    let (id, unique) = text.map(|text| (text.id, text.unique)).unwrap_or_default();
    let own = |text: std::borrow::Cow<'_, str>| text.as_ref().into();
    Settlement { attempt: job.attempt.clone(), id: id.map(own), end, unique: unique.map(own) }
}

/// The end of an attempt with a record.
pub fn failure(job: &FetchedJob) -> AttemptEnd {
    let record = FailedRecord {
        worker: "w:1",
        queue: &job.attempt.queue,
        text: &job.text,
        exception: "internal",
        error: "it broke",
        failed_at_ms: now_ms(),
        counters: job.attempt.counters,
    };
    AttemptEnd::Failed { record: record.write() }
}

/// A node that runs jobs.
pub struct LawWorker {
    store: SharedTasks,
    generation: Generation,
    token: AtomicU64,
    queues: Vec<Arc<str>>,
}

impl std::fmt::Debug for LawWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LawWorker({})", self.generation)
    }
}

impl LawWorker {
    /// The first node, or the second.
    pub fn new(store: &SharedTasks, number: usize) -> Self {
        Self::serving(store, nodes()[number], &["q"])
    }

    /// A node that serves these queues.
    pub fn serving(store: &SharedTasks, generation: Generation, queues: &[&str]) -> Self {
        let queues = queues.iter().map(|queue| Arc::from(*queue)).collect();
        Self { store: store.clone(), generation, token: AtomicU64::new(FIRST_TOKEN), queues }
    }

    /// Calls with changes to what a call of this worker is.
    pub async fn call(
        &self,
        settlements: &[Settlement],
        wanted: usize,
        change: impl FnOnce(&mut WorkerCall<'_>),
    ) -> WorkerReply {
        let mut call = WorkerCall {
            generation: self.generation,
            settlements,
            first_token: self.token.fetch_add(100, Relaxed),
            wanted,
            queues: &self.queues,
            fetch_until_us: NEVER_US,
            takes_suspect: true,
            max_bytes: MANY_BYTES,
        };
        change(&mut call);
        self.store.exchange(&call).await.expect("the backend answers")
    }

    /// Fetches.
    pub async fn fetch(&self, wanted: usize) -> Vec<FetchedJob> {
        self.call(&[], wanted, |_| {}).await.fetched
    }

    /// Fetches the only job that is there.
    pub async fn fetch_one(&self) -> FetchedJob {
        let mut fetched = self.fetch(2).await;
        assert_eq!(fetched.len(), 1, "{fetched:?}");
        fetched.remove(0)
    }

    /// Settles an attempt.
    pub async fn settle(&self, job: &FetchedJob, end: AttemptEnd) -> SettleOutcome {
        let mut settled = self.call(&[settlement(job, end)], 0, |_| {}).await.settled;
        assert_eq!(settled.len(), 1);
        settled.remove(0)
    }
}

fn counters(attempts: u32, deaths: u32) -> JobCounters {
    JobCounters { attempts, deaths, stalls: 0 }
}

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
                assert_eq!(store.unpark(&["c".into()]).await.expect("the backend answers"), 1);
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

/// The same content may be enqueued again and is stored once, for as long as a day; another content is refused.
pub async fn an_id_names_one_content(store: SharedTasks) {
    let chosen = |digest: u8| NewJob { digest: Some([digest; 16]), ..job("mine") };
    let existing = || EnqueueOutcome::Existing("mine".into());
    assert_eq!(
        enqueue(&store, &[chosen(1), chosen(1), chosen(2)]).await,
        [EnqueueOutcome::Stored, existing(), EnqueueOutcome::Conflict]
    );
    assert_eq!(enqueue(&store, &[chosen(2)]).await, [EnqueueOutcome::Conflict]);
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch_one().await;
    worker.settle(&fetched, AttemptEnd::Done).await;
    assert_eq!(enqueue(&store, &[chosen(1)]).await, [existing()], "also after its end");
    assert_eq!(worker.fetch(1).await.len(), 0);
}

/// Done, dropped or failed; not by a retry.
pub async fn a_claim_has_one_job_until_that_is_over(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    for (round, ends) in
        [AttemptEnd::Done, AttemptEnd::Dropped, AttemptEnd::Failed { record: "{}".into() }].into_iter().enumerate()
    {
        let [first, second] = ["a", "b"].map(|name| format!("{name}{round}"));
        assert_eq!(
            enqueue(&store, &[claiming(&first, "k"), claiming(&second, "k")]).await,
            [EnqueueOutcome::Stored, EnqueueOutcome::Existing(first.as_str().into())]
        );
        let fetched = worker.fetch_one().await;
        for end in [AttemptEnd::Retry { due_ms: 0 }, AttemptEnd::GiveBack] {
            let fetched = if end == AttemptEnd::GiveBack { worker.fetch_one().await } else { fetched.clone() };
            assert_eq!(worker.settle(&fetched, end).await, SettleOutcome::Accepted);
            let again = enqueue(&store, &[claiming(&second, "k")]).await;
            assert_eq!(again, [EnqueueOutcome::Existing(first.as_str().into())]);
        }
        let fetched = worker.fetch_one().await;
        assert_eq!(worker.settle(&fetched, ends).await, SettleOutcome::Accepted);
        assert_eq!(enqueue(&store, &[claiming(&second, "k"), claiming("other", "l")]).await[0], EnqueueOutcome::Stored);
        for job in worker.fetch(2).await {
            worker.settle(&job, AttemptEnd::Done).await;
        }
    }
}

/// It expired, and its job is over all the same; the claim of the other job stays.
pub async fn a_claim_that_another_job_has_by_then_is_reported(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    let brief = UniqueClaim { key: "k".into(), ttl_ms: 5 };
    enqueue(&store, &[NewJob { unique: Some(brief), ..claiming("a", "k") }]).await;
    let fetched = worker.fetch_one().await;
    eventually("the claim expires", || async {
        enqueue(&store, &[claiming("b", "k")]).await == [EnqueueOutcome::Stored]
    })
    .await;
    assert_eq!(worker.settle(&fetched, AttemptEnd::Done).await, SettleOutcome::ClaimLost);
    assert_eq!(worker.settle(&fetched, AttemptEnd::Done).await, SettleOutcome::Superseded);
    assert_eq!(enqueue(&store, &[claiming("c", "k")]).await, [EnqueueOutcome::Existing("b".into())]);
}

/// In the order of the times; the reply to a fetch says when the next one is.
pub async fn a_job_is_fetched_when_it_is_due(store: SharedTasks) {
    let (now, worker) = (now_ms(), LawWorker::new(&store, 0));
    let at = |id: &str, due_ms: u64| NewJob { due_ms: Some(due_ms), ..job(id) };
    let far = now + 600_000;
    enqueue(&store, &[at("far", far), at("second", now + 400), at("first", now + 300), at("past", now - 5)]).await;
    let reply = worker.call(&[], 9, |_| {}).await;
    assert_eq!((ids_of(&reply.fetched), reply.next_due_ms), (vec!["past".to_owned()], Some(now + 300)));
    eventually("two are due", || async {
        store.promote().await.expect("the backend answers").next_due_ms == Some(far)
    })
    .await;
    assert!(now_ms() >= now + 400);
    let reply = worker.call(&[], 9, |_| {}).await;
    assert_eq!((ids_of(&reply.fetched), reply.next_due_ms), (vec!["first".into(), "second".into()], Some(far)));
    assert_eq!(store.promote().await.expect("the backend answers").moved, 0);
}

/// A request that arrives late must not store what its sender has given up.
pub async fn an_enqueue_after_its_deadline_stores_nothing(store: SharedTasks) {
    assert!(store.enqueue(&[job("late")], 1000).await.is_err());
    assert_eq!(LawWorker::new(&store, 0).fetch(1).await.len(), 0);
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
    assert_eq!(store.state("a").await.expect("the backend answers"), JobState::Unknown);
}

/// By its record, as it is listed.
pub async fn a_failed_job_is_listed_removed_and_retried(store: SharedTasks) {
    enqueue(&store, &["a", "b", "c"].map(job)).await;
    let worker = LawWorker::new(&store, 0);
    for fetched in worker.fetch(3).await {
        let end = failure(&fetched);
        assert_eq!(worker.settle(&fetched, end).await, SettleOutcome::Accepted);
    }
    let failed = store.failed(0, 10).await.expect("the backend answers");
    let ids: Vec<_> = failed.iter().map(|record| FailedJob::read(record).id.expect("it has an id")).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(store.failed(1, 1).await.expect("the backend answers"), failed[1..2]);
    assert_eq!(store.failed(3, 1).await.expect("the backend answers"), Vec::<Bytes>::new());
    for outcome in [TakeOutcome::Taken, TakeOutcome::NotFound] {
        assert_eq!(store.take_failed(&failed[1], None).await.expect("the backend answers"), outcome);
    }
    for outcome in [TakeOutcome::Taken, TakeOutcome::NotFound] {
        let retry = Some(job("c"));
        assert_eq!(store.take_failed(&failed[2], retry).await.expect("the backend answers"), outcome);
    }
    assert_eq!(store.failed(0, 10).await.expect("the backend answers"), failed[..1]);
    let again = worker.fetch_one().await;
    assert_eq!((id_of(&again).as_str(), again.attempt.counters), ("c", counters(1, 0)));
}

/// Another job may have it by then: then the failed one stays.
pub async fn a_retry_of_a_failed_job_needs_its_claim(store: SharedTasks) {
    enqueue(&store, &[claiming("a", "k")]).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch_one().await;
    worker.settle(&fetched, failure(&fetched)).await;
    enqueue(&store, &[claiming("b", "k")]).await;
    let record = store.failed(0, 1).await.expect("the backend answers").remove(0);
    let retry = async || store.take_failed(&record, Some(claiming("a", "k"))).await.expect("the backend answers");
    assert_eq!(retry().await, TakeOutcome::Claimed("b".into()));
    assert_eq!(store.failed(0, 9).await.expect("the backend answers").len(), 1);
    let other = worker.fetch_one().await;
    worker.settle(&other, AttemptEnd::Done).await;
    assert_eq!(retry().await, TakeOutcome::Taken);
    assert_eq!(enqueue(&store, &[claiming("c", "k")]).await, [EnqueueOutcome::Existing("a".into())]);
}

/// In the whole cluster, until it is resumed, which wakes workers.
pub async fn a_paused_queue_keeps_its_jobs(store: SharedTasks) {
    enqueue(&store, &[job("a"), NewJob { queue: "other".into(), ..job("b") }]).await;
    store.set_paused("q", true).await.expect("the backend answers");
    let worker = LawWorker::serving(&store, nodes()[0], &["q", "other"]);
    let reply = worker.call(&[], 9, |_| {}).await;
    assert_eq!((ids_of(&reply.fetched), reply.has_more), (vec!["b".to_owned()], false));
    assert_eq!(store.stats().await.expect("the backend answers").paused, ["q"]);
    store.set_paused("q", false).await.expect("the backend answers");
    assert_eq!(ids_of(&worker.fetch(9).await), ["a"]);
    assert!(store.stats().await.expect("the backend answers").paused.is_empty());
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
}

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
    assert_eq!(store.state("a").await.expect("the backend answers"), JobState::Failed);
    assert_eq!(enqueue(&store, &[claiming("b", "k")]).await, [EnqueueOutcome::Stored]);
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
    assert_eq!(store.state("a").await.expect("the backend answers"), JobState::Waiting);
    assert_eq!(store.unpark(&["d".into()]).await.expect("the backend answers"), 0);
    assert_eq!(store.unpark(&["d".into(), "c".into()]).await.expect("the backend answers"), 2);
    let fetched = worker.fetch(3).await;
    assert_eq!((ids_of(&fetched), fetched[0].attempt.counters), (vec!["a".into(), "b".into()], counters(1, 0)));
    assert_eq!(store.stats().await.expect("the backend answers").parked, 0);
}

/// One that was parked later does not.
pub async fn a_job_that_was_parked_for_too_long_fails(store: SharedTasks) {
    enqueue(&store, &[claiming("a", "k")]).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch_one().await;
    worker.settle(&fetched, AttemptEnd::Park { class: "c".into() }).await;
    assert_eq!(store.fail_parked(now_ms() - 60_000, "w:1").await.expect("the backend answers"), 0);
    assert_eq!(store.fail_parked(now_ms() + 60_000, "w:1").await.expect("the backend answers"), 1);
    let record = FailedJob::read(&store.failed(0, 1).await.expect("the backend answers")[0]);
    assert_eq!((record.id.as_deref(), record.exception.as_str()), (Some("a"), "unknown_task"));
    assert_eq!(store.unpark(&["c".into()]).await.expect("the backend answers"), 0);
    assert_eq!(enqueue(&store, &[claiming("b", "k")]).await, [EnqueueOutcome::Stored]);
}

/// At once.
pub async fn a_delayed_job_is_deleted_with_its_claim(store: SharedTasks) {
    enqueue(&store, &[NewJob { due_ms: Some(now_ms() + 60_000), ..claiming("a", "k") }]).await;
    assert_eq!(store.delete("a").await.expect("the backend answers"), DeleteOutcome::Deleted);
    assert_eq!(store.delete("a").await.expect("the backend answers"), DeleteOutcome::NotFound);
    assert_eq!(store.stats().await.expect("the backend answers").delayed, 0);
    assert_eq!(enqueue(&store, &[claiming("b", "k")]).await, [EnqueueOutcome::Stored]);
}

/// The worker that fetches it drops it.
pub async fn a_waiting_job_that_was_deleted_is_marked_when_it_is_fetched(store: SharedTasks) {
    enqueue(&store, &["a", "b"].map(job)).await;
    assert_eq!(store.delete("b").await.expect("the backend answers"), DeleteOutcome::Marked);
    assert_eq!(store.delete("c").await.expect("the backend answers"), DeleteOutcome::NotFound);
    let worker = LawWorker::new(&store, 0);
    let reply = worker.call(&[], 5, |_| {}).await;
    let b = reply.fetched.iter().find(|job| id_of(job) == "b").expect("it was fetched");
    assert_eq!((reply.fetched.len(), &reply.deleted[..]), (2, &[b.attempt.token][..]));
    assert_eq!(worker.settle(b, AttemptEnd::Dropped).await, SettleOutcome::Accepted);
    assert_eq!(store.delete("b").await.expect("the backend answers"), DeleteOutcome::NotFound);
}

/// By its node.
pub async fn a_running_job_that_was_deleted_is_to_be_cancelled(store: SharedTasks) {
    enqueue(&store, &[job("a")]).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch_one().await;
    let outcome = store.delete("a").await.expect("the backend answers");
    assert_eq!(outcome, DeleteOutcome::Cancelling(nodes()[0]));
    assert_eq!(worker.settle(&fetched, AttemptEnd::Dropped).await, SettleOutcome::Accepted);
    assert_eq!(store.delete("a").await.expect("the backend answers"), DeleteOutcome::NotFound);
}

/// From their list.
pub async fn a_failed_job_is_deleted(store: SharedTasks) {
    enqueue(&store, &["a", "b"].map(job)).await;
    let worker = LawWorker::new(&store, 0);
    for fetched in worker.fetch(2).await {
        worker.settle(&fetched, failure(&fetched)).await;
    }
    assert_eq!(store.delete("a").await.expect("the backend answers"), DeleteOutcome::Deleted);
    assert_eq!(store.delete("a").await.expect("the backend answers"), DeleteOutcome::NotFound);
    let failed = store.failed(0, 9).await.expect("the backend answers");
    assert_eq!((failed.len(), FailedJob::read(&failed[0]).id.as_deref()), (1, Some("b")));
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

/// From its enqueue to its end.
pub async fn the_state_of_a_job_follows_it(store: SharedTasks) {
    let (worker, state) =
        (LawWorker::new(&store, 0), async |id: &str| store.state(id).await.expect("the backend answers"));
    let due_ms = now_ms() + 300;
    assert_eq!(state("a").await, JobState::Unknown);
    enqueue(&store, &[NewJob { due_ms: Some(due_ms), ..job("a") }]).await;
    assert_eq!(state("a").await, JobState::Delayed(due_ms));
    eventually("it is due", || async { store.promote().await.expect("the backend answers").moved == 1 }).await;
    assert_eq!(state("a").await, JobState::Waiting);
    let fetched = worker.fetch_one().await;
    assert_eq!(state("a").await, JobState::Running(nodes()[0]));
    let later = now_ms() + 60_000;
    worker.settle(&fetched, AttemptEnd::Retry { due_ms: later }).await;
    assert_eq!(state("a").await, JobState::Delayed(later));
    enqueue(&store, &["b", "c"].map(job)).await;
    for (fetched, end) in worker.fetch(2).await.iter().zip([AttemptEnd::Done, AttemptEnd::Failed { record: "".into() }])
    {
        let end = if end == AttemptEnd::Done { end } else { failure(fetched) };
        worker.settle(fetched, end).await;
    }
    assert_eq!((state("b").await, state("c").await), (JobState::Done, JobState::Failed));
    let record = store.failed(0, 1).await.expect("the backend answers").remove(0);
    store.take_failed(&record, None).await.expect("the backend answers");
    assert_eq!(state("c").await, JobState::Unknown);
}

/// Each job is counted at one place.
pub async fn the_numbers_of_the_queue_add_up(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    let of = |id: &str, queue: &str| NewJob { queue: queue.into(), ..job(id) };
    let delayed = NewJob { due_ms: Some(now_ms() + 60_000), ..job("f") };
    enqueue(&store, &[job("a"), job("b"), job("c"), job("d"), job("e"), of("g", "other"), delayed]).await;
    let fetched = worker.fetch(4).await;
    worker.settle(&fetched[0], AttemptEnd::Done).await;
    worker.settle(&fetched[1], failure(&fetched[1])).await;
    worker.settle(&fetched[2], AttemptEnd::Retry { due_ms: 0 }).await;
    let stats = store.stats().await.expect("the backend answers");
    assert_eq!(stats.queues, [("other".to_owned(), 1), ("q".to_owned(), 2)]);
    let numbers = [stats.running, stats.delayed, stats.parked, stats.failed, stats.processed];
    assert_eq!(numbers, [1, 1, 0, 1, 1]);
}

/// Those that are listed already stay as they are.
pub async fn attempts_are_listed_again(store: SharedTasks) {
    enqueue(&store, &["a", "b"].map(job)).await;
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch(2).await;
    worker.settle(&fetched[0], AttemptEnd::Dropped).await;
    store.list_again(nodes()[0], &fetched).await.expect("the backend answers");
    let mut listed = store.attempts(nodes()[0]).await.expect("the backend answers");
    listed.sort_by_key(|job| job.attempt.token);
    assert_eq!(listed, fetched);
    for job in &fetched {
        assert_eq!(worker.settle(job, AttemptEnd::Done).await, SettleOutcome::Accepted);
    }
}

/// All of a queue, in parts.
pub async fn waiting_jobs_are_listed(store: SharedTasks) {
    enqueue(&store, &["a", "b", "c", "d"].map(job)).await;
    let worker = LawWorker::new(&store, 0);
    let first = worker.fetch(1).await.remove(0);
    worker.settle(&first, AttemptEnd::Retry { due_ms: 0 }).await;
    let all = store.waiting("q", 0, 9).await.expect("the backend answers");
    assert_eq!(all, ["a", "b", "c", "d"].map(|id| job(id).text));
    for (skip, limit) in [(0, 2), (1, 2), (3, 9), (4, 1), (0, 0)] {
        let expected = &all[skip..(skip + limit).min(4)];
        assert_eq!(store.waiting("q", skip, limit).await.expect("the backend answers"), expected, "{skip} {limit}");
    }
}

/// A worker that waits for jobs need not ask again and again.
pub async fn an_enqueue_wakes(store: SharedTasks) {
    let worker = LawWorker::new(&store, 0);
    let is_woken = || async { timeout(std::time::Duration::from_millis(200), store.woken()).await.is_ok() };
    // The first ones may be for the subscription itself.
    while is_woken().await {}
    for round in ["a", "b"] {
        enqueue(&store, &[job(round)]).await;
        timeout(SOON, store.woken()).await.expect("a job was added");
        let fetched = worker.fetch_one().await;
        worker.settle(&fetched, AttemptEnd::Done).await;
    }
}
