//! The reaps of nodes that ran jobs, and the nodes that came back. A store of one node sees none but those of tests.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::queue::WaitingJob;
use crate::id::Generation;
use crate::metrics::bound_reached;

/// Most generations, and most jobs, that are remembered.
const MAX_REAPS: usize = 10_000;

#[derive(Default)]
pub(super) struct CountedReaps {
    returned: HashSet<Generation>,
    /// The jobs for which the reap of a generation counted as a death.
    deaths: HashMap<Generation, Vec<Arc<str>>>,
    /// How many such deaths were none.
    stalls: HashMap<Arc<str>, u32>,
}

impl CountedReaps {
    /// Counts the reap of a generation that ran this job.
    pub(super) fn count(&mut self, dead: Generation, job: &mut WaitingJob) {
        let came_back = self.returned.contains(&dead);
        let returned = job.id.as_ref().and_then(|id| self.stalls.remove(id));
        job.counters = job.counters.after_reap(came_back, returned.unwrap_or_default());
        if let Some(id) = job.id.as_ref().filter(|_| !came_back && job.counters.conviction().is_none()) {
            self.deaths.entry(dead).or_default().push(id.clone());
        }
        self.forget_old();
    }

    pub(super) fn came_back(&mut self, generation: Generation) {
        self.returned.insert(generation);
        for id in self.deaths.remove(&generation).unwrap_or_default() {
            *self.stalls.entry(id).or_default() += 1;
        }
        self.forget_old();
    }

    fn forget_old(&mut self) {
        if self.returned.len().max(self.deaths.len()).max(self.stalls.len()) > MAX_REAPS {
            bound_reached("counted_reaps");
            *self = Self::default();
        }
    }
}
