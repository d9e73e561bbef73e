//! The loop of a worker: it alone holds the slots, and speaks to the store.

use std::collections::{HashMap, VecDeque};
use std::future::{poll_fn, ready};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use phalanx_core::backend::{
    BackendError, EXCHANGE_BATCH, LimitedQueue, MOVE_BATCH, Promotion, Settlement, TaskStats, TaskStore, WorkerCall,
    WorkerReply,
};
use phalanx_core::config::{NodeRole, ServedQueue};
use phalanx_core::engine::attempts::LossSigns;
use phalanx_core::job::worker_name;
use phalanx_core::task::CancelRequest;
use phalanx_core::{Engine, Generation};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::attempt::{AttemptReport, Reports};
use crate::awaited::AwaitedReplies;
use crate::compare::{ListRequest, StoredList};
use crate::first_polls::FirstPolls;
use crate::gate::FetchGate;
use crate::housekeeping::Timers;
use crate::metrics::{self, TaskMetrics, WorkerMetrics};
use crate::pulse::RuntimePulse;
use crate::queues::NodeQueues;
use crate::series::SeriesTimer;
use crate::served::{ServedTasks, served_tasks};
use crate::sign::WorkerSigns;
use crate::slots::{SlotState, Slots};
use crate::tokens::TokenCounter;
use crate::undecodable::UndecodableJobs;
use crate::worker::StopOrder;

/// Calls of one worker that are under way at once.
const CALLS: usize = 3;

/// The most bytes of jobs in one reply: more would keep the store from others.
const REPLY_BYTES: usize = 256 * 1024;

/// The longest wait for the store's answers once nothing runs any more, or the grace is over. A job that an answer would
/// have brought later is given back by the reaper.
const LAST_CALLS: Duration = Duration::from_secs(3);

/// A call without an answer yet.
pub(crate) struct StoreCall {
    pub(crate) generation: Generation,
    /// The call itself has them too.
    pub(crate) settlements: Arc<Vec<Settlement>>,
    /// How many slots they free: all but those of settlements that a spoilt key prevented before.
    pub(crate) frees: usize,
    /// The tokens that it offers.
    pub(crate) offered: Range<u64>,
    pub(crate) fetch_until_us: u64,
    /// By when that time has come by the node's own clock.
    pub(crate) over_by: Instant,
    /// Whether it may bring a job that may be what kills nodes.
    takes_suspect: bool,
    /// How many jobs it may bring of each queue with a limit, beyond those that its settlements free.
    reserved_of: Vec<(Arc<str>, usize)>,
    /// Whether it is for parked jobs.
    pub(crate) is_for_parked: bool,
}

impl StoreCall {
    pub(crate) fn wanted(&self) -> usize {
        (self.offered.end - self.offered.start) as usize
    }

    /// The slots that it may fill beyond those that its settlements free.
    fn reserved(&self) -> usize {
        self.wanted().saturating_sub(self.frees)
    }
}

/// A step that the store has taken, or not.
pub(crate) enum StoreReply {
    Exchange(u64, Result<WorkerReply, BackendError>),
    Attempts(Box<ListRequest>, Result<StoredList, BackendError>),
    ListedAgain(Result<(), BackendError>),
    Promotion(Result<Promotion, BackendError>),
    /// The classes of parked jobs, and records of jobs that failed in no attempt.
    Parked(Result<Vec<String>, BackendError>, Result<Vec<Bytes>, BackendError>),
    Stats(Result<TaskStats, BackendError>),
    Shown(Result<Option<String>, BackendError>),
    Series(Result<(), BackendError>),
}

