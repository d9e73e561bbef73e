//! The checkpoints of jobs.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::metrics::bound_reached;

/// Most checkpoints; beyond, the oldest is dropped.
const MAX_CHECKPOINTS: usize = 10_000;

/// The checkpoints by the ids of jobs, each with the time at which it is forgotten.
#[derive(Default)]
pub(super) struct JobCheckpoints {
    by_id: HashMap<Arc<str>, (Bytes, u64)>,
    /// The ids in the order of their first checkpoints, with some whose jobs are over.
    order: VecDeque<Arc<str>>,
}

impl JobCheckpoints {
    pub(super) fn keep(&mut self, id: &str, value: Bytes, until_ms: u64) {
        if let Some(kept) = self.by_id.get_mut(id) {
            *kept = (value, until_ms);
            return;
        }
        while self.by_id.len() >= MAX_CHECKPOINTS {
            let Some(oldest) = self.order.pop_front() else { break };
            if self.by_id.remove(&oldest).is_some() {
                bound_reached("task_checkpoints");
            }
        }
        if self.order.len() >= 2 * MAX_CHECKPOINTS {
            self.order.retain(|id| self.by_id.contains_key(id));
        }
        let id: Arc<str> = id.into();
        self.order.push_back(id.clone());
        self.by_id.insert(id, (value, until_ms));
    }

    pub(super) fn get(&self, id: &str, now_ms: u64) -> Option<Bytes> {
        self.by_id.get(id).filter(|(_, until_ms)| *until_ms > now_ms).map(|(value, _)| value.clone())
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.by_id.remove(id);
    }
}
