use std::sync::Arc;

use phalanx_core::backend::{SystemClock, TaskStore};
use phalanx_core::memory::MemoryTasks;

fn store() -> Arc<dyn TaskStore> {
    Arc::new(MemoryTasks::new(Arc::new(SystemClock::new()), 100))
}

phalanx_testkit::task_laws!(memory: (super::store(), ()));
