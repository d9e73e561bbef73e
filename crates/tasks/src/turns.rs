//! Queues in which jobs take turns, of which no task of this node knows.

use phalanx_core::backend::{LimitedQueue, QueueLimits};
use phalanx_core::bound_reached;
use tokio::time::Instant;

use crate::run::WorkerLoop;

/// Most queues that calls name, beyond which a node learns of none from the store. Those of its own tasks are named in any case.
const MAX_NAMED: usize = 100;

impl WorkerLoop {
    /// Adds the queues in which such jobs wait: those of nodes with another version of the application, whose tasks take turns. Their
    /// attempts are not counted, so this changes nothing for those that run.
    pub(crate) fn set_turns(&mut self, stored: &[String]) {
        let takes_turns = |queue: &str| self.limited.iter().any(|it| it.takes_turns && *it.queue == *queue);
        let is_new = |queue: &&String| self.queues.contains(queue) && !takes_turns(queue);
        let new: Vec<&String> = stored.iter().filter(is_new).collect();
        if new.is_empty() {
            return;
        }
        let mut limited = self.limited.to_vec();
        for queue in new {
            if let Some(known) = limited.iter_mut().find(|known| *known.queue == **queue) {
                known.takes_turns = true;
                continue;
            }
            if limited.len() >= MAX_NAMED {
                bound_reached("fair_queues");
                continue;
            }
            limited.push(LimitedQueue { takes_turns: true, ..LimitedQueue::new(queue.as_str(), QueueLimits::NONE) });
        }
        self.limited = limited.into();
        self.gate.on_woken(Instant::now());
    }
}
