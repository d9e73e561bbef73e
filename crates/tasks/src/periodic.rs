//! Ticks of periodic tasks: a node sleeps until the next one, and asks the store to enqueue it.
//!
//! All nodes whose application has the task do so, also those that run no jobs: the store enqueues a tick for the first that
//! asks, and answers the others that it is done. So no node has to be elected, and none is missed.

use std::sync::Arc;
use std::time::Duration;

use phalanx_core::backend::{
    BackendError, DueTick, ENQUEUE_BATCH, TICK_BATCH, TaskStore, TickCall, TickOutcome, TickRequest,
};
use phalanx_core::registry::{DefinitionErrors, RegisteredTask, Registry};
use phalanx_core::task::{Schedule, tick_job};
use phalanx_core::{Engine, bound_reached};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::calendar::Calendar;
use crate::due::{MAX_CATCH_UP, due_ticks};
use crate::metrics;
use crate::skipped::{SkippedTicks, release_if_gone};

/// How often a node looks at the last ticks without one that is due: it writes those again that the store has lost, and shows
/// that nodes have its schedules.
const LOOK_PERIOD: Duration = Duration::from_secs(3);

/// A node does not catch up with ticks from before its start any sooner: the store may have come back with older data, and
/// nodes that know better have raised the last ticks by then.
const CATCH_UP_PAUSE: Duration = Duration::from_secs(5);

/// The longest sleep: the clock that nodes share may be set, which no timer learns.
const MAX_SLEEP: Duration = Duration::from_millis(250);

/// By how much that clock and this machine's may differ after a sleep. More means that it was set.
const DRIFT: Duration = Duration::from_millis(500);

/// The shortest time between two calls: the store's clock may be behind by that much.
const CALL_PAUSE: Duration = Duration::from_millis(10);

/// By how much nodes differ in when they ask: the first one is answered while the others still sleep.
const SPREAD: Duration = Duration::from_millis(20);

/// The pauses after a failure: the first, and the longest. After the store's clock was set it refuses calls until the node
/// learns the time with its next renewal.
const FAILURE_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));

/// The pause after a spoilt key.
const SPOILT_PAUSE: Duration = Duration::from_secs(1);

