//! Settles attempts and fetches jobs.

use std::collections::VecDeque;
use std::sync::Arc;

use super::jobs::JobPlace;
use super::queue::WaitingJob;
use super::{Jobs, ParkedJob, RunningJob};
use crate::backend::{
    AttemptEnd, AttemptKey, FetchedJob, JobState, MOVE_BATCH, REPORT_TTL_MS, SettleOutcome, Settlement, WorkerCall,
    WorkerReply,
};
use crate::id::Generation;

impl Jobs {
    /// Releases the claim of a job that is over. `false` if another has it, or it expired.
    fn release(&mut self, settlement: &Settlement, now_ms: u64) -> bool {
        let Some(key) = &settlement.unique else { return true };
        let is_own = self.claimant(key, now_ms).is_some() && self.claimant(key, now_ms) == settlement.id;
        if is_own {
            self.claims.remove(key);
        }
        is_own
    }

    pub(super) fn settle(
        &mut self,
        generation: Generation,
        settlement: &Settlement,
        now_ms: u64,
        failed_max: usize,
    ) -> SettleOutcome {
        let token = settlement.attempt.token;
        let attempts = self.running.get_mut(&generation);
        let Some(RunningJob { queue, job, .. }) = attempts.and_then(|attempts| attempts.remove(&token)) else {
            return SettleOutcome::Superseded;
        };
        let counted = WaitingJob { counters: settlement.attempt.counters, ..job.clone() };
        let mut uncounted = counted.clone();
        uncounted.counters.attempts = uncounted.counters.attempts.saturating_sub(1);
        let over = match settlement.end {
            AttemptEnd::Done => Some(JobState::Done),
            AttemptEnd::Dropped => Some(JobState::Dropped),
            AttemptEnd::Failed { .. } => Some(JobState::Failed),
            _ => None,
        };
        let is_over = over.is_some();
        match &settlement.end {
            AttemptEnd::Done => {
                self.count -= 1;
                self.processed += 1;
                self.ids.set_done(&job.id);
            }
            AttemptEnd::Dropped => {
                self.count -= 1;
                self.ids.forget(&job.id);
            }
            AttemptEnd::Retry { due_ms } if *due_ms <= now_ms => self.wait(queue, counted),
            AttemptEnd::Retry { due_ms } => self.delay(queue, counted, *due_ms),
            AttemptEnd::Snooze { due_ms } => self.delay(queue, uncounted, *due_ms),
            AttemptEnd::GiveBack => {
                self.ids.set_place(&uncounted.id, JobPlace::Waiting);
                self.queues.entry(queue).or_default().give_back(uncounted);
            }
            AttemptEnd::Park { class } => {
                self.ids.set_place(&uncounted.id, JobPlace::Waiting);
                let parked = ParkedJob { since_ms: now_ms, queue, job: uncounted };
                self.parked.entry(class.clone()).or_default().push_back(parked);
            }
            AttemptEnd::Failed { record } => self.fail(&job.id, record.clone(), failed_max),
        }
        if let Some(consequences) = &settlement.consequences {
            self.follow(consequences, &settlement.end, now_ms);
            if let Some(id) = job.id.as_ref().filter(|_| consequences.has_checkpoint)
                && matches!(settlement.end, AttemptEnd::Done | AttemptEnd::Dropped)
            {
                self.checkpoints.remove(id);
            }
        }
        if let Some(report) = &settlement.report {
            self.reports.keep((generation, settlement.attempt.clone()), report, now_ms + REPORT_TTL_MS);
        }
        if let Some(state) = over {
            self.reports.end(&job.id, state, now_ms);
        }
        if is_over && !self.release(settlement, now_ms) { SettleOutcome::ClaimLost } else { SettleOutcome::Accepted }
    }

    /// Lists a job that a call has taken.
    fn run(&mut self, call: &WorkerCall<'_>, reply: &mut WorkerReply, queue: Arc<str>, mut job: WaitingJob) {
        job.counters.attempts += 1;
        let token = call.first_token + reply.fetched.len() as u64;
        let is_deleted = self.ids.take_tombstone(&job.id);
        if is_deleted {
            reply.deleted.push(token);
        }
        self.ids.set_place(&job.id, JobPlace::Running(call.generation, token));
        let attempt = AttemptKey { token, queue: queue.clone(), counters: job.counters };
        reply.fetched.push(FetchedJob { attempt, text: job.text.clone() });
        let running = RunningJob { queue, job, is_deleted };
        self.running.entry(call.generation).or_default().insert(token, running);
    }

