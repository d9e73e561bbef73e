//! The beginning and the end of an attempt.

use std::sync::Arc;
use std::time::Duration;

use phalanx_core::backend::{AttemptEnd, FetchedJob};
use phalanx_core::error::Chain;
use phalanx_core::job::{AttemptOutcome, JobInput, JobText};
use phalanx_core::task::{AttemptFacts, MAX_DELAY, TaskControl};
use phalanx_core::{ActionError, Generation, Params};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::attempt::{AttemptReport, NewAttempt};
use crate::decide::{CancelCause, Ending, FailureReason, JobFate, decide};
use crate::release;
use crate::run::WorkerLoop;
use crate::served::ServedTask;
use crate::slots::{RunningAttempt, SettlingAttempt, Slot, SlotState};

/// The id of a job of another program, which has none, in logs and events.
const FOREIGN: &str = "foreign";

impl WorkerLoop {
    /// Begins a job that was fetched under `generation`, unless there is nothing to run.
    pub(crate) fn begin(&mut self, generation: Generation, job: FetchedJob, is_deleted: bool, now: Instant) {
        let token = job.attempt.token;
        let (text, key) = (job.text.clone(), job.attempt.clone());
        let Some(read) = JobText::read(&text) else {
            self.hold(generation, job, None, now);
            let reason = FailureReason::new("unreadable", "it is no job in resque's form");
            return self.fail(token, None, reason);
        };
        self.hold(generation, job, Some(&read), now);
        let now_us = self.engine.clock().now_us();
        if is_deleted {
            return self.settle(token, AttemptEnd::Dropped, AttemptOutcome::Deleted, None);
        }
        if read.expires_at.is_some_and(|expires_at| expires_at < now_us / 1000) {
            return self.settle(token, AttemptEnd::Dropped, AttemptOutcome::Expired, None);
        }
        let Some(task) = self.tasks.get(&*read.class).cloned() else {
            let class: Arc<str> = (&*read.class).into();
            warn!(%class, "a job of a task that this node does not have waits for one that has it");
            return self.settle(token, AttemptEnd::Park { class }, AttemptOutcome::Parked, None);
        };
        let input = match read.input() {
            JobInput::None => Ok(Params::default()),
            JobInput::Object(object) => Params::from_raw_json(object.to_owned()),
            JobInput::Other => Err(ActionError::invalid_input(Vec::new())),
        };
        let input = match input {
            Ok(input) => input,
            Err(error) => {
                let ending = Ending::Failure(error.with_source(TaskControl::Undecodable));
                let facts = self.facts(generation, key, &task, &read, (now, now_us));
                return self.end(token, &task, Some(facts), ending);
            }
        };
        let facts = self.facts(generation, key, &task, &read, (now, now_us));
        self.start(token, task, &read, input, (facts, now_us));
    }

    /// Takes a slot for a job.
    fn hold(&mut self, generation: Generation, job: FetchedJob, read: Option<&JobText<'_>>, now: Instant) {
        let own = |text: Option<&str>| text.map(Arc::from);
        self.slots.insert(Slot {
            generation,
            own_id: own(read.and_then(|read| read.id.as_deref())),
            member: own(read.and_then(|read| read.batch.as_deref())),
            unique: own(read.and_then(|read| read.unique.as_deref())),
            is_unique_until_start: read.is_some_and(JobText::is_unique_until_start),
            job,
            result: None,
            started: now,
            state: SlotState::Settled,
            is_blocked: false,
        });
    }

