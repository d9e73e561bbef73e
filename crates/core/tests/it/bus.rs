use std::sync::Arc;

use phalanx_core::backend::Bus;
use phalanx_core::memory::MemoryBus;

fn bus() -> Arc<dyn Bus> {
    Arc::new(MemoryBus::new(64))
}

phalanx_testkit::bus_laws!(memory: (super::bus(), ()));

/// A cluster's bus cannot make other nodes wait: there, what finds no room is counted, and the gap is told.
#[tokio::test]
async fn a_full_bus_makes_speakers_wait_and_loses_nothing() {
    phalanx_testkit::laws::bus::a_full_bus_makes_speakers_wait_and_loses_nothing(bus()).await;
}
