//! The epoch of the store in which this node is registered.

use std::sync::{Arc, Mutex, PoisonError};

/// Names the data in which the node registered last; another name in Redis means that they are lost. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct StoreEpoch(Arc<Mutex<String>>);

impl StoreEpoch {
    /// The name; empty until the node is registered.
    pub(crate) fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, name: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        name.clone_into(&mut known);
    }
}