    fn start(
        &mut self,
        token: u64,
        task: Arc<ServedTask>,
        read: &JobText<'_>,
        input: Params,
        (facts, now_us): (Arc<AttemptFacts>, u64),
    ) {
        let Some(slot) = self.slots.get_mut(token) else { return };
        let counters = slot.key().counters;
        if counters.attempts == 1
            && let Some(could_begin) = read.could_begin_at()
        {
            self.metrics.record_pickup(Duration::from_millis((now_us / 1000).saturating_sub(could_begin)));
        }
        debug!(task = task.def.name, job = %facts.id, attempt = counters.attempts, "an attempt starts");
        let started = self.engine.start_attempt(&task, facts.clone(), input);
        let started = match (&slot.unique, &slot.own_id) {
            (Some(key), Some(id)) if slot.is_unique_until_start => {
                release::before(started, self.store.clone(), (key.clone(), id.clone()))
            }
            _ => started,
        };
        let attempt = NewAttempt { token, task: task.clone(), started, reports: self.reports.clone() };
        slot.state = SlotState::Running(RunningAttempt { task, facts, cancelled: None });
        if attempt.task.is_quick() {
            self.first_polls.add(attempt);
        } else {
            attempt.spawn(&self.runtime);
        }
    }

    /// An attempt ended by itself.
    pub(crate) fn on_report(&mut self, AttemptReport { token, ending }: AttemptReport) {
        let Some(slot) = self.slots.get_mut(token) else { return };
        if slot.is_blocked {
            slot.is_blocked = false;
            info!(token, "a task that blocked its thread has returned");
            if matches!(slot.state, SlotState::Settled) {
                self.slots.remove(token);
            }
            return;
        }
        let SlotState::Running(running) = &slot.state else { return };
        let (task, facts, cause) = (running.task.clone(), running.facts.clone(), running.cancelled);
        let ending = match (ending, cause) {
            (Ending::Cancelled(_), Some(cause)) => Ending::Cancelled(cause),
            // It learnt of it by a heartbeat.
            (Ending::Failure(error), Some(cause)) if TaskControl::of(&error) == Some(&TaskControl::Ended) => {
                Ending::Cancelled(cause)
            }
            // It succeeded, or said itself how it ends, before it was dropped.
            (ending, _) => ending,
        };
        self.end(token, &task, Some(facts), ending);
    }

    /// Settles an attempt by how it ended.
    pub(crate) fn end(&mut self, token: u64, task: &Arc<ServedTask>, facts: Option<Arc<AttemptFacts>>, ending: Ending) {
        let Some(slot) = self.slots.get_mut(token) else { return };
        let (counters, text, job) = (slot.key().counters, slot.job.text.clone(), slot.own_id.clone());
        let job = job.as_deref().unwrap_or(FOREIGN);
        let fate = decide(&ending, &task.def.retry, counters.attempts, rand::random);
        let own = Some(task.clone());
        if let Ending::Success(result) = &ending {
            slot.result.clone_from(result);
        }
        match fate {
            JobFate::Done => self.settle(token, AttemptEnd::Done, AttemptOutcome::Done, own),
            JobFate::Dropped(outcome) => self.settle(token, AttemptEnd::Dropped, outcome, own),
            JobFate::GiveBack => self.settle(token, AttemptEnd::GiveBack, AttemptOutcome::GivenBack, own),
            JobFate::Retry(pause) => {
                log_failure(task, job, &ending, Some(pause));
                let end = AttemptEnd::Retry { due_ms: self.due_ms(pause) };
                self.settle(token, end, AttemptOutcome::Retried, own);
            }
            JobFate::Snooze(pause) => {
                let end = AttemptEnd::Snooze { due_ms: self.due_ms(pause) };
                self.settle(token, end, AttemptOutcome::Snoozed, own);
            }
            JobFate::Failed(reason) => {
                log_failure(task, job, &ending, None);
                self.fail(token, Some((task.clone(), facts)), reason);
            }
            JobFate::Undecodable(reason) => {
                let grace = self.engine.config().tasks.unknown_grace;
                match self.undecodable.pause(&text, Instant::now(), grace) {
                    Some(pause) => {
                        warn!(
                            task = task.def.name,
                            error = reason.error,
                            ?pause,
                            "the input of a job cannot be decoded"
                        );
                        let end = AttemptEnd::Snooze { due_ms: self.due_ms(pause) };
                        self.settle(token, end, AttemptOutcome::Snoozed, own);
                    }
                    None => self.fail(token, Some((task.clone(), facts)), reason),
                }
            }
            JobFate::Nothing => self.forget(token, own.as_ref()),
        }
    }

