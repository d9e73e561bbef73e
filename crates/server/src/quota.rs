//! Counted limits of a node: connections, requests, bytes of uploads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use phalanx_core::bound_reached;
use tokio::sync::Notify;

use crate::shares::{AddressShare, SharePermit, SharedBound};

/// An upper limit, named after its setting; clones share the count.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    name: &'static str,
    limit: u64,
    taken: Arc<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    amount: AtomicU64,
    /// Notified when something of a full quota is given back.
    given_back: Notify,
}

impl Quota {
    pub(crate) fn new(name: &'static str, limit: u64) -> Self {
        Self { name, limit, taken: Arc::default() }
    }

    /// The amount that is taken.
    pub(crate) fn used(&self) -> u64 {
        self.taken.amount.load(Relaxed)
    }

    /// Waits until something is free, for one task at a time. A wait is counted in the metrics, as a refusal is. Safe to cancel.
    pub(crate) async fn some_free(&self) {
        if self.used() < self.limit {
            return;
        }
        bound_reached(self.name);
        while self.used() >= self.limit {
            self.taken.given_back.notified().await;
        }
    }

    /// Takes nothing yet: the permit grows.
    pub(crate) fn start(&self) -> QuotaPermit {
        QuotaPermit { quota: self.clone(), amount: 0 }
    }

    /// Takes `amount` from the quota. A refusal is counted in the metrics.
    pub(crate) fn try_acquire(&self, amount: u64) -> Option<QuotaPermit> {
        let mut permit = self.start();
        permit.try_grow(amount).then_some(permit)
    }
}

/// An amount taken from a [`Quota`]; dropping it gives the amount back.
#[derive(Debug)]
pub(crate) struct QuotaPermit {
    quota: Quota,
    amount: u64,
}

impl QuotaPermit {
    /// Takes `by` more while at most half of the quota is taken then, for what can do without. It is no refusal, and not
    /// counted.
    pub(crate) fn try_grow_within_half(&mut self, by: u64) -> bool {
        self.quota.used().saturating_add(by) <= self.quota.limit / 2 && self.try_grow(by)
    }

    /// Takes `by` more from the quota and returns whether that much was free.
    pub(crate) fn try_grow(&mut self, by: u64) -> bool {
        let grown = |used: u64| used.checked_add(by).filter(|sum| *sum <= self.quota.limit);
        let is_free = self.quota.taken.amount.fetch_update(Relaxed, Relaxed, grown).is_ok();
        if is_free {
            self.amount += by;
        } else {
            bound_reached(self.quota.name);
        }
        is_free
    }
}

/// An amount of a quota and of an address's share of it, which grows.
#[derive(Debug)]
pub(crate) struct SharedPermit {
    quota: QuotaPermit,
    share: Option<SharePermit>,
}

/// The bound at which a [`SharedPermit`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exhausted {
    Quota,
    Share,
}

impl SharedPermit {
    pub(crate) fn start(quota: &Quota, share: Option<&Arc<AddressShare>>, bound: SharedBound) -> Self {
        Self { quota: quota.start(), share: share.and_then(|share| share.try_acquire(bound, 0)) }
    }

    /// Takes `amount` of both.
    pub(crate) fn try_acquire(
        quota: &Quota,
        share: Option<&Arc<AddressShare>>,
        bound: SharedBound,
        amount: u64,
    ) -> Result<Self, Exhausted> {
        let mut permit = Self::start(quota, share, bound);
        permit.try_grow(amount)?;
        Ok(permit)
    }

    /// Takes `by` more of both.
    pub(crate) fn try_grow(&mut self, by: u64) -> Result<(), Exhausted> {
        if self.share.as_mut().is_some_and(|share| !share.try_grow(by)) {
            return Err(Exhausted::Share);
        }
        if self.quota.try_grow(by) { Ok(()) } else { Err(Exhausted::Quota) }
    }
}

impl Drop for QuotaPermit {
    fn drop(&mut self) {
        let before = self.quota.taken.amount.fetch_sub(self.amount, Relaxed);
        if self.amount > 0 && before == self.quota.limit {
            self.quota.taken.given_back.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_permit_gives_its_amount_back() {
        let quota = Quota::new("test", 3);
        let mut permit = quota.try_acquire(2).unwrap();
        assert!(quota.try_acquire(2).is_none() && !permit.try_grow(2) && permit.try_grow(1));
        drop(permit);
        assert!(quota.try_acquire(3).is_some() && quota.try_acquire(u64::MAX).is_none());
    }
}
