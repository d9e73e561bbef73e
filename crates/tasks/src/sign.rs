//! The signs of a node for resque's tools: that it is there, and a job that it works on.

use std::time::Duration;

use phalanx_core::Generation;
use phalanx_core::backend::{BackendError, WorkerSign};
use phalanx_core::job::WorkingOn;
use tokio::time::{Instant, timeout};
use tracing::{debug, error, info, warn};

use crate::metrics;
use crate::run::{StoreReply, WorkerLoop};
use crate::slots::SlotState;

/// How often a node shows itself.
const INTERVAL: Duration = Duration::from_secs(20);

/// How often it shows another job at most; and how long a job runs before it is shown.
const PAUSE: Duration = Duration::from_secs(1);

/// How often the log says that another cluster uses the same queues.
const REMINDER: Duration = Duration::from_secs(60);

/// The longest wait for the store when a node stops.
const LAST: Duration = Duration::from_secs(1);

/// The last sign, and when it was given.
#[derive(Debug, Default)]
pub(crate) struct WorkerSigns {
    next_look: Option<Instant>,
    last: Option<Instant>,
    /// The name of the node that was shown last, and the attempt.
    shown: Option<(Generation, Option<u64>)>,
    is_under_way: bool,
    /// Whether the queues are this cluster's, as far as was said.
    owns_queues: bool,
    reminded: Option<Instant>,
}

impl WorkerSigns {
    /// Whether jobs of these queues may be fetched: not before the store has said whose they are.
    pub(crate) fn owns_queues(&self) -> bool {
        self.owns_queues
    }

    /// Whether to look for what is to be shown: once a second.
    fn looks(&mut self, now: Instant) -> bool {
        let looks = !self.is_under_way && self.next_look.is_none_or(|at| now >= at);
        if looks {
            self.next_look = Some(now + PAUSE);
        }
        looks
    }

    /// Whether the node is to be shown: after a change, until the queues are its own, and again and again.
    fn is_due(&self, now: Instant, sign: (Generation, Option<u64>)) -> bool {
        self.shown != Some(sign) || !self.owns_queues || self.last.is_none_or(|last| now >= last + INTERVAL)
    }

    fn begin(&mut self, now: Instant, sign: (Generation, Option<u64>)) {
        (self.last, self.shown, self.is_under_way) = (Some(now), Some(sign), true);
    }

    /// Another cluster has the queues: whether it is time to say so.
    fn reminds(&mut self, now: Instant) -> bool {
        let is_due = self.reminded.is_none_or(|last| now >= last + REMINDER);
        if is_due {
            self.reminded = Some(now);
        }
        is_due
    }
}

impl WorkerLoop {
    /// Shows the node, and the job that it has run for longest, if that has run for a second.
    pub(crate) fn show(&mut self, now: Instant) {
        if !self.signs.looks(now) {
            return;
        }
        let running = self.slots.iter().filter(|slot| matches!(slot.state, SlotState::Running(_)));
        let longest = running.min_by_key(|slot| slot.started).filter(|slot| now >= slot.started + PAUSE);
        let generation = self.engine.node().generation();
        let sign = (generation, longest.map(|slot| slot.key().token));
        if !self.signs.is_due(now, sign) {
            return;
        }
        let worker = self.name();
        let working_on = longest.map(|slot| {
            let ran_ms = now.saturating_duration_since(slot.started).as_millis() as u64;
            let run_at_ms = self.engine.clock().now_ms().saturating_sub(ran_ms);
            WorkingOn { worker: &worker, queue: &slot.key().queue, text: &slot.job.text, run_at_ms }.write()
        });
        self.signs.begin(now, sign);
        let (store, queues) = (self.store.clone(), self.queues.clone());
        self.replies.push(Box::pin(async move {
            let sign = WorkerSign { generation, queues: queues.names(), working_on: working_on.as_deref() };
            StoreReply::Shown(store.show_worker(&sign).await)
        }));
    }

    pub(crate) fn on_shown(&mut self, result: Result<Option<String>, BackendError>) {
        self.signs.is_under_way = false;
        let now = Instant::now();
        let other = match result {
            Ok(other) => other,
            Err(error) => return self.on_not_shown(&error, now),
        };
        let is_shared = self.engine.config().tasks.shared_prefix;
        let was_allowed = std::mem::replace(&mut self.signs.owns_queues, other.is_none() || is_shared);
        metrics::record_foreign_queues(!self.signs.owns_queues);
        match other.filter(|_| !is_shared) {
            Some(cluster) if self.signs.reminds(now) => error!(
                cluster,
                "another cluster uses the queues below tasks.prefix, so this node fetches no jobs: it would run those of the \
                 other one. Give each a tasks.prefix of its own, or set tasks.shared_prefix"
            ),
            Some(_) => {}
            None if !was_allowed => {
                if self.signs.reminded.take().is_some() {
                    info!("the queues below tasks.prefix are those of this cluster: this node fetches jobs");
                }
                self.gate.on_woken(now);
            }
            None => {}
        }
    }

    /// It is tried again a second later: the sign that this cluster has the queues must not run out.
    fn on_not_shown(&mut self, error: &BackendError, now: Instant) {
        self.signs.last = None;
        if !self.signs.owns_queues && self.signs.reminds(now) {
            warn!(%error, "this node fetches no jobs: whose the queues below tasks.prefix are is not known");
        } else {
            debug!(%error, "this node is not among the workers that resque tools show");
        }
    }

    /// Removes what the node shows, when it stops.
    pub(crate) async fn hide(&mut self) {
        let node = self.engine.node();
        if !node.is_fenced() {
            let _ = timeout(LAST, self.store.remove_worker(node.generation())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_shown_at_its_start_then_seldom_and_after_changes_once_a_second_at_most() {
        let (start, mut signs) = (Instant::now(), WorkerSigns { owns_queues: true, ..WorkerSigns::default() });
        let [one, other] = ["aaaaaaaaaa", "bbbbbbbbbb"].map(|name| Generation::parse(name).unwrap());
        for (at_ms, generation, attempt, is_shown) in [
            (0, one, None, true),
            (500, one, Some(7), false), // no look
            (1000, one, Some(7), true),
            (2000, one, Some(7), false), // no change
            (3000, one, None, true),
            (22_000, one, None, false),
            (23_000, one, None, true), // again
            (24_000, other, None, true),
        ] {
            let (now, sign) = (start + Duration::from_millis(at_ms), (generation, attempt));
            assert_eq!(signs.looks(now) && signs.is_due(now, sign), is_shown, "{at_ms} {attempt:?}");
            if is_shown {
                signs.begin(now, sign);
                assert!(!signs.looks(now + INTERVAL), "one at a time");
                signs.is_under_way = false;
            }
        }
        signs.owns_queues = false;
        let now = start + Duration::from_secs(25);
        assert!(signs.looks(now) && signs.is_due(now, (other, None)), "each second until the queues are its own");
    }
}
