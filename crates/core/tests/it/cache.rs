use std::sync::Arc;

use phalanx_core::backend::{CacheStore, SystemClock};
use phalanx_core::memory::{MemoryCache, MemoryLocks};

fn store() -> Arc<dyn CacheStore> {
    Arc::new(MemoryCache::new(Arc::new(MemoryLocks::new(Arc::new(SystemClock::new())))))
}

phalanx_testkit::cache_laws!(memory: (super::store(), ()));