/// The state of a worker.
pub(crate) struct WorkerLoop {
    pub(crate) engine: Engine,
    pub(crate) store: Arc<dyn TaskStore>,
    /// The runtime of attempts.
    pub(crate) runtime: Handle,
    pub(crate) slots: Slots,
    pub(crate) gate: FetchGate,
    /// Settlements that wait for a call.
    pub(crate) ready: VecDeque<Settlement>,
    /// Settlements that a spoilt key prevented, and when each is tried again.
    pub(crate) spoilt: VecDeque<(Instant, Settlement)>,
    /// Calls under way, by the first token of each.
    pub(crate) open: Vec<StoreCall>,
    /// Calls whose answer is lost. Their slots stay taken until the store's list shows what became of them.
    pub(crate) unknown: Vec<StoreCall>,
    /// Those whose outcome the list will show that was requested.
    pub(crate) listing: Vec<StoreCall>,
    pub(crate) replies: AwaitedReplies,
    pub(crate) tokens: TokenCounter,
    pub(crate) last_fence: u64,
    pub(crate) queues: NodeQueues,
    /// The settings that they follow from.
    served: Vec<ServedQueue>,
    /// The queues with limits in the cluster, the same until the node stops, and those in which jobs take turns.
    pub(crate) limited: Arc<[LimitedQueue]>,
    pub(crate) undecodable: UndecodableJobs,
    /// The tasks of this node.
    pub(crate) tasks: ServedTasks,
    /// The metrics of jobs whose task this node does not have.
    pub(crate) of_unknown: TaskMetrics,
    pub(crate) metrics: WorkerMetrics,
    /// Attempts that are expected to end at once.
    pub(crate) first_polls: Arc<FirstPolls>,
    pub(crate) reports: Arc<Reports>,
    /// Cancelled, and replaced, when the node cannot count on its lease.
    pub(crate) lease: CancellationToken,
    /// When the next delayed job is due, by the store's clock.
    pub(crate) next_due_ms: Option<u64>,
    pub(crate) is_promoting: bool,
    pub(crate) is_listing: bool,
    pub(crate) is_relisting: bool,
    pub(crate) is_looking_for_parked: bool,
    /// The tasks of this node with parked jobs. They are taken before others are fetched: they have waited for longer.
    pub(crate) parked: Vec<String>,
    pub(crate) is_counting: bool,
    /// The generation whose attempts the store may have lost: until its list shows them all, nothing is sent under it.
    pub(crate) in_doubt: Option<Generation>,
    /// The signs of a loss that were looked at.
    pub(crate) loss_signs: LossSigns,
    /// Whether the store's list is to be compared with the slots soon.
    pub(crate) is_compare_due: bool,
    pub(crate) timers: Timers,
    /// Whether the runtime of attempts still polls.
    pub(crate) pulse: RuntimePulse,
    /// Runs of `on_failed`.
    pub(crate) after_failures: TaskTracker,
    pub(crate) is_quiet: bool,
    /// Whether an operator wants the node to fetch nothing.
    quiet: watch::Receiver<bool>,
    pub(crate) signs: WorkerSigns,
    pub(crate) series: SeriesTimer,
}

/// The queues of a call.
#[derive(Default)]
struct CallQueues {
    queues: Arc<[Arc<str>]>,
    /// The most jobs of each; empty if none has a limit.
    limits: Vec<usize>,
    reserved_of: Vec<(Arc<str>, usize)>,
}

/// The reason for which the loop wakes.
enum Wake {
    Reply(StoreReply),
    Reports,
    Cancel(CancelRequest),
    Woken,
    Quiet,
    Timer,
    Stop,
    Cut,
}

/// How many settlements that are ready a call takes, at least one: the jobs that follow from them are stored within it, so they have
/// the bounds of a fetch.
fn settling_of(ready: &VecDeque<Settlement>, batch: usize) -> usize {
    let (mut jobs, mut bytes) = (0, 0);
    let fits = |settlement: &&Settlement| {
        let Some(consequences) = &settlement.consequences else { return true };
        jobs += consequences.follow_ups.len();
        bytes += consequences.follow_ups.iter().map(|job| job.text.len()).sum::<usize>();
        jobs <= MOVE_BATCH && bytes <= REPLY_BYTES
    };
    ready.iter().take(batch).take_while(fits).count().max(1).min(ready.len())
}

