use std::sync::Arc;

use phalanx_core::backend::Bus;
use phalanx_core::memory::MemoryBus;

fn bus() -> Arc<dyn Bus> {
    Arc::new(MemoryBus::new(64))
}

phalanx_testkit::bus_laws!(memory: (super::bus(), ()));

/// Only the memory bus has this law: a bus between nodes cannot make other nodes wait, so it counts and reports a gap.
#[tokio::test]
async fn a_full_bus_makes_publishers_wait_and_loses_nothing() {
    phalanx_testkit::laws::bus::a_full_bus_makes_publishers_wait_and_loses_nothing(bus()).await;
}
