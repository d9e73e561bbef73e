//! The seams to a backend, a file each. A seam is a trait; the memory backend and Redis implement it.

use std::fmt;
use std::sync::Arc;

mod batches;
mod bus;
mod cache;
mod clock;
mod error;
mod interop;
mod job_counters;
mod job_ends;
mod limits;
mod locks;
mod membership;
mod queue_limits;
mod rooms;
mod series;
mod sessions;
mod tasks;
mod ticks;

pub use batches::{BATCH_TTL_MS, BatchRefusal, BatchStage, MAX_BATCH, MemberName, NewBatch, SealOutcome, StoredBatch};
pub use bus::{
    Bus, GapCause, Incoming, NodeMessage, NodeMessageKind, Posted, Publication, PublicationKind, Recipient, SendGuard,
    Subscription, TagMessage, TagMessageKind,
};
pub use cache::{CacheStore, Dumped, Page, Stored};
pub use clock::{Clock, SystemClock};
pub use error::BackendError;
pub use interop::{Interop, InteropCall, InteropError};
pub use job_counters::{Conviction, JobCounters, MAX_DEATHS, MAX_REAPS};
pub use job_ends::{AwaitedEnd, AwaitedEnds, JobReport, JobState, REPORT_TTL_MS, ResultMissing, StoredStatus};
pub(crate) use limits::SliceCounts;
pub use limits::{LimitDecision, LimitState, LimitStore, LimitedCall};
pub use locks::{LockRecord, LockStore};
pub use membership::{
    CLAIM_WINDOW, EXPIRY_GRACE, LEASE, LeaseStatus, LeaveBatch, Membership, NodeRecord, RESTORED, ReapedMember,
    RegisterOutcome, Renewal,
};
pub(crate) use queue_limits::PaidTime;
pub use queue_limits::{HeldUpQueue, JobRate, LimitedQueue, MAX_TURN_KEYS, OTHER_TURNS, QueueLimits};
pub use rooms::{
    CreateOutcome, HeldMember, JoinOutcome, LeaveOutcome, Member, Members, RelistOutcome, Relisting, RoomStore,
    StoredMember,
};
pub use series::{SERIES_BATCH, SERIES_MINUTES, SERIES_TASKS, TaskMinute, TimeCounts};
pub use sessions::{
    CreatedSession, FROZEN_COPY, ListedSession, MAX_SESSIONS_OF_USER, NewSession, SessionKey, SessionRenewal,
    SessionRenewalOutcome, SessionStore, SessionUse, SessionWrite, SessionWriteOutcome, StoredSession, UserKey,
};
pub use tasks::{
    AttemptEnd, AttemptKey, CHECKPOINT_TTL_MS, Consequences, DeleteOutcome, ENQUEUE_BATCH, EXCHANGE_BATCH,
    EnqueueOutcome, FailedTake, FetchedJob, GiveBackOutcome, ListedAttempt, MAX_UNATTENDED, MOVE_BATCH, NewJob,
    OLDEST_BYTES, OLDEST_QUEUES, Promotion, SettleOutcome, Settlement, TakeOutcome, TaskStats, TaskStore, UniqueClaim,
    WorkerCall, WorkerReply, WorkerSign,
};
pub use ticks::{CLOCK_MARGIN_US, DueTick, SCHEDULE_SILENCE_US, TICK_BATCH, TickCall, TickOutcome, TickRequest};

pub use crate::id::{MembersCursor, TagId};

/// Everything nodes share, behind its seams.
pub struct Backend {
    /// Values, lists and counters.
    pub cache: Arc<dyn CacheStore>,
    /// Locks.
    pub locks: Arc<dyn LockStore>,
    /// Rate limits.
    pub limits: Arc<dyn LimitStore>,
    /// Nodes and their leases.
    pub membership: Arc<dyn Membership>,
    /// Messages.
    pub bus: Arc<dyn Bus>,
    /// Rooms and their members.
    pub rooms: Arc<dyn RoomStore>,
    /// Jobs; `None` if the backend keeps none: then they cannot be enqueued.
    pub tasks: Option<Arc<dyn TaskStore>>,
    /// Sessions.
    pub sessions: Arc<dyn SessionStore>,
    /// Actionhero nodes, where the cluster has any.
    pub interop: Option<Arc<dyn Interop>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backend")
    }
}
