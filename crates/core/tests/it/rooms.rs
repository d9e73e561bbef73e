use std::sync::Arc;

use phalanx_core::backend::RoomStore;
use phalanx_core::memory::MemoryRooms;

fn store() -> Arc<dyn RoomStore> {
    Arc::new(MemoryRooms::default())
}

phalanx_testkit::room_laws!(memory: (super::store(), ()));
