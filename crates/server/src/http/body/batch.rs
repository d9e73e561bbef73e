//! The bytes of a file between its body and its disk.

use std::ops::Deref;

use crate::quota::{Quota, QuotaPermit};

/// Bytes of a file that are written together: hyper reads 8 KiB at a time, and to wake a thread for these costs more than to
/// write them.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// For all pieces but the first, under `web.max_bodies_total`: at most half of it, so that a slow disk leaves room for
    /// other bodies.
    memory: QuotaPermit,
}

/// The size of a batch to which nothing is added.
const FULL: usize = 64 * 1024;

impl Batch {
    pub(super) fn new(memory: &Quota) -> Self {
        Self { bytes: Vec::new(), memory: memory.start() }
    }

    /// Adds a piece, and returns whether there was room for it. An empty batch takes any.
    pub(super) fn try_add(&mut self, piece: &[u8]) -> bool {
        let has_room = self.bytes.is_empty()
            || self.bytes.len() + piece.len() <= FULL && self.memory.try_grow_within_half(piece.len() as u64);
        if has_room {
            self.bytes.extend_from_slice(piece);
        }
        has_room
    }
}

impl Deref for Batch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_takes_what_fits_it_and_the_memory_of_the_node() {
        for (memory, room) in [(u64::MAX, FULL), (2 * FULL as u64, FULL), (40_000, 24_000), (0, 8000)] {
            let quota = Quota::new("test", memory);
            let mut batch = Batch::new(&quota);
            while batch.try_add(&[0; 8000]) {}
            assert_eq!(batch.len(), room / 8000 * 8000, "{memory}");
            assert_eq!(quota.used(), batch.len() as u64 - 8000);
            drop(batch);
            assert_eq!(quota.used(), 0);
        }
        let mut batch = Batch::new(&Quota::new("test", 0));
        assert!(batch.try_add(&[0; 2 * FULL]) && !batch.try_add(&[0]), "the first piece may have any size");
    }
}
