//! What this node is called now, for the parts that act under its name.

use std::sync::{Arc, Mutex, PoisonError};

use phalanx_core::Generation;

/// A name that changes when the node is named anew. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct OwnName(Arc<Mutex<Option<Generation>>>);

impl OwnName {
    /// The name; `None` until the node has one.
    pub(crate) fn get(&self) -> Option<Generation> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives another name.
    pub fn set(&self, generation: Generation) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(generation);
    }
}
