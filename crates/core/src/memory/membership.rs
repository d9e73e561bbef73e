//! The membership of one node. There is no other node to lose, so no lease expires and none is reaped.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::backend::{BackendError, LeaseStatus, LeaveBatch, Membership, NodeRecord, RegisterOutcome, Renewal};
use crate::id::Generation;

/// The membership of the embedded backend's only node. Its lease never expires.
#[derive(Debug, Default)]
pub struct MemoryMembership {
    nodes: Mutex<Vec<NodeRecord>>,
}

impl MemoryMembership {
    fn nodes(&self) -> MutexGuard<'_, Vec<NodeRecord>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Membership for MemoryMembership {
    async fn register(&self, record: &NodeRecord, was_registered: bool) -> Result<RegisterOutcome, BackendError> {
        let mut nodes = self.nodes();
        let is_known = nodes.iter().any(|node| node.generation == record.generation);
        if was_registered && !is_known {
            return Ok(RegisterOutcome::Reaped); // this data is never lost
        }
        nodes.retain(|node| node.generation != record.generation && !record.earlier.contains(&node.generation));
        nodes.push(record.clone());
        Ok(RegisterOutcome::Registered)
    }

    async fn renew(&self, generation: Generation) -> Result<Renewal, BackendError> {
        let known = self.nodes().iter().any(|node| node.generation == generation);
        Ok(if known { Renewal::Renewed(LeaseStatus::default()) } else { Renewal::Gone })
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, BackendError> {
        Ok(self.nodes().clone())
    }

    async fn leave(&self, generation: Generation) -> Result<(), BackendError> {
        self.nodes().retain(|node| node.generation != generation);
        Ok(())
    }

    async fn claim(&self, _by: Generation, _dead: Generation, _seen_us: u64) -> Result<bool, BackendError> {
        Ok(false)
    }

    async fn renew_claim(&self, _by: Generation, _dead: Generation) -> Result<bool, BackendError> {
        Ok(false)
    }

    async fn next_leaves(&self, _by: Generation, _dead: Generation) -> Result<LeaveBatch, BackendError> {
        Ok(LeaveBatch::ClaimLost)
    }

    async fn acknowledge_leaves(
        &self,
        _by: Generation,
        _dead: Generation,
        _count: usize,
    ) -> Result<bool, BackendError> {
        Ok(false)
    }
}
