use std::sync::Arc;

use phalanx_core::backend::Bus;
use phalanx_core::memory::MemoryBus;

fn bus() -> Arc<dyn Bus> {
    Arc::new(MemoryBus::new(64))
}

phalanx_testkit::bus_laws!(memory: (super::bus(), ()));