/// Checks the schedules of all tasks.
pub(crate) fn check(registry: &Registry) -> Result<(), DefinitionErrors> {
    let mut errors = DefinitionErrors::default();
    for task in registry.tasks() {
        if let Some(Err(mistake)) = task.def.schedule.map(|schedule| Calendar::new(&schedule.ticks)) {
            errors.add(format!("task {:?}: {mistake}", task.def.name));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Enqueues the ticks of a node's periodic tasks.
pub(crate) struct Ticker {
    engine: Engine,
    store: Arc<dyn TaskStore>,
    tasks: Vec<PeriodicTask>,
    /// When it began, by the store's clock.
    since_us: u64,
    catch_up_at: Instant,
    spread: Duration,
    next_look: Instant,
    /// Before that nothing is sent.
    paused_until: Instant,
    /// The time at the last look at the clock that nodes share, and what it said.
    clock_seen: (Instant, u64),
    failures: u32,
}

struct PeriodicTask {
    task: Arc<RegisteredTask>,
    name: Arc<str>,
    schedule: Schedule,
    /// The schedule, to be compared.
    text: Arc<str>,
    calendar: Calendar,
    /// The last tick, as the store said it.
    last_ms: Option<u64>,
    /// The first one after it.
    next_ms: Option<u64>,
    /// Whether another schedule of the task counts.
    is_superseded: bool,
    /// Not before that, after a spoilt key.
    retry_at: Option<Instant>,
    skipped: SkippedTicks,
}

impl PeriodicTask {
    fn of(task: &Arc<RegisteredTask>) -> Option<Self> {
        let schedule = task.def.schedule?;
        Some(Self {
            task: task.clone(),
            name: task.def.name.into(),
            schedule,
            text: schedule.ticks.to_string().into(),
            calendar: Calendar::new(&schedule.ticks).ok()?, // all were checked at the boot
            last_ms: None,
            next_ms: None,
            is_superseded: false,
            retry_at: None,
            skipped: SkippedTicks::default(),
        })
    }

    fn set_last(&mut self, last_ms: u64) {
        if self.last_ms != Some(last_ms) {
            self.last_ms = Some(last_ms);
            self.next_ms = self.calendar.next(last_ms);
        }
    }
}

impl Ticker {
    /// The ticker of a node, if it has periodic tasks.
    pub(crate) fn new(engine: &Engine, store: &Arc<dyn TaskStore>) -> Option<Self> {
        let tasks: Vec<_> = engine.registry().tasks().filter_map(PeriodicTask::of).collect();
        if tasks.is_empty() {
            return None;
        }
        metrics::describe_ticks();
        let now = Instant::now();
        Some(Self {
            engine: engine.clone(),
            store: store.clone(),
            tasks,
            since_us: engine.clock().now_us(),
            catch_up_at: now + CATCH_UP_PAUSE,
            spread: SPREAD.mul_f32(rand::random()),
            next_look: now,
            paused_until: now,
            clock_seen: (now, engine.clock().now_us()),
            failures: 0,
        })
    }

    /// The first look at the last ticks. If the store does not answer in time, the next look follows.
    pub(crate) async fn show(&mut self) {
        let limit = self.engine.config().redis.command_timeout;
        let _ = timeout(limit, self.call()).await;
    }

    /// Ticks until the node stops. A call that is under way then is dropped: whether it took effect, other nodes learn from the
    /// store.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let ticking = async {
            loop {
                sleep_until(self.next_call()).await;
                self.call().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = ticking => {}
        }
    }

    fn next_call(&self) -> Instant {
        let now = Instant::now();
        let ticks = self.tasks.iter().filter_map(|task| self.due_at(task, now));
        let next = ticks.fold(self.next_look.min(now + MAX_SLEEP), Instant::min);
        next.max(self.paused_until)
    }

    /// When the next tick of a task is due.
    fn due_at(&self, task: &PeriodicTask, now: Instant) -> Option<Instant> {
        let next_ms = task.next_ms.filter(|_| !task.is_superseded)?;
        let now_ms = self.engine.clock().now_ms();
        let due_at = now + Duration::from_millis(next_ms.saturating_sub(now_ms)) + self.spread;
        if !self.waits_to_catch_up(next_ms) {
            return Some(task.retry_at.map_or(due_at, |retry_at| due_at.max(retry_at)));
        }
        // Or the first one since the start, if that is earlier.
        let first_ms = task.calendar.next(self.since_us / 1000)?;
        Some(self.catch_up_at.min(now + Duration::from_millis(first_ms.saturating_sub(now_ms)) + self.spread))
    }

    fn waits_to_catch_up(&self, tick_ms: u64) -> bool {
        tick_ms <= self.since_us / 1000 && Instant::now() < self.catch_up_at
    }

    /// Looks at once if the clock that nodes share was set: last ticks may lie in its future then.
    fn check_clock(&mut self, now: Instant, now_us: u64) {
        let (then, then_us) = std::mem::replace(&mut self.clock_seen, (now, now_us));
        let expected_us = then_us + (now - then).as_micros() as u64;
        if now_us.abs_diff(expected_us) > DRIFT.as_micros() as u64 {
            self.next_look = now;
        }
    }

    /// Asks for what is due, and looks at all tasks if it is time for that.
    async fn call(&mut self) {
        let (now, now_us) = (Instant::now(), self.engine.clock().now_us());
        self.check_clock(now, now_us);
        let is_look = now >= self.next_look;
        let mut requests: Vec<(usize, TickRequest)> = Vec::new();
        for (at, task) in self.tasks.iter().enumerate() {
            let due = self.due(task, now_us / 1000);
            if is_look || !due.is_empty() {
                requests.push((at, self.request(task, due, now_us)));
            }
        }
        if is_look {
            self.next_look = now + LOOK_PERIOD;
        }
        self.paused_until = now + CALL_PAUSE;
        let mut left = &requests[..];
        while let Some(count) = batch_of(left) {
            let (batch, others) = left.split_at(count);
            left = others;
            let tasks: Vec<TickRequest> = batch.iter().map(|(_, request)| request.clone()).collect();
            let until_us = now_us + self.engine.config().redis.command_timeout.as_micros() as u64;
            let call = TickCall { now_us, until_us, since_us: self.since_us, tasks: &tasks };
            let store = self.store.clone();
            match store.tick(&call).await {
                Ok(outcomes) => {
                    self.failures = 0;
                    for ((at, _), outcome) in batch.iter().zip(outcomes) {
                        self.on_outcome(*at, outcome);
                    }
                }
                Err(error) => return self.on_failure(&error),
            }
        }
    }

    /// The ticks that are due, and whether each is enqueued.
    fn due(&self, task: &PeriodicTask, now_ms: u64) -> Vec<(u64, bool)> {
        let Some(last_ms) = task.last_ms.filter(|_| !task.is_superseded) else { return Vec::new() };
        let waits = task.retry_at.is_some_and(|retry_at| Instant::now() < retry_at);
        if waits || task.next_ms.is_none_or(|next_ms| next_ms > now_ms) {
            return Vec::new();
        }
        let due = due_ticks(&task.calendar, task.schedule.catch_up, last_ms, now_ms);
        let is_to_wait = due.last().is_none_or(|(newest_ms, _)| self.waits_to_catch_up(*newest_ms));
        if is_to_wait { Vec::new() } else { due }
    }

    fn request(&self, task: &PeriodicTask, due: Vec<(u64, bool)>, now_us: u64) -> TickRequest {
        let now_ms = now_us / 1000;
        let job = |tick_ms| tick_job(task.task.def, task.schedule.overlap, tick_ms, now_ms);
        let due = due.into_iter().map(|(at_ms, is_enqueued)| DueTick { at_ms, job: is_enqueued.then(|| job(at_ms)) });
        TickRequest {
            task: task.name.clone(),
            schedule: task.text.clone(),
            known_ms: task.last_ms,
            next_ms: task.calendar.next(now_ms).unwrap_or(u64::MAX / 4),
            due: due.collect(),
        }
    }

    fn on_outcome(&mut self, at: usize, outcome: TickOutcome) {
        let Some(task) = self.tasks.get_mut(at) else { return };
        let name = task.task.def.name;
        match outcome {
            TickOutcome::Ticked { last_ms, enqueued, skipped, missed } => {
                if task.is_superseded {
                    task.is_superseded = false;
                    info!(task = name, schedule = %task.text, "this node's schedule counts again");
                }
                task.set_last(last_ms);
                if task.skipped.observe(Instant::now(), skipped, enqueued.len()) {
                    let claim = tick_job(task.task.def, task.schedule.overlap, last_ms, last_ms).unique;
                    if let Some(claim) = claim {
                        let search = release_if_gone(self.store.clone(), name, claim.key);
                        let shutdown = self.engine.shutdown().clone();
                        self.engine.shutdown().spawn_own(async move {
                            tokio::select! {
                                () = shutdown.closed() => {}
                                () = search => {}
                            }
                        });
                    }
                }
                if enqueued.len() >= MAX_CATCH_UP {
                    bound_reached("tasks_catch_up");
                }
                let now_ms = self.engine.clock().now_ms();
                for tick_ms in enqueued {
                    debug!(task = name, tick_ms, "a tick is enqueued");
                    metrics::record_tick(name, Duration::from_millis(now_ms.saturating_sub(tick_ms)));
                }
                metrics::record_ticks_left_out(name, skipped, missed);
                if missed > 0 {
                    info!(task = name, missed, "ticks came while no node could enqueue them, and are left out");
                }
            }
            TickOutcome::Superseded { schedule } => {
                if !task.is_superseded {
                    task.is_superseded = true;
                    info!(task = name, own = %task.text, schedule, "a node with another schedule began later: that one counts");
                }
            }
            TickOutcome::Spoilt { key } => {
                metrics::record_spoilt(1);
                warn!(task = name, key, "a tick cannot be enqueued: a key of the task queue is spoilt");
                task.retry_at = Some(Instant::now() + SPOILT_PAUSE);
            }
        }
    }

    fn on_failure(&mut self, error: &BackendError) {
        let (first, longest) = FAILURE_PAUSES;
        let pause = (first * 2_u32.pow(self.failures.min(10))).min(longest);
        if self.failures == 0 {
            warn!(%error, "ticks of periodic tasks are not enqueued until the store takes them again");
        }
        self.failures += 1;
        metrics::record_call_failure();
        self.paused_until = Instant::now() + pause;
        // The store may have lost the last ticks.
        self.next_look = self.paused_until;
    }
}

/// How many of the requests one call takes: a bounded number of tasks, and of jobs unless one task has more.
fn batch_of(requests: &[(usize, TickRequest)]) -> Option<usize> {
    let mut jobs = 0;
    let fits = |(_, request): &&(usize, TickRequest)| {
        jobs += request.due.len();
        jobs <= ENQUEUE_BATCH
    };
    let count = requests.iter().take(TICK_BATCH).take_while(fits).count().max(1);
    (!requests.is_empty()).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_takes_a_bounded_number_of_tasks_and_jobs() {
        let request = |due: usize| {
            let due = vec![DueTick { at_ms: 1, job: None }; due];
            (0, TickRequest { task: "t".into(), schedule: "s".into(), known_ms: None, next_ms: 2, due })
        };
        for (due, tasks, count) in [
            (1, 0, None),
            (1, 3, Some(3)),
            (0, 250, Some(TICK_BATCH)),
            (MAX_CATCH_UP, 20, Some(ENQUEUE_BATCH / MAX_CATCH_UP)),
            (ENQUEUE_BATCH + 1, 2, Some(1)),
        ] {
            let requests: Vec<_> = (0..tasks).map(|_| request(due)).collect();
            assert_eq!(batch_of(&requests), count, "{tasks} tasks with {due} ticks");
        }
    }
}
