//! Limits of queues. The attempts that run are counted where they are listed: no number can differ from them.

use std::sync::Arc;

use super::Jobs;
use crate::backend::{HeldUpQueue, QueueLimits, WorkerCall};

/// The limits that a call knows for a queue.
fn limits_of(call: &WorkerCall<'_>, queue: &str) -> QueueLimits {
    call.limited.iter().find(|limited| *limited.queue == *queue).map_or(QueueLimits::NONE, |limited| limited.limits)
}

impl Jobs {
    /// How many jobs of a queue may begin now.
    pub(super) fn room(&mut self, call: &WorkerCall<'_>, queue: &Arc<str>, now_us: u64) -> usize {
        let limits = limits_of(call, queue);
        let running = limits.running.map(|limit| (limit as usize).saturating_sub(self.running_of(queue)));
        let rate = limits.rate.map(|rate| self.rates.entry(queue.clone()).or_default().room(rate, now_us) as usize);
        running.unwrap_or(usize::MAX).min(rate.unwrap_or(usize::MAX))
    }

    fn running_of(&self, queue: &str) -> usize {
        self.running.values().flat_map(|attempts| attempts.values()).filter(|attempt| *attempt.queue == *queue).count()
    }

    /// Counts jobs that begin.
    pub(super) fn pay(&mut self, call: &WorkerCall<'_>, queue: &Arc<str>, jobs: usize, now_us: u64) {
        if let Some(rate) = limits_of(call, queue).rate {
            let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
            self.rates.entry(queue.clone()).or_default().pay(rate, jobs, now_us);
        }
    }

    /// Whether a limit holds up the jobs that wait in a queue.
    pub(super) fn held_up(&mut self, call: &WorkerCall<'_>, queue: &Arc<str>, now_us: u64) -> Option<HeldUpQueue> {
        let limits = limits_of(call, queue);
        if limits.is_none() || self.room(call, queue, now_us) > 0 {
            return None;
        }
        let by_running = limits.running.is_some_and(|limit| self.running_of(queue) >= limit as usize);
        let rate = limits.rate.filter(|_| !by_running);
        let opens_in = rate.map(|rate| self.rates.entry(queue.clone()).or_default().pay(rate, 0, now_us));
        Some(HeldUpQueue { queue: queue.clone(), opens_in })
    }

    /// Whether a call has made room in a queue that was at its limit, and in which jobs wait.
    pub(super) fn has_made_room(&self, call: &WorkerCall<'_>) -> bool {
        call.limited.iter().any(|limited| {
            let ended = call.settlements.iter().any(|settlement| settlement.attempt.queue == limited.queue);
            let waits = self.queues.get(&limited.queue).is_some_and(|queue| !queue.is_paused && queue.len() > 0);
            let is_free = |limit: u32| self.running_of(&limited.queue) < limit as usize;
            ended && waits && limited.limits.running.is_some_and(is_free)
        })
    }
}