impl WorkerLoop {
    pub(crate) fn new(
        engine: Engine,
        store: Arc<dyn TaskStore>,
        runtime: Handle,
        first_polls: Arc<FirstPolls>,
    ) -> Self {
        let (now, loss_signs, quiet) = (Instant::now(), engine.loss_signs(), engine.task_quiet());
        let served = engine.config().tasks.served_queues().unwrap_or_default(); // checked at the boot
        let tasks = served_tasks(engine.registry());
        let limited = engine.registry().limited_queues().into();
        let series = SeriesTimer::new(now, engine.clock().now_ms());
        let mut worker = Self {
            engine,
            store,
            runtime,
            slots: Slots::default(),
            gate: FetchGate::new(now),
            ready: VecDeque::new(),
            spoilt: VecDeque::new(),
            open: Vec::new(),
            unknown: Vec::new(),
            listing: Vec::new(),
            replies: AwaitedReplies::default(),
            tokens: TokenCounter::default(),
            last_fence: 0,
            queues: NodeQueues::default(),
            served,
            limited,
            undecodable: UndecodableJobs::default(),
            tasks,
            of_unknown: TaskMetrics::default(),
            metrics: WorkerMetrics::new(),
            reports: first_polls.reports().clone(),
            first_polls,
            lease: CancellationToken::new(),
            next_due_ms: None,
            is_promoting: false,
            is_listing: false,
            is_relisting: false,
            is_looking_for_parked: false,
            parked: Vec::new(),
            is_counting: false,
            in_doubt: None,
            loss_signs,
            is_compare_due: false,
            timers: Timers::new(now),
            pulse: RuntimePulse::default(),
            after_failures: TaskTracker::new(),
            is_quiet: false,
            quiet,
            signs: WorkerSigns::default(),
            series,
        };
        worker.set_queues(&[]);
        let left_out = worker.queues.left_out(&worker.limited);
        if !left_out.is_empty() {
            // A task has such a queue without naming one, so that a list of queues may well be older than it.
            info!(
                queues = left_out.join(", "),
                "tasks.queues leaves out queues of tasks with limits: their jobs run on other nodes only"
            );
        }
        worker
    }

