//! The generation that this node has now, shared by the parts that act under it.

use std::sync::{Arc, Mutex, PoisonError};

use phalanx_core::Generation;

/// The node's generation, which changes when the node registers again under a new one. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct CurrentGeneration(Arc<Mutex<Option<Generation>>>);

impl CurrentGeneration {
    /// The generation; `None` until the node has one.
    pub(crate) fn get(&self) -> Option<Generation> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the generation.
    pub fn set(&self, generation: Generation) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(generation);
    }
}
