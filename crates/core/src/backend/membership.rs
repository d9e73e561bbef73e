//! The seam for membership: the nodes of the cluster, their leases, and the members that a dead generation left behind.

use std::time::Duration;

use async_trait::async_trait;

use super::error::BackendError;
use crate::id::{ConnectionId, Generation};

/// How long a lease runs. Past it a generation may be reaped; only the reap makes it dead.
pub const LEASE: Duration = Duration::from_secs(5);

/// How long a lease has expired before renewals report it: a node that was late by less is not reaped.
pub const EXPIRY_GRACE: Duration = Duration::from_millis(500);

/// How long a report of expired leases may be acted on. A reaper that was frozen in between might meet nodes that were
/// all stopped with it, none of which has had the time to renew.
pub const CLAIM_WINDOW: Duration = Duration::from_secs(2);

/// How long after a loss of data lists may lack what live nodes hold.
pub const RESTORED: Duration = Duration::from_secs(10);

/// A node, as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Names the node at present.
    pub generation: Generation,
    /// Its first generation since it started: names this run of the node, whatever generation it took since.
    pub boot: Generation,
    /// Names it for people and logs.
    pub id: String,
    /// The application's version.
    pub version: String,
    /// When it started, Unix time in milliseconds.
    pub started_at: u64,
    /// Its roles: `web`, `worker`, `scheduler`.
    pub roles: Vec<String>,
    /// Its earlier generations since it started: it answers for those too.
    pub earlier: Vec<Generation>,
}

impl NodeRecord {
    /// The names of these nodes among each other: the id; where several nodes have one, `<id>@<first generation since its
    /// start>`.
    pub fn names(nodes: &[Self]) -> Vec<String> {
        let name_of = |record: &Self| {
            let is_unique = nodes.iter().all(|other| other.id != record.id || other.boot == record.boot);
            if is_unique { record.id.clone() } else { format!("{}@{}", record.id, record.boot) }
        };
        nodes.iter().map(name_of).collect()
    }
}

/// The result of a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease has its full length again.
    Renewed(LeaseStatus),
    /// There is no such lease: the generation was reaped, or the backend lost its data.
    Gone,
}

/// The state of the cluster at a renewal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseStatus {
    /// The backend's time in microseconds.
    pub now_us: u64,
    /// Changes whenever a node joins or leaves.
    pub epoch: u64,
    /// Generations whose lease expired, and those whose reaper stopped half-way.
    pub expired: Vec<Generation>,
    /// Differs from the renewal before if the backend was reached over a new connection since: it may be another server.
    pub connection: u64,
    /// Whether the backend does not know the last confirmed renewal of this generation: it came back with older data.
    pub is_behind: bool,
    /// The number of memberships that are stored under the generation, if the backend counts them.
    pub stored: Option<u64>,
    /// When a node found that the backend had lost data, by the backend's clock, if that was within [`RESTORED`]: each node
    /// that finds it sets it anew.
    pub lost_us: Option<u64>,
}

/// The result of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterOutcome {
    /// The node is a member.
    Registered,
    /// It is one again, and the backend has lost data since it was one before. A repeated registration says so too.
    Lost,
    /// It is refused: the generation was reaped, or is being reaped now.
    Reaped,
}

/// A member of a room whose node was reaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReapedMember {
    /// The room.
    pub room: String,
    /// The connection.
    pub id: ConnectionId,
    /// When it joined, Unix time in milliseconds.
    pub joined_at: u64,
}

/// The leaves that a reaper has to announce next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaveBatch {
    /// These members left, and their leaves may not be announced yet. The same batch comes again until it is
    /// acknowledged.
    Members(Vec<ReapedMember>),
    /// All are announced, and nothing is left of the generation.
    Done,
    /// Another node has the claim by now.
    ClaimLost,
}

/// Knows the nodes of the cluster. Every method is atomic.
#[async_trait]
pub trait Membership: Send + Sync + 'static {
    /// Lists a node and starts its lease. Repeating it has no effect. The node's earlier generations have no lease and no
    /// record any more. `was_registered` says that this generation was registered before.
    async fn register(&self, record: &NodeRecord, was_registered: bool) -> Result<RegisterOutcome, BackendError>;

    /// Gives a lease its full length again, even if it expired, unless the generation was reaped.
    async fn renew(&self, generation: Generation) -> Result<Renewal, BackendError>;

    /// The nodes that were not reaped.
    async fn nodes(&self) -> Result<Vec<NodeRecord>, BackendError>;

    /// Ends a lease. If members are left, it counts as expired, and other nodes reap them.
    async fn leave(&self, generation: Generation) -> Result<(), BackendError>;

    /// Claims `dead` for the reaper `by`, for the length of a lease. If its lease expired, this is the reap. A report
    /// from `seen_us` counts for [`CLAIM_WINDOW`] only.
    async fn claim(&self, by: Generation, dead: Generation, seen_us: u64) -> Result<bool, BackendError>;

    /// Renews a claim; `false` if it was lost.
    async fn renew_claim(&self, by: Generation, dead: Generation) -> Result<bool, BackendError>;

    /// Removes some members of the dead generation from their rooms, and returns those whose leave is to be announced:
    /// not those that are listed again by now.
    async fn next_leaves(&self, by: Generation, dead: Generation) -> Result<LeaveBatch, BackendError>;

    /// Drops the first `count` of them, whose leaves were announced; `false` if the claim was lost.
    async fn acknowledge_leaves(&self, by: Generation, dead: Generation, count: usize) -> Result<bool, BackendError>;
}