    /// Runs until the node stops; returns how many attempts could not be settled.
    pub(crate) async fn run(mut self, mut cancellations: mpsc::Receiver<CancelRequest>, mut stop: StopOrder) -> usize {
        let (store, shutdown) = (self.store.clone(), self.engine.shutdown().clone());
        let mut woken = store.woken();
        let (_part, mut cut) = (shutdown.part_of_cut(), pin!(shutdown.cut_off()));
        // Once nothing runs here and nothing is to begin: until when answers are awaited that may bring a job.
        let mut last_answers = None;
        let mut ended = Vec::new();
        let mut timer = pin!(sleep_until(Instant::now()));
        loop {
            let now = Instant::now();
            self.is_quiet |= stop.is_quiet();
            if self.is_quiet && self.slots.are_settled() {
                let until = *last_answers.get_or_insert(now + LAST_CALLS);
                if self.has_all_answers() || now >= until {
                    break;
                }
            } else {
                last_answers = None;
            }
            // Not only when the timer wakes the loop: under load something else always does.
            self.keep_house(now);
            let has_sent = self.send_calls(now).await;
            if has_sent && self.open.len() > 1 {
                // The call is written before the next reply is looked at: else the store would wait for this node while the
                // node works, and the node while the store does.
                yield_now().await;
            }
            let next = self.next_timer(now);
            let next = last_answers.map_or(next, |until: Instant| next.min(until));
            // One that fires too soon costs less than one that is set anew each time.
            if next < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(next);
            }
            let wake = tokio::select! {
                biased;
                reply = self.replies.next() => Wake::Reply(reply),
                () = self.reports.added() => Wake::Reports,
                Some(request) = cancellations.recv() => Wake::Cancel(request),
                () = &mut woken => Wake::Woken,
                Ok(()) = self.quiet.changed() => Wake::Quiet,
                () = stop.changed() => Wake::Stop,
                () = &mut cut => Wake::Cut,
                () = &mut timer => Wake::Timer,
            };
            match wake {
                Wake::Reply(reply) => {
                    self.on_reply(reply);
                    if !self.first_polls.is_empty() {
                        // Likewise: the settlements of these go before the next reply is looked at.
                        self.first_polls.polled().await;
                        self.take_reports(&mut ended);
                    }
                }
                Wake::Reports => self.take_reports(&mut ended),
                Wake::Cancel(request) => self.cancel_job(&request.id),
                Wake::Woken => {
                    self.gate.on_woken(Instant::now());
                    woken = store.woken();
                }
                Wake::Quiet => self.on_quiet(),
                Wake::Timer => {}
                Wake::Stop => match stop.last_deadline(LAST_CALLS) {
                    Some(end) if Instant::now() >= end => break,
                    Some(_) => self.give_back_all(),
                    None => {}
                },
                Wake::Cut => {
                    self.note_cut();
                    return self.slots.iter().count();
                }
            }
        }
        self.hide().await;
        self.flush_series().await;
        self.after_failures.close();
        stop.until_grace_is_over(self.after_failures.wait()).await;
        let unsettled = self.slots.iter().filter(|slot| !matches!(slot.state, SlotState::Settled)).count();
        if unsettled > 0 {
            warn!(unsettled, "attempts could not be settled: their jobs run again elsewhere");
        }
        self.metrics.record_slots(0, 0);
        unsettled
    }

    fn take_reports(&mut self, ended: &mut Vec<AttemptReport>) {
        self.reports.take(ended);
        ended.drain(..).for_each(|report| self.on_report(report));
    }

    /// Whether no call and no list may bring a job any more.
    fn has_all_answers(&self) -> bool {
        self.open.is_empty() && self.unknown.is_empty() && !self.is_listing
    }

    /// The calls that may have fetched jobs which no slot holds yet.
    fn undecided(&self) -> impl Iterator<Item = &StoreCall> {
        self.open.iter().chain(&self.unknown).chain(&self.listing)
    }

    /// The slots that are free, and that no call under way may fill.
    fn free(&self) -> usize {
        let reserved: usize = self.undecided().map(StoreCall::reserved).sum();
        self.engine.config().tasks.concurrency.saturating_sub(self.slots.needed() + reserved)
    }

    /// Whether the store may have lost this generation's attempts. A settlement of one that is not listed would be refused, and
    /// the job would be lost; one that is listed late, after it was settled, would run again.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.in_doubt == Some(self.engine.node().generation())
    }

    /// Whether new jobs may begin here.
    fn may_fetch(&self) -> bool {
        !self.takes_nothing() && !self.engine.node().is_fenced() && !self.pulse.is_lost()
    }

    /// Whether the node stops, an operator wants it to fetch nothing, or the queues are another cluster's.
    pub(crate) fn takes_nothing(&self) -> bool {
        self.is_quiet || *self.quiet.borrow() || !self.signs.owns_queues()
    }

    fn on_quiet(&mut self) {
        let is_quiet = *self.quiet.borrow_and_update();
        metrics::record_quiet(is_quiet);
        if is_quiet {
            info!("this node fetches no more jobs: an operator wants it");
        } else {
            info!("this node fetches jobs again");
            self.gate.on_woken(Instant::now());
        }
    }

    /// Sends what is ready, and returns whether that was something: a call takes all settlements that wait, and fetches as
    /// many jobs as there is room for, up to a bound.
    async fn send_calls(&mut self, now: Instant) -> bool {
        let mut has_sent = false;
        // With few slots two calls take turns: the store works on one while the node works on the other.
        let batch = self.engine.config().tasks.concurrency.div_ceil(2).min(EXCHANGE_BATCH);
        while self.open.len() < CALLS && self.gate.is_open(now) && !self.is_in_doubt() {
            if self.may_fetch() && !self.parked.is_empty() && !self.undecided().any(|call| call.is_for_parked) {
                match self.free().min(EXCHANGE_BATCH) {
                    0 => {}
                    free => {
                        let parked = self.parked.clone();
                        self.send_call(now, (0, 0), free, Some(parked)).await;
                        has_sent = true;
                        continue;
                    }
                }
            }
            let may_fetch = self.may_fetch() && self.parked.is_empty();
            let free = if may_fetch { self.free() } else { 0 };
            let looks = may_fetch
                && free > 0
                && self.gate.is_due(now)
                && self.open.iter().all(|call| call.wanted() <= call.frees);
            if self.ready.is_empty() && !looks {
                break;
            }
            let settling = settling_of(&self.ready, batch);
            let tokens = self.ready.iter().take(settling).map(|settlement| settlement.attempt.token);
            let frees = tokens.filter(|token| !self.slots.is_stuck(*token)).count();
            let wanted = if may_fetch { self.gate.wanted(now, free, frees).min(batch) } else { 0 };
            self.send_call(now, (settling, frees), wanted, None).await;
            has_sent = true;
        }
        has_sent
    }

    /// Sends a call: for parked jobs of some classes, or for those in queues.
    async fn send_call(
        &mut self,
        now: Instant,
        (settling, frees): (usize, usize),
        wanted: usize,
        parked: Option<Vec<String>>,
    ) {
        let settlements: Arc<Vec<Settlement>> = Arc::new(self.ready.drain(..settling).collect());
        if wanted > 0 && parked.is_none() {
            self.gate.on_look();
        }
        let now_us = self.engine.clock().now_us();
        let offered = self.tokens.take(wanted, now_us);
        let first_token = offered.start;
        let takes_suspect = !self.slots.has_suspect() && !self.undecided().any(|call| call.takes_suspect);
        let CallQueues { queues, limits, reserved_of } = self.queues_of_call(&settlements, wanted);
        let patience = self.engine.config().redis.command_timeout;
        let call = StoreCall {
            takes_suspect: takes_suspect && wanted > 0,
            reserved_of,
            is_for_parked: parked.is_some(),
            generation: self.engine.node().generation(),
            settlements: settlements.clone(),
            frees,
            offered,
            fetch_until_us: now_us + patience.as_micros() as u64,
            over_by: now + patience,
        };
        let (generation, fetch_until_us) = (call.generation, call.fetch_until_us);
        let (store, limited) = (self.store.clone(), self.limited.clone());
        self.open.push(call);
        let mut reply: BoxFuture<'static, StoreReply> = Box::pin(async move {
            let call = WorkerCall {
                generation,
                settlements: &settlements,
                first_token,
                wanted,
                queues: &queues,
                limits: &limits,
                limited: &limited,
                fetch_until_us,
                takes_suspect,
                max_bytes: REPLY_BYTES,
            };
            let reply = match parked {
                None => store.exchange(&call).await,
                Some(classes) => store.take_parked(&call, &classes).await,
            };
            StoreReply::Exchange(first_token, reply)
        });
        // Polled here, it is on its way before the loop looks at another reply. Polled with the replies, it would be behind
        // those that wait: written only when one of them was handled.
        let polled = poll_fn(|cx| Poll::Ready(reply.poll_unpin(cx))).await;
        self.replies.push(match polled {
            Poll::Ready(reply) => Box::pin(ready(reply)),
            Poll::Pending => reply,
        });
    }

    /// The queues of a call that settles these, in their order, without those at their limits. A node that takes nothing from
    /// its queues has no share of them.
    fn queues_of_call(&self, settlements: &[Settlement], wanted: usize) -> CallQueues {
        if self.takes_nothing() {
            return CallQueues::default();
        }
        let queues = match wanted {
            0 => self.queues.names().clone(),
            _ => self.queues.order(|below| (rand::random::<f64>() * f64::from(below)) as u32),
        };
        if wanted == 0 || !self.queues.has_limits() {
            return CallQueues { queues, ..CallQueues::default() };
        }
        let (mut taken, mut freed) = (HashMap::<Arc<str>, usize>::new(), HashMap::<Arc<str>, usize>::new());
        let held = self.slots.iter().filter(|slot| !self.slots.is_stuck(slot.key().token));
        held.for_each(|slot| *taken.entry(slot.key().queue.clone()).or_default() += 1);
        for call in self.undecided() {
            call.reserved_of.iter().for_each(|(queue, count)| *taken.entry(queue.clone()).or_default() += count);
        }
        for Settlement { attempt, .. } in settlements.iter().filter(|it| !self.slots.is_stuck(it.attempt.token)) {
            *freed.entry(attempt.queue.clone()).or_default() += 1;
            taken.entry(attempt.queue.clone()).and_modify(|count| *count = count.saturating_sub(1));
        }
        let (queues, limits) = self.queues.within_limits(&queues, &taken);
        let reserved = queues.iter().zip(&limits).filter(|(_, limit)| **limit < usize::MAX).map(|(queue, limit)| {
            let freed = freed.get(queue).copied().unwrap_or(0);
            (queue.clone(), wanted.min(*limit).saturating_sub(freed))
        });
        CallQueues { reserved_of: reserved.collect(), queues: queues.into(), limits }
    }

    fn next_timer(&self, now: Instant) -> Instant {
        let mut next = self.timers.next(self.slots.len() > 0).min(self.series.next_look());
        if let Some(opens_at) = self.gate.opens_at().filter(|at| *at > now) {
            next = next.min(opens_at);
        } else if self.may_fetch() && self.free() > 0 && self.open.is_empty() && !self.is_in_doubt() {
            next = next.min(self.gate.next());
        }
        if let Some(due) = self.next_due(now).filter(|_| !self.is_promoting) {
            next = next.min(self.timers.promotion(due));
        }
        next
    }

    /// When the next delayed job is due, if this node promotes any.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        if !self.engine.config().general.roles.contains(&NodeRole::Scheduler) {
            return None;
        }
        let now_ms = self.engine.clock().now_ms();
        self.next_due_ms.map(|due_ms| now + Duration::from_millis(due_ms.saturating_sub(now_ms)))
    }

    pub(crate) fn set_queues(&mut self, stored: &[String]) {
        let registry = self.engine.registry();
        let of_tasks: Vec<&str> = registry.tasks().map(|task| task.def.queue).collect();
        let served = NodeQueues::new(&self.served, &of_tasks, stored);
        if served != self.queues {
            self.queues = served;
            self.gate.on_woken(Instant::now());
        }
    }

    /// The node's name in resque's lists.
    pub(crate) fn name(&self) -> String {
        worker_name(self.engine.node().id(), self.engine.node().generation())
    }
}

