//! Laws of periodic tasks: each tick once, whichever nodes ask for it.

use std::sync::Arc;
use std::time::Duration;

use phalanx_core::backend::{
    AttemptEnd, DueTick, NewJob, SettleOutcome, TickCall, TickOutcome, TickRequest, UniqueClaim,
};

use super::{LawWorker, NEVER_US, SharedTasks, failure, ids_of, job, now_ms};

/// Ticks of a minute, of which some have been.
const MINUTE: u64 = 60_000;

/// A task that ticks each minute, as a node asks for its ticks.
#[derive(Clone)]
pub struct LawTicks {
    store: SharedTasks,
    /// The store's time when the law began, in ms: a whole minute.
    start_ms: u64,
    /// When the node began, in µs.
    pub since_us: u64,
    /// Its schedule.
    schedule: &'static str,
    /// Whether a tick is left out while the job of an earlier one is not over.
    skips: bool,
}

impl std::fmt::Debug for LawTicks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LawTicks({} since {})", self.schedule, self.since_us)
    }
}

impl LawTicks {
    /// A node.
    pub fn new(store: &SharedTasks) -> Self {
        let start_ms = now_ms() / MINUTE * MINUTE;
        Self { store: store.clone(), start_ms, since_us: 1000, schedule: "every minute", skips: false }
    }

    /// One whose task skips ticks.
    pub fn skipping(store: &SharedTasks) -> Self {
        Self { skips: true, ..Self::new(store) }
    }

    /// One with another schedule.
    pub fn of_schedule(store: &SharedTasks, schedule: &'static str) -> Self {
        Self { schedule, ..Self::new(store) }
    }

    /// The tick so many minutes from the start.
    pub fn minute(&self, minutes: i64) -> u64 {
        self.start_ms.saturating_add_signed(minutes * MINUTE as i64)
    }

    /// The request of a node that knows of a tick as the last one, and that these are due, given by their minutes.
    pub fn request(&self, task: &str, known: Option<i64>, due: &[i64]) -> TickRequest {
        let due = due.iter().map(|minutes| {
            let id = format!("{task}@{minutes}");
            let key = format!("@{task}");
            let text = format!(r#"{{"class":"{task}","queue":"q","args":[{{}}],"id":"{id}","unique":"{key}"}}"#);
            let unique = self.skips.then(|| UniqueClaim { key: key.into(), ttl_ms: 600_000 });
            let job = NewJob { text: text.into(), unique, ..job(&id) };
            DueTick { at_ms: self.minute(*minutes), job: Some(job) }
        });
        TickRequest {
            task: task.into(),
            schedule: self.schedule.into(),
            known_ms: known.map(|minutes| self.minute(minutes)),
            next_ms: self.minute(2), // not 1: a minute may end while the law runs
            due: due.collect(),
        }
    }

    /// Asks for the ticks of several tasks.
    pub async fn call(&self, tasks: &[TickRequest]) -> Vec<TickOutcome> {
        let call = TickCall { now_us: now_ms() * 1000, until_us: NEVER_US, since_us: self.since_us, tasks };
        self.store.tick(&call).await.expect("the backend answers")
    }

    /// Asks for the ticks of the task `t`.
    pub async fn ask(&self, known: Option<i64>, due: &[i64]) -> TickOutcome {
        self.call(&[self.request("t", known, due)]).await.remove(0)
    }

    /// The outcome of ticks, given by their minutes.
    pub fn ticked(&self, last: i64, enqueued: &[i64], skipped: usize) -> TickOutcome {
        let enqueued = enqueued.iter().map(|minutes| self.minute(*minutes)).collect();
        TickOutcome::Ticked { last_ms: self.minute(last), enqueued, skipped, missed: 0 }
    }
}

/// Those that ask later learn which one is the last.
pub async fn a_tick_is_enqueued_once_whichever_nodes_ask(store: SharedTasks) {
    let ticks = LawTicks::new(&store);
    assert_eq!(ticks.ask(Some(-3), &[-2]).await, ticks.ticked(-2, &[-2], 0));
    assert_eq!(ticks.ask(Some(-3), &[-2]).await, ticks.ticked(-2, &[], 0));
    assert_eq!(ticks.ask(None, &[]).await, ticks.ticked(-2, &[], 0));
    let calls = (0..8).map(|_| ticks.ask(Some(-2), &[-1, 0]));
    let outcomes = futures_util::future::join_all(calls).await;
    let enqueued = outcomes.iter().filter(|outcome| **outcome == ticks.ticked(0, &[-1, 0], 0)).count();
    assert_eq!(enqueued, 1, "{outcomes:?}");
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, TickOutcome::Ticked { last_ms, .. } if *last_ms == ticks.minute(0)))
    );
    let worker = LawWorker::new(&store, 0);
    assert_eq!(ids_of(&worker.fetch(9).await), ["t@-2", "t@-1", "t@0"]);
}

