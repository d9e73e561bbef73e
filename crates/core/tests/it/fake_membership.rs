//! A membership whose nodes die on demand.

use std::sync::Mutex;

use async_trait::async_trait;
use phalanx_core::backend::{
    BackendError, LeaseStatus, LeaveBatch, Membership, NodeRecord, ReapedMember, RegisterOutcome, Renewal,
};
use phalanx_core::memory::MemoryMembership;
use phalanx_core::{ConnectionId, Generation};
use tokio::time::Instant;

/// Delegates for the node under test; the other nodes are dead, each with members in the lobby.
#[derive(Debug)]
pub(crate) struct FakeMembership {
    inner: MemoryMembership,
    started: Instant,
    dead: Mutex<Vec<(Generation, Vec<ReapedMember>)>>,
}

impl FakeMembership {
    pub(crate) fn new() -> Self {
        Self { inner: MemoryMembership::default(), started: Instant::now(), dead: Mutex::default() }
    }

    /// Adds a dead node with this member.
    pub(crate) fn add_dead_node(&self, member: &str) {
        self.add_large_dead_node([member.to_owned()]);
    }

    /// Adds a dead node with these members, which are all announced in one batch.
    pub(crate) fn add_large_dead_node(&self, members: impl IntoIterator<Item = String>) {
        let departed = |member: String| {
            let id = ConnectionId::parse(&member).unwrap();
            ReapedMember { room: "lobby".to_owned(), id, joined_at: 1 }
        };
        let members = members.into_iter().map(departed).collect();
        self.dead.lock().unwrap().push((Generation::random(), members));
    }

    /// Whether all dead nodes are reaped.
    pub(crate) fn has_no_dead_nodes(&self) -> bool {
        self.dead.lock().unwrap().is_empty()
    }
}

#[async_trait]
impl Membership for FakeMembership {
    async fn register(&self, record: &NodeRecord, was_registered: bool) -> Result<RegisterOutcome, BackendError> {
        self.inner.register(record, was_registered).await
    }

    async fn renew(&self, generation: Generation) -> Result<Renewal, BackendError> {
        let renewal = self.inner.renew(generation).await?;
        let expired = self.dead.lock().unwrap().iter().map(|(dead, _)| *dead).collect();
        let now_us = u64::try_from(self.started.elapsed().as_micros()).unwrap();
        Ok(match renewal {
            Renewal::Renewed(standing) => Renewal::Renewed(LeaseStatus { now_us, expired, ..standing }),
            Renewal::Gone => Renewal::Gone,
        })
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, BackendError> {
        self.inner.nodes().await
    }

    async fn leave(&self, generation: Generation) -> Result<(), BackendError> {
        self.inner.leave(generation).await
    }

    async fn claim(&self, _by: Generation, _dead: Generation, _seen_us: u64) -> Result<bool, BackendError> {
        Ok(true)
    }

    async fn renew_claim(&self, _by: Generation, _dead: Generation) -> Result<bool, BackendError> {
        Ok(true)
    }

    async fn next_leaves(&self, _by: Generation, dead: Generation) -> Result<LeaveBatch, BackendError> {
        let all = self.dead.lock().unwrap();
        let departed = all.iter().find(|(generation, _)| *generation == dead).map(|(_, departed)| departed.clone());
        Ok(departed.map_or(LeaveBatch::Done, LeaveBatch::Members))
    }

    async fn acknowledge_leaves(&self, _by: Generation, dead: Generation, _count: usize) -> Result<bool, BackendError> {
        self.dead.lock().unwrap().retain(|(generation, _)| *generation != dead);
        Ok(true)
    }
}
