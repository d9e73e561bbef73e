//! Work by the clock: deadlines, the lease, delayed and parked jobs, the comparison with the store, the end of the grace.

use std::time::Duration;

use tokio::time::Instant;
use tracing::error;

use crate::decide::{CancelCause, Ending};
use crate::run::{StoreReply, WorkerLoop};
use crate::slots::{RunningAttempt, SlotState};

/// How often slots are looked at: their deadlines, and the lease.
const SLOT_PERIOD: Duration = Duration::from_millis(250);

/// How often parked jobs are looked through for tasks that this node has.
const PARKED_PERIOD: Duration = Duration::from_secs(1);

/// How often the store's list of attempts is compared with the slots.
const COMPARE_PERIOD: Duration = Duration::from_secs(30);

/// How often queues are counted, and found.
const STATS_PERIOD: Duration = Duration::from_secs(5);

/// How long an attempt may run on after its deadline before it counts as blocking its thread.
const BLOCKED_AFTER: Duration = Duration::from_secs(5);

/// The pause after a promotion that moved nothing.
pub(crate) const PROMOTION_PAUSE: Duration = Duration::from_millis(50);

/// How long attempts may take to end once the grace is over.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// The problem of a node whose slots are all blocked.
const ALL_BLOCKED: &str = "all tasks block their threads";

/// When each work is due.
pub(crate) struct Timers {
    slots: Instant,
    parked: Instant,
    compare: Instant,
    stats: Instant,
    /// Before that nothing is promoted.
    promotion: Instant,
    /// When attempts that were cancelled are given back although they have not ended.
    force: Option<Instant>,
}

impl Timers {
    pub(crate) fn new(now: Instant) -> Self {
        Self { slots: now, parked: now, compare: now + COMPARE_PERIOD, stats: now, promotion: now, force: None }
    }

    pub(crate) fn next(&self, has_slots: bool) -> Instant {
        let next = self.parked.min(self.compare).min(self.stats);
        let next = self.force.map_or(next, |force| next.min(force));
        if has_slots { next.min(self.slots) } else { next }
    }

    /// When jobs that are due then may be promoted.
    pub(crate) fn promotion(&self, due: Instant) -> Instant {
        due.max(self.promotion)
    }

    pub(crate) fn pause_promotion(&mut self) {
        self.promotion = Instant::now() + PROMOTION_PAUSE;
    }
}

impl WorkerLoop {
    pub(crate) fn keep_house(&mut self, now: Instant) {
        self.look_for_losses();
        if now >= self.timers.slots {
            self.timers.slots = now + SLOT_PERIOD;
            self.check_slots(now);
        }
        self.show(now);
        if self.next_due(now).is_some_and(|due| self.timers.promotion(due) <= now) {
            self.promote();
        }
        if self.timers.force.is_some_and(|force| now >= force) {
            self.timers.force = None;
            self.force_back();
        }
        if now >= self.timers.parked {
            self.timers.parked = now + PARKED_PERIOD;
            self.look_for_parked();
        }
        if now >= self.timers.stats {
            self.timers.stats = now + STATS_PERIOD;
            self.request_stats();
        }
        self.keep_series(now);
        if now >= self.timers.compare || self.is_compare_due {
            self.timers.compare = now + COMPARE_PERIOD;
            self.is_compare_due = true;
            if self.gate.is_open(now) {
                self.request_list();
            }
        }
    }

    /// A store that came back so soon that no call has failed does not show its loss before the next settlement. Until then
    /// no other node would run the jobs, were this one to die.
    fn look_for_losses(&mut self) {
        let signs = self.engine.loss_signs();
        if signs == self.loss_signs {
            return;
        }
        if signs.proofs != self.loss_signs.proofs {
            self.in_doubt = Some(self.engine.node().generation());
        }
        self.loss_signs = signs;
        self.is_compare_due = true;
    }