/// All due ticks of a node are one call, and each task is for itself.
pub async fn the_ticks_of_many_tasks_are_one_call(store: SharedTasks) {
    let ticks = LawTicks::new(&store);
    let names: Vec<String> = (0..50).map(|number| format!("t{number}")).collect();
    let requests: Vec<_> = names.iter().map(|name| ticks.request(name, Some(-2), &[-1])).collect();
    assert_eq!(ticks.call(&requests).await, vec![ticks.ticked(-1, &[-1], 0); 50]);
    let mut more = requests;
    more.push(ticks.request("new", Some(-2), &[-1]));
    let outcomes = ticks.call(&more).await;
    assert_eq!(outcomes[..50], vec![ticks.ticked(-1, &[], 0); 50]);
    assert_eq!(outcomes[50], ticks.ticked(-1, &[-1], 0));
}

/// From its first appearance on a task ticks, not for what was before.
pub async fn a_task_that_appears_does_not_tick_for_the_past(store: SharedTasks) {
    let (ticks, before) = (LawTicks::new(&store), now_ms());
    match ticks.ask(None, &[-2, -1, 0]).await {
        TickOutcome::Ticked { last_ms, enqueued, .. } => {
            assert!((before - 1..=now_ms() + 1).contains(&last_ms), "{last_ms}");
            assert!(enqueued.is_empty());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(LawWorker::new(&store, 0).fetch(1).await.len(), 0);
}

/// The clock of a node may be ahead a little.
pub async fn a_tick_is_not_enqueued_before_the_stores_clock_has_come_to_it(store: SharedTasks) {
    let ticks = LawTicks::new(&store);
    assert_eq!(ticks.ask(Some(-2), &[-1, 2]).await, ticks.ticked(-1, &[-1], 0));
    let tasks = [ticks.request("t", Some(-2), &[0])];
    let call = TickCall { now_us: (now_ms() + 5000) * 1000, until_us: NEVER_US, since_us: 0, tasks: &tasks };
    assert!(store.tick(&call).await.is_err(), "a node that is ahead by much is refused");
    let call = TickCall { now_us: 1000, until_us: 1000, since_us: 0, tasks: &tasks };
    assert!(store.tick(&call).await.is_err(), "and a call that comes late");
    assert_eq!(ticks.ask(None, &[]).await, ticks.ticked(-1, &[], 0), "nothing has changed");
}

/// Ticks that were missed may be left out, for good.
pub async fn a_tick_that_was_missed_may_be_left_out(store: SharedTasks) {
    let ticks = LawTicks::new(&store);
    let mut request = ticks.request("t", Some(-4), &[-3, -2, -1]);
    request.due[0].job = None;
    request.due[1].job = None;
    let expected =
        TickOutcome::Ticked { last_ms: ticks.minute(-1), enqueued: vec![ticks.minute(-1)], skipped: 0, missed: 2 };
    assert_eq!(ticks.call(&[request]).await, [expected]);
    assert_eq!(ticks.ask(Some(-4), &[-3, -2, -1]).await, ticks.ticked(-1, &[], 0));
}

/// It waits, runs, or is to run again; it is over when it is done, has failed, or was deleted.
pub async fn a_tick_is_skipped_until_the_job_of_the_last_one_is_over(store: SharedTasks) {
    let ticks = LawTicks::skipping(&store);
    let worker = LawWorker::new(&store, 0);
    let mut minute = -30;
    let mut next = || {
        minute += 1;
        minute
    };
    for way in ["done", "failed", "dropped"] {
        let first = next();
        assert_eq!(ticks.ask(Some(first - 1), &[first]).await, ticks.ticked(first, &[first], 0), "{way}");
        let mut is_skipped = async |state: &str| {
            let tick = next();
            assert_eq!(ticks.ask(Some(tick - 1), &[tick]).await, ticks.ticked(tick, &[], 1), "{way}: it {state}");
        };
        is_skipped("waits").await;
        let fetched = worker.fetch_one().await;
        is_skipped("runs").await;
        assert_eq!(worker.settle(&fetched, AttemptEnd::GiveBack).await, SettleOutcome::Accepted);
        is_skipped("was given back").await;
        let fetched = worker.fetch_one().await;
        let later = AttemptEnd::Retry { due_ms: now_ms() + 1500 };
        assert_eq!(worker.settle(&fetched, later).await, SettleOutcome::Accepted);
        is_skipped("is delayed").await;
        crate::laws::eventually("it is due", || async { store.promote().await.expect("an answer").moved == 1 }).await;
        let fetched = worker.fetch_one().await;
        let end = match way {
            "done" => AttemptEnd::Done,
            "failed" => failure(&fetched),
            _ => AttemptEnd::Dropped,
        };
        assert_eq!(worker.settle(&fetched, end).await, SettleOutcome::Accepted);
    }
    let last = next();
    assert_eq!(ticks.ask(Some(last - 1), &[last]).await, ticks.ticked(last, &[last], 0));
}

/// A clock that was ahead and has been set back: ticks go on, and those that were are not repeated.
pub async fn a_last_tick_beyond_the_next_one_counts_as_none(store: SharedTasks) {
    let ticks = LawTicks::new(&store);
    // Not if it is the next one: the clock may have been ahead by less than an interval.
    assert_eq!(ticks.ask(Some(2), &[]).await, ticks.ticked(2, &[], 0));
    assert_eq!(ticks.ask(Some(-2), &[-1, 0]).await, ticks.ticked(2, &[], 0));
    let far = LawTicks { start_ms: ticks.minute(60), ..ticks.clone() };
    assert_eq!(far.ask(Some(0), &[]).await, far.ticked(0, &[], 0), "the clock is ahead by an hour");
    let before = now_ms();
    let back = ticks.ask(Some(60), &[-1, 0]).await;
    let TickOutcome::Ticked { last_ms, ref enqueued, .. } = back else { panic!("{back:?}") };
    assert!((before - 1..=now_ms() + 1).contains(&last_ms), "{back:?}");
    assert!(enqueued.is_empty(), "{back:?}");
}

/// A store that came back with older data, or none, has the last tick from a node that knows it.
pub async fn the_last_tick_is_raised_to_the_highest_that_a_node_knows(store: SharedTasks) {
    let ticks = LawTicks::new(&store);
    assert_eq!(ticks.ask(Some(-5), &[-4]).await, ticks.ticked(-4, &[-4], 0));
    assert_eq!(ticks.ask(Some(-1), &[]).await, ticks.ticked(-1, &[], 0));
    assert_eq!(ticks.ask(Some(-3), &[-2, -1]).await, ticks.ticked(-1, &[], 0), "no tick is repeated");
    assert_eq!(ticks.ask(Some(-1), &[0]).await, ticks.ticked(0, &[0], 0));
}

/// While nodes are replaced one by one, the schedule of those that began last counts.
pub async fn of_two_schedules_that_of_the_node_that_began_last_counts(store: SharedTasks) {
    let old = LawTicks::of_schedule(&store, "old");
    let new = LawTicks { since_us: 2000, schedule: "new", ..old.clone() };
    assert_eq!(old.ask(Some(-3), &[-2]).await, old.ticked(-2, &[-2], 0));
    let before = now_ms();
    let changed = new.ask(Some(-3), &[-1]).await;
    let TickOutcome::Ticked { last_ms, ref enqueued, .. } = changed else { panic!("{changed:?}") };
    assert!(last_ms >= before - 1 && enqueued.is_empty(), "it does not tick for the past: {changed:?}");
    assert_eq!(old.ask(Some(-2), &[0]).await, TickOutcome::Superseded { schedule: "new".into() });
    let older = LawTicks { since_us: 500, ..new.clone() };
    assert!(matches!(older.ask(None, &[]).await, TickOutcome::Ticked { .. }), "the schedule is its own");
    assert_eq!(old.ask(Some(-2), &[0]).await, TickOutcome::Superseded { schedule: "new".into() });
    let rolled_back = LawTicks { since_us: 3000, ..old.clone() };
    assert!(matches!(rolled_back.ask(None, &[]).await, TickOutcome::Ticked { .. }));
    assert_eq!(new.ask(None, &[]).await, TickOutcome::Superseded { schedule: "old".into() });
}

/// A worker that waits for jobs is woken by a tick.
pub async fn a_tick_wakes(store: SharedTasks) {
    let (ticks, worker) = (LawTicks::new(&store), LawWorker::new(&store, 0));
    let is_woken = || async { tokio::time::timeout(Duration::from_millis(200), store.woken()).await.is_ok() };
    // The first ones may be for the subscription itself.
    while is_woken().await {}
    ticks.ask(Some(-1), &[0]).await;
    tokio::time::timeout(crate::laws::SOON, store.woken()).await.expect("a tick was enqueued");
    let fetched = worker.fetch_one().await;
    assert_eq!(Arc::from("q"), fetched.attempt.queue);
}