    /// Takes parked jobs, in their order; those that may not be taken stay, but for those of a queue at its limit, which become
    /// its next ones. A hundred of a class are passed over at most.
    pub(super) fn take_parked(
        &mut self,
        call: &WorkerCall<'_>,
        classes: &[String],
        reply: &mut WorkerReply,
        now_us: u64,
    ) {
        let (mut bytes, mut takes_suspect, mut limits) = (0, call.takes_suspect, call.limits.to_vec());
        limits.resize(call.queues.len(), usize::MAX);
        let mut is_held = Vec::with_capacity(limits.len());
        for (limit, queue) in limits.iter_mut().zip(call.queues) {
            let room = self.room(call, queue, now_us);
            *limit = (*limit).min(room);
            is_held.push(room == 0);
        }
        for class in classes {
            let mut at = 0;
            while reply.fetched.len() < call.wanted && (bytes < call.max_bytes || reply.fetched.is_empty()) {
                let Some(list) = self.parked.get_mut(&**class) else { break };
                let Some(ParkedJob { queue, job, .. }) = list.get(at).filter(|_| at < MOVE_BATCH) else { break };
                let is_paused = self.queues.get(queue).is_some_and(|queue| queue.is_paused);
                let served = call.queues.iter().position(|name| name == queue).filter(|_| !is_paused);
                let is_suspect = job.counters.is_suspect();
                if served.is_some_and(|at| is_held[at]) && !is_suspect {
                    let Some(ParkedJob { queue, job, .. }) = list.remove(at) else { break };
                    self.queues.entry(queue).or_default().give_back(job);
                    continue;
                }
                let served = served.filter(|at| limits[*at] > 0);
                let Some(of_queue) = served.filter(|_| takes_suspect || !is_suspect) else {
                    at += 1;
                    continue;
                };
                limits[of_queue] -= 1;
                takes_suspect &= !is_suspect;
                let Some(ParkedJob { queue, job, .. }) = list.remove(at) else { break };
                bytes += job.text.len();
                self.pay(call, &queue, 1, now_us);
                self.run(call, reply, queue, job);
            }
            if self.parked.get(&**class).is_some_and(VecDeque::is_empty) {
                self.parked.remove(&**class);
            }
        }
    }

    /// Takes jobs from the queues in their order.
    pub(super) fn fetch(&mut self, call: &WorkerCall<'_>, reply: &mut WorkerReply, now_us: u64) {
        let (mut bytes, mut takes_suspect) = (0, call.takes_suspect);
        for (at, name) in call.queues.iter().enumerate() {
            let most = call
                .limits
                .get(at)
                .map_or(call.wanted, |limit| call.wanted.min(reply.fetched.len().saturating_add(*limit)));
            let most = most.min(reply.fetched.len().saturating_add(self.room(call, name, now_us)));
            let Some(queue) = self.queues.get_mut(name).filter(|queue| !queue.is_paused) else { continue };
            let mut taken = Vec::new();
            let has_room = |taken: usize, bytes| taken < most && (bytes < call.max_bytes || taken == 0);
            while has_room(reply.fetched.len() + taken.len(), bytes) {
                let Some(job) = queue.take(takes_suspect) else { break };
                takes_suspect &= !job.counters.is_suspect();
                bytes += job.text.len();
                taken.push(job);
            }
            self.pay(call, name, taken.len(), now_us);
            taken.into_iter().for_each(|job| self.run(call, reply, name.clone(), job));
        }
        for name in call.queues {
            if self.queues.get(name).is_none_or(|queue| queue.is_paused || queue.len() == 0) {
                continue;
            }
            match self.held_up(call, name, now_us) {
                None => reply.has_more = true,
                Some(held_up) => reply.held_up.push(held_up),
            }
        }
    }
}
