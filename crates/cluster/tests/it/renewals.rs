//! A membership that measures how long renewals of the lease take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use phalanx_core::Generation;
use phalanx_core::backend::{BackendError, LeaveBatch, Membership, NodeRecord, RegisterOutcome, Renewal};
use tokio::time::Instant;

/// The longest renewal so far.
#[derive(Clone, Default)]
pub(crate) struct LongestRenewal(Arc<AtomicU64>);

impl LongestRenewal {
    pub(crate) fn take(&self) -> Duration {
        Duration::from_micros(self.0.swap(0, Relaxed))
    }
}

pub(crate) struct TimedMembership {
    pub(crate) inner: Arc<dyn Membership>,
    pub(crate) longest: LongestRenewal,
}

#[async_trait]
impl Membership for TimedMembership {
    async fn register(&self, record: &NodeRecord, was_registered: bool) -> Result<RegisterOutcome, BackendError> {
        self.inner.register(record, was_registered).await
    }

    async fn renew(&self, generation: Generation) -> Result<Renewal, BackendError> {
        let sent = Instant::now();
        let renewal = self.inner.renew(generation).await;
        self.longest.0.fetch_max(sent.elapsed().as_micros() as u64, Relaxed);
        renewal
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, BackendError> {
        self.inner.nodes().await
    }

    async fn leave(&self, generation: Generation) -> Result<(), BackendError> {
        self.inner.leave(generation).await
    }

    async fn claim(&self, by: Generation, dead: Generation, seen_us: u64) -> Result<bool, BackendError> {
        self.inner.claim(by, dead, seen_us).await
    }

    async fn renew_claim(&self, by: Generation, dead: Generation) -> Result<bool, BackendError> {
        self.inner.renew_claim(by, dead).await
    }

    async fn next_leaves(&self, by: Generation, dead: Generation) -> Result<LeaveBatch, BackendError> {
        self.inner.next_leaves(by, dead).await
    }

    async fn acknowledge_leaves(&self, by: Generation, dead: Generation, count: usize) -> Result<bool, BackendError> {
        self.inner.acknowledge_leaves(by, dead, count).await
    }
}
