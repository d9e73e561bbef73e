//! A membership whose nodes die on demand.

use std::sync::Mutex;

use async_trait::async_trait;
use phalanx_core::backend::{BackendError, LeaseStatus, LeaveBatch, Membership, NodeRecord, ReapedMember, Renewal};
use phalanx_core::memory::MemoryMembership;
use phalanx_core::{ConnectionId, Generation};
use tokio::time::Instant;

/// Delegates for the node under test; the other nodes are dead, each with a member in the lobby.
#[derive(Debug)]
pub(crate) struct FakeMembership {
    inner: MemoryMembership,
    started: Instant,
    dead: Mutex<Vec<(Generation, ReapedMember)>>,
}

impl FakeMembership {
    pub(crate) fn new() -> Self {
        Self { inner: MemoryMembership::default(), started: Instant::now(), dead: Mutex::default() }
    }

    /// Adds a dead node with this member.
    pub(crate) fn add_dead_node(&self, member: &str) {
        let id = ConnectionId::parse(member).unwrap();
        let departed = ReapedMember { room: "lobby".to_owned(), id, joined_at: 1 };
        self.dead.lock().unwrap().push((Generation::random(), departed));
    }
}

#[async_trait]
impl Membership for FakeMembership {
    async fn register(&self, record: &NodeRecord, known: Option<&str>) -> Result<Option<String>, BackendError> {
        self.inner.register(record, known).await
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
        Ok(departed.map_or(LeaveBatch::Done, |departed| LeaveBatch::Members(vec![departed])))
    }

    async fn acknowledge_leaves(&self, _by: Generation, dead: Generation, _count: usize) -> Result<bool, BackendError> {
        self.dead.lock().unwrap().retain(|(generation, _)| *generation != dead);
        Ok(true)
    }
}
