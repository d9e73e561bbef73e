//! The limits of queues: a queue has those of its tasks, which are the same for all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{DefinitionErrors, RegisteredTask, Registry};
use crate::backend::LimitedQueue;
use crate::task::TaskDef;

/// Checks the limits of all tasks. One without a limit, in the queue of one that has one, differs too: its author would not expect
/// that its jobs wait.
pub(super) fn check(tasks: &BTreeMap<&'static str, Arc<RegisteredTask>>, errors: &mut DefinitionErrors) {
    let mut queues: BTreeMap<&str, &TaskDef> = BTreeMap::new();
    for def in tasks.values().map(|task| task.def) {
        if let Some(mistake) = def.limits.mistake() {
            errors.add(format!("task {:?}: {mistake}", def.name));
        }
        let first = queues.entry(def.queue).or_insert(def);
        if first.limits != def.limits {
            errors.add(format!(
                "the tasks {:?} ({}) and {:?} ({}) have the queue {:?}, whose limits are one: give them the same, or queues of their own",
                first.name, first.limits, def.name, def.limits, def.queue
            ));
        }
    }
}

impl Registry {
    /// The queues with limits in the cluster, and those in which jobs take turns, by name.
    pub fn limited_queues(&self) -> Vec<LimitedQueue> {
        let mut queues: BTreeMap<&str, LimitedQueue> = BTreeMap::new();
        for def in self.tasks().map(|task| task.def) {
            if def.limits.is_none() && def.fair_by.is_none() {
                continue;
            }
            let queue = queues.entry(def.queue).or_insert_with(|| LimitedQueue::new(def.queue, def.limits));
            queue.takes_turns |= def.fair_by.is_some();
        }
        queues.into_values().collect()
    }
}