    fn check_slots(&mut self, now: Instant) {
        let (generation, is_fenced) = (self.engine.node().generation(), self.engine.node().is_fenced());
        if is_fenced {
            std::mem::take(&mut self.lease).cancel();
        }
        self.pulse.look(&self.runtime);
        let (mut blocking, mut superseded, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        for slot in self.slots.iter_mut() {
            let is_ours = slot.generation == generation;
            match &slot.state {
                SlotState::Running(running) => {
                    let is_late =
                        running.facts.clock.deadline().is_some_and(|deadline| now >= deadline + BLOCKED_AFTER);
                    let is_exclusive = running.task.def.exclusive;
                    // Its job can run elsewhere: it waits for a thread that does not come.
                    if self.pulse.is_lost() && running.facts.try_take() {
                        idle.push((slot.key().token, running.task.clone()));
                    } else if is_late {
                        blocking.push((slot.key().token, running.task.clone(), running.facts.clone()));
                    }
                    if !is_ours {
                        Self::cancel(slot, CancelCause::Reaped);
                    } else if is_fenced && is_exclusive {
                        Self::cancel(slot, CancelCause::LeaseLost);
                    }
                }
                SlotState::Settling(settling) if !is_ours => {
                    superseded.push((slot.key().token, settling.task.clone()));
                }
                SlotState::Settling(_) | SlotState::Settled => {}
            }
        }
        if !superseded.is_empty() {
            let is_ours = |token: u64| superseded.iter().all(|(other, _)| *other != token);
            self.ready.retain(|settlement| is_ours(settlement.attempt.token));
            self.spoilt.retain(|(_, settlement)| is_ours(settlement.attempt.token));
            superseded.into_iter().for_each(|(token, task)| self.forget(token, task.as_ref()));
        }
        for (token, task) in idle {
            self.end(token, &task, None, Ending::Cancelled(CancelCause::Stopping));
        }
        for (token, task, facts) in blocking {
            error!(task = task.def.name, job = %facts.id, "a task blocks its thread beyond its deadline");
            if let Some(slot) = self.slots.get_mut(token) {
                slot.is_blocked = true;
                facts.cancelled.cancel(); // a heartbeat learns of it
            }
            self.end(token, &task, Some(facts), Ending::TimedOut);
        }
        while self.spoilt.front().is_some_and(|(due, _)| now >= *due) {
            self.ready.extend(self.spoilt.pop_front().map(|(_, settlement)| settlement));
        }
        let blocked = self.slots.blocked();
        let all_slots = blocked > 0 && blocked >= self.engine.config().tasks.concurrency;
        self.engine.set_problem(ALL_BLOCKED, all_slots || self.pulse.is_lost());
        self.metrics.record_slots(self.slots.len(), blocked);
    }

    fn promote(&mut self) {
        if self.is_promoting {
            return;
        }
        self.is_promoting = true;
        let store = self.store.clone();
        self.replies.push(Box::pin(async move { StoreReply::Promotion(store.promote().await) }));
    }

    /// Looks for parked jobs of this node's tasks, fails those that were parked for too long, and takes those of this node's tasks
    /// that failed in no attempt.
    fn look_for_parked(&mut self) {
        if self.takes_nothing() || self.is_looking_for_parked {
            return;
        }
        self.is_looking_for_parked = true;
        let grace_ms = self.engine.config().tasks.unknown_grace.as_millis() as u64;
        let before_ms = self.engine.clock().now_ms().saturating_sub(grace_ms);
        let (store, worker, free) = (self.store.clone(), self.name(), self.free_for_failures());
        let known: Vec<&str> = self.engine.registry().tasks().map(|task| task.def.name).collect();
        self.replies.push(Box::pin(async move {
            let parked = store.parked().await;
            if let Ok(failed @ 1..) = store.fail_parked(before_ms, &worker, &known).await {
                tracing::warn!(failed, "jobs failed that no node knew for tasks.unknown_grace");
            }
            StoreReply::Parked(parked, store.take_unattended(&known, free).await)
        }));
    }

    fn request_stats(&mut self) {
        // A slow store is not given more of the same work.
        if self.is_counting {
            return;
        }
        self.is_counting = true;
        let store = self.store.clone();
        self.replies.push(Box::pin(async move { StoreReply::Stats(store.stats().await) }));
    }

    /// The grace is over: attempts end at their next `await`, and their jobs go back uncounted.
    pub(crate) fn give_back_all(&mut self) {
        self.note_cut();
        self.slots.iter_mut().for_each(|slot| Self::cancel(slot, CancelCause::Stopping));
        self.timers.force = Some(Instant::now() + CANCEL_GRACE);
    }

    /// Notes the names of the attempts that run. Here, because one that blocks its thread is not dropped.
    pub(crate) fn note_cut(&self) {
        for slot in self.slots.iter() {
            if let SlotState::Running(RunningAttempt { task, facts, .. }) = &slot.state {
                self.engine.shutdown().note_cut(|| format!("task {} (job {})", task.def.name, facts.id));
            }
        }
    }

    /// Gives back the jobs of attempts that block their threads.
    fn force_back(&mut self) {
        let running = self.slots.iter().filter_map(|slot| match &slot.state {
            SlotState::Running(running) => Some((slot.key().token, running.task.clone())),
            SlotState::Settling(_) | SlotState::Settled => None,
        });
        let running: Vec<_> = running.collect();
        for (token, task) in running {
            self.end(token, &task, None, Ending::Cancelled(CancelCause::Stopping));
        }
    }
}
