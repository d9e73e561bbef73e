use std::sync::Arc;

use phalanx_core::backend::{LockStore, SystemClock};
use phalanx_core::memory::MemoryLocks;

fn store() -> Arc<dyn LockStore> {
    Arc::new(MemoryLocks::new(Arc::new(SystemClock::new())))
}

phalanx_testkit::lock_laws!(memory: (super::store(), ()));
