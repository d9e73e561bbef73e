//! The tasks of a node, with what its worker knows of them.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use phalanx_core::registry::{RegisteredTask, Registry};

use crate::metrics::TaskMetrics;
use crate::series::AttemptCounts;

/// A task of this node.
pub(crate) struct ServedTask {
    registered: Arc<RegisteredTask>,
    /// Whether its last attempt ended at the first poll, and soon.
    is_quick: AtomicBool,
    pub(crate) metrics: TaskMetrics,
    /// For the minute series.
    pub(crate) counts: AttemptCounts,
}

impl ServedTask {
    /// Whether its next attempt is expected to end at once.
    pub(crate) fn is_quick(&self) -> bool {
        self.is_quick.load(Relaxed)
    }

    /// Notes how the last attempt ended. It is written seldom: threads share it.
    pub(crate) fn set_quick(&self, is_quick: bool) {
        if self.is_quick() != is_quick {
            self.is_quick.store(is_quick, Relaxed);
        }
    }
}

impl Deref for ServedTask {
    type Target = RegisteredTask;

    fn deref(&self) -> &RegisteredTask {
        &self.registered
    }
}

/// The tasks of a node, by name.
pub(crate) type ServedTasks = HashMap<&'static str, Arc<ServedTask>>;

/// The tasks of a registry.
pub(crate) fn served_tasks(registry: &Registry) -> ServedTasks {
    let served = |task: &Arc<RegisteredTask>| {
        let registered = task.clone();
        Arc::new(ServedTask {
            registered,
            is_quick: AtomicBool::new(false),
            metrics: TaskMetrics::default(),
            counts: AttemptCounts::default(),
        })
    };
    registry.tasks().map(|task| (task.def.name, served(task))).collect()
}