#[cfg(test)]
mod tests {
    use phalanx_core::backend::{AttemptEnd, AttemptKey, Consequences, JobCounters, NewJob};

    use super::*;

    #[test]
    fn a_call_settles_as_many_as_their_follow_on_jobs_permit() {
        let following = |jobs: usize, bytes: usize| {
            let attempt = AttemptKey { token: 1, queue: "q".into(), counters: JobCounters::default() };
            let follow_ups = vec![NewJob::new("a", "q", vec![b'x'; bytes]); jobs];
            let consequences = Some(Box::new(Consequences { follow_ups, ..Consequences::default() }));
            Settlement { attempt, id: None, end: AttemptEnd::Done, unique: None, report: None, consequences }
        };
        let half = MOVE_BATCH / 2;
        for (ready, expected) in [
            (vec![(0, 0); 5], 3), // those of a call
            (vec![(half, 1), (half, 1), (1, 1)], 2),
            (vec![(1, REPLY_BYTES - 1), (1, 1), (1, 1)], 2),
            (vec![(1, REPLY_BYTES + 1), (0, 0)], 1), // one at least
            (vec![], 0),
        ] {
            let ready = ready.into_iter().map(|(jobs, bytes)| following(jobs, bytes)).collect();
            assert_eq!(settling_of(&ready, 3), expected);
        }
    }
}