    /// When a job is due after a pause. A task may return any: the longest is that of a job that is enqueued.
    fn due_ms(&self, pause: Duration) -> u64 {
        self.engine.clock().now_ms() + pause.min(MAX_DELAY).as_millis() as u64
    }

    /// Settles a job as failed for good.
    fn fail(&mut self, token: u64, of: Option<(Arc<ServedTask>, Option<Arc<AttemptFacts>>)>, reason: FailureReason) {
        let (worker, now_ms) = (self.name(), self.engine.clock().now_ms());
        let Some(slot) = self.slots.get_mut(token) else { return };
        let FetchedJob { attempt, text } = &slot.job;
        let end = reason.end(&worker, &attempt.queue, text, attempt.counters, now_ms);
        let task = of.as_ref().map(|(task, _)| task.clone());
        self.settle(token, end, AttemptOutcome::Failed, task);
        if let Some(Slot { state: SlotState::Settling(settling), .. }) = self.slots.get_mut(token) {
            settling.failure = of.and_then(|(task, facts)| Some((task, facts?, reason)));
        }
    }

    /// Queues a settlement. One under a generation that the node has no more would be refused.
    fn settle(&mut self, token: u64, end: AttemptEnd, outcome: AttemptOutcome, task: Option<Arc<ServedTask>>) {
        let current = self.engine.node().generation();
        let Some(slot) = self.slots.get_mut(token) else { return };
        if slot.generation != current {
            return self.forget(token, task.as_ref());
        }
        let settlement = slot.settlement(end);
        self.ready.push_back(settlement);
        let settling = SettlingAttempt { outcome, failure: None, task, is_repeated: false, is_doubted: false };
        slot.state = SlotState::Settling(settling);
    }

    /// Drops an attempt whose job another node has.
    pub(crate) fn forget(&mut self, token: u64, task: Option<&Arc<ServedTask>>) {
        if let Some(slot) = self.slots.remove(token) {
            self.record(&slot, task, AttemptOutcome::Superseded, Instant::now());
        }
    }

    /// Records the end of an attempt.
    pub(crate) fn record(&self, slot: &Slot, task: Option<&Arc<ServedTask>>, outcome: AttemptOutcome, now: Instant) {
        let (name, took) = (task.map(|task| task.def.name), now.saturating_duration_since(slot.started));
        task.map_or(&self.of_unknown, |task| &task.metrics).record_end(name, outcome, took);
        if let Some(task) = task {
            task.counts.record(outcome, took);
        }
        if let Some(name) = name {
            let id = slot.own_id.clone().unwrap_or_else(|| FOREIGN.into());
            debug!(task = name, job = %id, outcome = outcome.as_str(), ?took, "an attempt ended");
            self.engine.notify_attempt_ended(name, id, outcome, took);
        }
    }

    /// Has an attempt end, for that reason. The first reason stays.
    pub(crate) fn cancel(slot: &mut Slot, cause: CancelCause) {
        if let SlotState::Running(running) = &mut slot.state
            && running.cancelled.is_none()
        {
            running.cancelled = Some(cause);
            running.facts.cancelled.cancel();
        }
    }

    /// Cancels the attempts of a job that was deleted.
    pub(crate) fn cancel_job(&mut self, id: &str) {
        for slot in self.slots.iter_mut().filter(|slot| slot.own_id.as_deref() == Some(id)) {
            Self::cancel(slot, CancelCause::Deleted);
        }
    }
}

fn log_failure(task: &ServedTask, job: &str, ending: &Ending, pause: Option<Duration>) {
    let cause = match ending {
        Ending::Failure(error) => Chain(error).to_string(),
        _ => "its deadline passed".to_owned(),
    };
    match pause {
        Some(pause) => info!(task = task.def.name, job, cause, ?pause, "a job failed and is repeated"),
        None => warn!(task = task.def.name, job, cause, "a job failed for good"),
    }
}
