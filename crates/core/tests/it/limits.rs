use std::sync::Arc;

use phalanx_core::backend::{LimitStore, SystemClock};
use phalanx_core::memory::MemoryLimits;

fn store() -> Arc<dyn LimitStore> {
    Arc::new(MemoryLimits::new(Arc::new(SystemClock::new()), 1000))
}

phalanx_testkit::limit_laws!(memory: (super::store(), ()));
