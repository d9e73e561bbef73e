//! Ticks of periodic tasks: the last one of each.

use std::collections::HashMap;
use std::sync::Arc;

use super::Jobs;
use crate::backend::{SCHEDULE_SILENCE_US, TickOutcome, TickRequest};

/// The last tick of each task.
#[derive(Default)]
pub(super) struct LastTicks(HashMap<Arc<str>, LastTick>);

struct LastTick {
    at_ms: u64,
    /// When the node of this schedule that began last did so, in µs.
    since_us: u64,
    /// When a node with it was seen, in µs.
    seen_us: u64,
    schedule: Arc<str>,
}

impl Jobs {
    /// Enqueues the ticks of one task that are due.
    pub(super) fn tick(&mut self, request: &TickRequest, since_us: u64, now_us: u64) -> TickOutcome {
        let now_ms = now_us / 1000;
        let stored = self.last_ticks.0.remove(&request.task);
        let is_own = |last: &LastTick| last.schedule == request.schedule;
        if let Some(last) = stored.as_ref().filter(|last| !is_own(last))
            && last.since_us >= since_us
            && now_us.abs_diff(last.seen_us) < SCHEDULE_SILENCE_US
        {
            let schedule = last.schedule.to_string();
            self.last_ticks.0.extend(stored.map(|last| (request.task.clone(), last)));
            return TickOutcome::Superseded { schedule };
        }
        let mut last_ms = self.last_ms(stored.as_ref(), request, now_ms);
        let (mut enqueued, mut skipped, mut missed) = (Vec::new(), 0, 0);
        for tick in request.due.iter().take_while(|tick| tick.at_ms <= now_ms) {
            if tick.at_ms <= last_ms {
                continue;
            }
            last_ms = tick.at_ms;
            let Some(job) = &tick.job else {
                missed += 1;
                continue;
            };
            if job.unique.as_ref().is_some_and(|unique| self.is_held(&unique.key, now_ms)) {
                skipped += 1;
            } else {
                self.store(job.clone(), now_ms);
                enqueued.push(tick.at_ms);
            }
        }
        let since_us = stored.as_ref().filter(|last| is_own(last)).map_or(since_us, |last| last.since_us.max(since_us));
        let last = LastTick { at_ms: last_ms, since_us, seen_us: now_us, schedule: request.schedule.clone() };
        self.last_ticks.0.insert(request.task.clone(), last);
        TickOutcome::Ticked { last_ms, enqueued, skipped, missed }
    }

    /// The last tick, before those that are due. A task does not tick for the past.
    fn last_ms(&self, stored: Option<&LastTick>, request: &TickRequest, now_ms: u64) -> u64 {
        // One beyond the next tick was made by a clock that was ahead.
        let is_sound = |last_ms: u64| last_ms <= request.next_ms || now_ms >= request.next_ms;
        let of_store = stored.map(|last| last.at_ms).filter(|last_ms| is_sound(*last_ms));
        let known = request.known_ms.filter(|known_ms| *known_ms <= request.next_ms);
        let last_ms = of_store.max(known).unwrap_or(now_ms);
        if stored.is_none_or(|last| last.schedule == request.schedule) { last_ms } else { last_ms.max(now_ms) }
    }

    /// Whether the job that has a claim waits or runs. It may be over without having released it: its queue was emptied.
    fn is_held(&self, claim: &str, now_ms: u64) -> bool {
        self.claimant(claim, now_ms).is_some_and(|id| self.ids.place(&id).is_some_and(|place| !place.is_failed()))
    }
}
