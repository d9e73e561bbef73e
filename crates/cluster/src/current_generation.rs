//! The generations of this node, shared by the parts that act under them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phalanx_core::Generation;

/// Generations that a node answers for: its current one, and the 16 before it.
pub(crate) const GENERATIONS: usize = 17;

/// The node's generation, which changes when the node registers again under a new one. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct CurrentGeneration(Arc<Mutex<VecDeque<Generation>>>);

impl CurrentGeneration {
    /// The generation; `None` until the node has one.
    pub(crate) fn get(&self) -> Option<Generation> {
        self.generations().back().copied()
    }

    /// The generation and those before it, the current one last.
    pub(crate) fn all(&self) -> Vec<Generation> {
        self.generations().iter().copied().collect()
    }

    /// Replaces the generation.
    pub fn set(&self, generation: Generation) {
        let mut generations = self.generations();
        if generations.back() != Some(&generation) {
            generations.push_back(generation);
        }
        if generations.len() > GENERATIONS {
            generations.pop_front();
        }
    }

    fn generations(&self) -> MutexGuard<'_, VecDeque<Generation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
