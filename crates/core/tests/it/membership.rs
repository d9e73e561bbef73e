use std::sync::Arc;

use phalanx_core::backend::Membership;
use phalanx_core::memory::MemoryMembership;

fn membership() -> Arc<dyn Membership> {
    Arc::new(MemoryMembership::default())
}

phalanx_testkit::membership_laws!(memory: (super::membership(), ()));
