//! What a node holds at once: connections, requests, bytes of uploads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use phalanx_core::bound_reached;

/// Most of something at once, by the name of its setting; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    name: &'static str,
    most: u64,
    used: Arc<AtomicU64>,
}

impl Bound {
    pub(crate) fn new(name: &'static str, most: u64) -> Self {
        Self { name, most, used: Arc::default() }
    }

    /// Takes a share, unless that would be too much; then it is counted.
    pub(crate) fn take(&self, amount: u64) -> Option<Share> {
        let mut share = Share { bound: self.clone(), amount: 0 };
        share.grow(amount).then_some(share)
    }
}

/// A part of what there may be at once, free again when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    bound: Bound,
    amount: u64,
}

impl Share {
    /// Takes more; says whether there was as much.
    pub(crate) fn grow(&mut self, by: u64) -> bool {
        let more = |used: u64| used.checked_add(by).filter(|sum| *sum <= self.bound.most);
        let is_free = self.bound.used.fetch_update(Relaxed, Relaxed, more).is_ok();
        if is_free {
            self.amount += by;
        } else {
            bound_reached(self.bound.name);
        }
        is_free
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.bound.used.fetch_sub(self.amount, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_free_again_when_it_is_dropped() {
        let bound = Bound::new("test", 3);
        let mut one = bound.take(2).unwrap();
        assert!(bound.take(2).is_none() && !one.grow(2) && one.grow(1));
        drop(one);
        assert!(bound.take(3).is_some() && bound.take(u64::MAX).is_none());
    }
}
