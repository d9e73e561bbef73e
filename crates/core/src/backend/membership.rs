//! The seam for membership: which nodes there are, which of them live, and what is left behind by those that died.

use std::time::Duration;

use async_trait::async_trait;

use super::BackendError;
use crate::connection::ConnectionId;
use crate::node::Generation;

/// How long a lease runs. Past it a generation may be reaped; only the reap makes it dead.
pub const LEASE: Duration = Duration::from_secs(5);

/// How long a lease has run out before others are told of it: whoever was late by less is not taken for dead.
pub const OVERDUE: Duration = Duration::from_millis(500);

/// How long the list of those that lapsed may be acted on. A reaper that was frozen over it might meet nodes that all
/// had to stand still, and of which none has had the time to come back.
pub const SEEN: Duration = Duration::from_secs(2);

/// What the cluster knows of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Names this run of the node.
    pub generation: Generation,
    /// Names it for people and logs.
    pub id: String,
    /// The application's version.
    pub version: String,
    /// When it started, Unix time in milliseconds.
    pub started_at: u64,
    /// What it does: `web`.
    pub roles: Vec<String>,
    /// What it was called before, since it started: it answers for those too.
    pub earlier: Vec<Generation>,
}

/// What a renewal found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease runs on.
    Standing(Standing),
    /// There is no such lease: the generation was reaped, or all was lost.
    Gone,
}

/// A lease that runs on, and what its holder should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The backend's time in microseconds.
    pub now_us: u64,
    /// Changes whenever a node comes or goes.
    pub epoch: u64,
    /// Generations whose lease ran out, and those whose reaper stopped half-way.
    pub lapsed: Vec<Generation>,
}

/// Someone who was a member of a room when its node died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departed {
    /// The room.
    pub room: String,
    /// The connection.
    pub id: ConnectionId,
    /// When it joined, Unix time in milliseconds.
    pub joined_at: u64,
}

/// What a reaper has to tell next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// These left, and nobody was told for certain. Asking again answers the same until they count as told.
    Some(Vec<Departed>),
    /// All are told, and nothing is left of the generation.
    Done,
    /// Somebody else cleans up by now.
    Lost,
}

/// Knows the nodes of the cluster. Every method is one step.
#[async_trait]
pub trait Membership: Send + Sync + 'static {
    /// Lists a node and begins its lease. Again has no effect. Answers what names the store's present life: a store
    /// that came back empty answers something else. `None` if the generation is being cleaned up after.
    async fn register(&self, record: &NodeRecord) -> Result<Option<String>, BackendError>;

    /// Gives a lease its full length again, even if it ran out, unless the generation was reaped.
    async fn renew(&self, generation: Generation) -> Result<Renewal, BackendError>;

    /// The nodes that were not reaped.
    async fn nodes(&self) -> Result<Vec<NodeRecord>, BackendError>;

    /// Gives a lease up. Where members are left, it has run out, and others clean up.
    async fn leave(&self, generation: Generation) -> Result<(), BackendError>;

    /// Takes it on `by` to clean up after `dead`, for the length of a lease. Where its lease ran out, this is the reap.
    /// What was seen at `seen_us` counts for [`SEEN`] only.
    async fn claim(&self, by: Generation, dead: Generation, seen_us: u64) -> Result<bool, BackendError>;

    /// Goes on holding a claim; `false` if it was lost.
    async fn hold(&self, by: Generation, dead: Generation) -> Result<bool, BackendError>;

    /// Removes some members of the dead from their rooms, and answers those whose leave is to be told: not those who are
    /// listed again by now.
    async fn leaves(&self, by: Generation, dead: Generation) -> Result<Leaves, BackendError>;

    /// The first `count` of them were told; `false` if the claim was lost.
    async fn told(&self, by: Generation, dead: Generation, count: usize) -> Result<bool, BackendError>;
}
