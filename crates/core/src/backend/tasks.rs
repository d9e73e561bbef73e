//! The seam for tasks: the jobs of the cluster that wait, run, are due later, are parked, or have failed.
//!
//! A job is text that a store keeps and returns byte for byte: resque tools read the same lists, and a parser that writes
//! a job again would change its numbers and empty lists. What a node must know to handle it lies beside it.
//!
//! A job that a node runs is an *attempt*: listed under the node's generation, by a token that the node counts and never
//! uses twice. It leaves that list only by its own settlement, or by the reaper of its generation. So a settlement
//! is accepted once, and a node that was reaped meanwhile has no say over a job that runs elsewhere.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::batches::{BatchRefusal, NewBatch, SealOutcome, StoredBatch};
use super::error::BackendError;
use super::job_counters::JobCounters;
use super::job_ends::{JobReport, StoredStatus};
use super::queue_limits::{HeldUpQueue, LimitedQueue};
use super::series::TaskMinute;
use super::ticks::{TickCall, TickOutcome};
use crate::id::Generation;

/// The most jobs that one [`TaskStore::enqueue`] takes.
pub const ENQUEUE_BATCH: usize = 500;

/// The most settlements, and the most jobs fetched, of one [`TaskStore::exchange`].
pub const EXCHANGE_BATCH: usize = 32;

/// The most jobs that one [`TaskStore::promote`] or [`TaskStore::give_back`] moves.
pub const MOVE_BATCH: usize = 100;

/// The most queues whose oldest job is looked at by one [`TaskStore::stats`]: a job may have 1 MiB.
pub const OLDEST_QUEUES: usize = 64;

/// About the most bytes of jobs that are read of one queue for that, where a queue has a thousand keys by which jobs take turns.
pub const OLDEST_BYTES: usize = 1024 * 1024;

/// The most records of a class that a store keeps for [`TaskStore::take_unattended`], the last ones, for a day.
pub const MAX_UNATTENDED: usize = 200;

/// A job that is to be stored.
#[derive(Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Its id.
    pub id: Arc<str>,
    /// The queue.
    pub queue: Arc<str>,
    /// The job, in resque's form.
    pub text: Bytes,
    /// When it is due, Unix time in milliseconds; `None` for now.
    pub due_ms: Option<u64>,
    /// A claim that no other job may have while this one has it.
    pub unique: Option<UniqueClaim>,
    /// Set if the caller chose the id, so that it may be repeated: identifies the job's content.
    pub digest: Option<[u8; 16]>,
    /// The batch that it is a member of, with which its text ends; the store appends its number. Jobs of one enqueue have the same.
    pub batch: Option<Arc<str>>,
    /// Whether its end is kept for a day, for [`TaskStore::ended`].
    pub tracked: bool,
}

impl NewJob {
    /// A job that is due now, without a claim, and neither tracked nor a member of a batch.
    pub fn new(id: impl Into<Arc<str>>, queue: impl Into<Arc<str>>, text: impl Into<Bytes>) -> Self {
        Self {
            id: id.into(),
            queue: queue.into(),
            text: text.into(),
            due_ms: None,
            unique: None,
            digest: None,
            batch: None,
            tracked: false,
        }
    }
}

/// A claim that at most one job of the cluster has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueClaim {
    /// Its name.
    pub key: Arc<str>,
    /// How long it lasts if nothing releases it, in milliseconds.
    pub ttl_ms: u64,
}

/// The outcome of storing a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnqueueOutcome {
    /// It is stored.
    Stored,
    /// Nothing is stored: the job of this id has the claim, or was stored by the same id and content.
    Existing(Arc<str>),
    /// Nothing is stored: the id names a job of another content.
    Conflict,
    /// No job of the enqueue is stored: their batch takes none.
    NoMember(BatchRefusal),
}

/// Names an attempt in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptKey {
    /// A number that the node counts.
    pub token: u64,
    /// The queue that the job came from.
    pub queue: Arc<str>,
    /// The counters of the job, with this attempt.
    pub counters: JobCounters,
}

impl AttemptKey {
    /// About when it was fetched, Unix time in microseconds by the store's clock, from which nodes count their tokens.
    /// `None` for a token of another kind.
    pub fn fetched_us(&self) -> Option<u64> {
        const EARLIEST: u64 = 1_000_000_000_000_000; // in 2001
        (self.token >= EARLIEST).then_some(self.token)
    }
}

/// An attempt that a node runs, without its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedAttempt {
    /// The generation of the node.
    pub generation: Generation,
    /// Names it.
    pub attempt: AttemptKey,
    /// The job's id; `None` for a foreign job.
    pub id: Option<Arc<str>>,
    /// The name of its task; `None` if the job is unreadable.
    pub class: Option<Arc<str>>,
}

/// An attempt that a node has to run.
#[derive(Clone, PartialEq, Eq)]
pub struct FetchedJob {
    /// Names it.
    pub attempt: AttemptKey,
    /// The job.
    pub text: Bytes,
}

/// The end of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The attempt.
    pub attempt: AttemptKey,
    /// The job's id, for its claim and for its deletion; `None` for a foreign job.
    pub id: Option<Arc<str>>,
    /// The fate of the job.
    pub end: AttemptEnd,
    /// The claim of the job, which its end releases unless its begin did.
    pub unique: Option<Arc<str>>,
    /// The last progress that was not stored yet, and the result. Set for each end of a tracked job.
    pub report: Option<Box<JobReport>>,
    /// Everything else that follows; `None` for a job that is no member of a batch.
    pub consequences: Option<Box<Consequences>>,
}

/// The rare consequences of an end, in the step that settles it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consequences {
    /// The name of the job as a member of a batch, in which its end counts.
    pub member: Option<Arc<str>>,
    /// Jobs that are enqueued if it succeeded. One that is there already is not, nor one whose claim another job has.
    pub follow_ups: Vec<NewJob>,
    /// Whether the job may have a checkpoint, which is removed if it is over and has not failed.
    pub has_checkpoint: bool,
}

/// How long a checkpoint is kept: a week, in milliseconds.
pub const CHECKPOINT_TTL_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// The fate of a job whose attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    /// It succeeded: the job is over.
    Done,
    /// The job is over, and counts neither as processed nor as failed: discarded, or deleted.
    Dropped,
    /// It runs again from `due_ms`, Unix time in milliseconds; the attempt counts.
    Retry {
        /// When.
        due_ms: u64,
    },
    /// It runs again from `due_ms`, as if the attempt had not been: snoozed, or an input that this node cannot decode.
    Snooze {
        /// When.
        due_ms: u64,
    },
    /// It goes back to the head of its queue, as if the attempt had not been.
    GiveBack,
    /// It waits for a node that knows its class, as if the attempt had not been. The store notes since when.
    Park {
        /// The class.
        class: Arc<str>,
    },
    /// It failed for good: `record` is its entry among the failed jobs, in resque's form.
    Failed {
        /// The entry.
        record: Bytes,
    },
}

/// The answer to a settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettleOutcome {
    /// The attempt was this node's, and has ended as requested.
    Accepted,
    /// The same, but the job's claim was another's by then, or had expired.
    ClaimLost,
    /// No such attempt: its generation was reaped, or it was settled before. Nothing has changed.
    Superseded,
    /// A key that the end needs is spoilt. The attempt stands.
    Spoilt {
        /// The key.
        key: String,
    },
}

/// One call of a node's worker: it settles what has ended and fetches what may begin.
#[derive(Clone, Debug)]
pub struct WorkerCall<'a> {
    /// The node.
    pub generation: Generation,
    /// At most [`EXCHANGE_BATCH`].
    pub settlements: &'a [Settlement],
    /// The token of the first job that is fetched; the next ones follow. Never used before.
    pub first_token: u64,
    /// The most jobs to fetch, at most [`EXCHANGE_BATCH`].
    pub wanted: usize,
    /// The queues to fetch from, the most important first.
    pub queues: &'a [Arc<str>],
    /// The most jobs of each of these queues, in their order; empty: as many as are wanted.
    pub limits: &'a [usize],
    /// The queues with limits in the cluster that the node knows, the same until it stops: attempts of these are
    /// counted, and no more are fetched than their limits permit. Also those in which jobs take turns, to which a node adds: a
    /// store may fetch no such jobs of others.
    pub limited: &'a [LimitedQueue],
    /// Until when jobs may be fetched, the store's time in microseconds: later nothing is fetched. Settlements have no
    /// such limit.
    pub fetch_until_us: u64,
    /// Whether a suspect may be fetched, of which a node runs one at a time.
    pub takes_suspect: bool,
    /// The most bytes of the jobs that are fetched; one job is fetched in any case.
    pub max_bytes: usize,
}

/// The answer to a [`WorkerCall`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerReply {
    /// The answers to the settlements, in their order.
    pub settled: Vec<SettleOutcome>,
    /// The jobs to run.
    pub fetched: Vec<FetchedJob>,
    /// Whether the node has no lease any more: nothing was fetched.
    pub is_reaped: bool,
    /// Which of them were deleted while they waited, by token: they are to be settled as dropped.
    pub deleted: Vec<u64>,
    /// Whether more jobs wait in the queues, paused ones and those at a limit left out; maybe, if as many were fetched as the
    /// call wanted.
    pub has_more: bool,
    /// The queues in which jobs wait that a limit holds up.
    pub held_up: Vec<HeldUpQueue>,
    /// When the next delayed job is due, Unix time in milliseconds.
    pub next_due_ms: Option<u64>,
    /// Queues that are spoilt, and were passed over.
    pub spoilt: Vec<String>,
}

/// A node that runs jobs, as tools of the task queue see it.
#[derive(Clone, Copy, Debug)]
pub struct WorkerSign<'a> {
    /// The node.
    pub generation: Generation,
    /// The queues that it serves, in their order.
    pub queues: &'a [Arc<str>],
    /// The job that it works on, in resque's form; `None` if there is none that is worth showing.
    pub working_on: Option<&'a [u8]>,
}

/// The answer to a [`TaskStore::promote`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promotion {
    /// How many delayed jobs wait in their queues now.
    pub moved: usize,
    /// When the next one is due, Unix time in milliseconds.
    pub next_due_ms: Option<u64>,
}

/// A failed job that is to be taken from its list.
#[derive(Clone, PartialEq, Eq)]
pub struct FailedTake {
    /// Its entry, as [`TaskStore::failed`] returned it.
    pub record: Bytes,
    /// The job that waits in its queue then, with new counters; it takes its claim anew. `None` to remove it.
    pub retry: Option<NewJob>,
}

/// The outcome of taking a job from the failed ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakeOutcome {
    /// It is no longer among them; if it was to run again, it waits.
    Taken,
    /// It is not among them.
    NotFound,
    /// It stays among them: this job has the claim that it needs to run again.
    Claimed(Arc<str>),
}

/// The answer to a [`TaskStore::give_back`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GiveBackOutcome {
    /// Some jobs went back; these were convicted, and are among the failed ones. Call again.
    Some(Vec<FetchedJob>),
    /// None is left.
    Done,
    /// Another node has the claim by now.
    ClaimLost,
}

/// The outcome of deleting a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// It was delayed or had failed, and is gone.
    Deleted,
    /// It waits, and is dropped instead of run.
    Marked,
    /// This node runs it: it is to be cancelled.
    Cancelling(Generation),
    /// There is no such job.
    NotFound,
}

/// The numbers of the task queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskStats {
    /// The queues, by name, and how many jobs wait in each.
    pub queues: Vec<(String, u64)>,
    /// The queues in which a job waits, and since when the oldest of those at the heads of each could begin, Unix time in
    /// milliseconds; without foreign jobs, which do not say. The heads are the next ones of fresh, of retried and of suspect jobs,
    /// and the next one of each key by which jobs take turns. Stores look at 64 queues, and end the look at one of them after
    /// 1 MiB of jobs, with the keys whose turns are last not read.
    pub oldest: Vec<(String, u64)>,
    /// The queues from which nothing is fetched.
    pub paused: Vec<String>,
    /// The queues in which jobs wait that take turns.
    pub in_turns: Vec<String>,
    /// How many attempts run.
    pub running: u64,
    /// How many jobs are due later.
    pub delayed: u64,
    /// How many jobs wait for a node that knows their class.
    pub parked: u64,
    /// How many batches are not over.
    pub batches: u64,
    /// How many jobs are among the failed ones.
    pub failed: u64,
    /// How many succeeded, ever.
    pub processed: u64,
    /// The workers, as resque tools name them.
    pub workers: Vec<String>,
}

/// Stores jobs. Every method is atomic, and safe to call on a store that is full unless it adds a job.
#[async_trait]
pub trait TaskStore: Send + Sync + 'static {
    /// Stores at most [`ENQUEUE_BATCH`] jobs, all or none; the store's time in microseconds after which they are refused.
    async fn enqueue(&self, jobs: &[NewJob], until_us: u64) -> Result<Vec<EnqueueOutcome>, BackendError>;

    /// Stores a batch, and returns `None`; or the one that has its id already, and changes nothing. The store's time in
    /// microseconds after which it is refused.
    async fn create_batch(&self, batch: &NewBatch, until_us: u64) -> Result<Option<StoredBatch>, BackendError>;

    /// Ends the time in which a batch takes members. Without members that have not ended it ends with that.
    async fn seal_batch(&self, id: &str) -> Result<SealOutcome, BackendError>;

    /// A batch; `None` if there is none of that id, or it ended more than a week ago.
    async fn batch(&self, id: &str) -> Result<Option<StoredBatch>, BackendError>;

    /// Completes when jobs may have been added to a queue that was empty or paused, or when one is due before all other
    /// delayed jobs; may complete without. A call that comes after that completes at once. One task waits at a time.
    async fn woken(&self);

    /// Settles attempts and fetches jobs. A settlement that makes room in a queue at its limit wakes, unless its call fills it.
    async fn exchange(&self, call: &WorkerCall<'_>) -> Result<WorkerReply, BackendError>;

    /// Shows a node to tools of the task queue; to be repeated every 20 s. Returns the name of the cluster that uses the same
    /// queues, if it is another one: that which was there first, until a minute after its last node is gone.
    async fn show_worker(&self, sign: &WorkerSign<'_>) -> Result<Option<String>, BackendError>;

    /// Removes what tools see of a node that has stopped or died.
    async fn remove_worker(&self, of: Generation) -> Result<(), BackendError>;

    /// The attempts that are listed under a generation.
    async fn attempts(&self, of: Generation) -> Result<Vec<FetchedJob>, BackendError>;

    /// Which of these attempts, listed under a generation, are of jobs that were deleted, by token: they are to be settled as
    /// dropped.
    async fn deleted_of(&self, of: Generation, attempts: &[FetchedJob]) -> Result<Vec<u64>, BackendError>;

    /// Lists attempts that still run under a generation, after the store lost them, or after the node was renamed because
    /// the store came back empty. Those that are listed already stay. Those of queues with a limit take room from the same step
    /// on, and the jobs of `tracked`, ids of some of these, are tracked from it on, unless the store still knows that they are.
    async fn list_again(
        &self,
        of: Generation,
        attempts: &[FetchedJob],
        limited: &[LimitedQueue],
        tracked: &[Arc<str>],
    ) -> Result<(), BackendError>;

    /// Moves at most [`MOVE_BATCH`] jobs that are due to their queues, and ends batches whose deadlines have passed.
    async fn promote(&self) -> Result<Promotion, BackendError>;

    /// Enqueues the ticks that are due, by the store's clock too, and later than the last of their task; each of them once,
    /// whichever nodes ask for it. Without due ticks it says what the last ones are, and that the node is there.
    async fn tick(&self, call: &TickCall<'_>) -> Result<Vec<TickOutcome>, BackendError>;

    /// Moves at most [`MOVE_BATCH`] attempts of a dead generation to the head of their queues, as the reaper `by`. Each
    /// counts as a death of a node, or as a stall if the node came back; a job whose counters are a [`Conviction`](super::Conviction) fails.
    /// `worker` names the dead node in its record.
    async fn give_back(&self, by: Generation, dead: Generation, worker: &str) -> Result<GiveBackOutcome, BackendError>;

    /// The node of a generation that was reaped runs on: for the jobs that it ran, the reap is a stall and no death, whether
    /// they were given back before or will be later. Repeating it has no effect. A job without an id keeps its death.
    async fn came_back(&self, generation: Generation) -> Result<(), BackendError>;

    /// The classes of parked jobs.
    async fn parked(&self) -> Result<Vec<String>, BackendError>;

    /// Fetches parked jobs of classes that this node knows, by a call that settles nothing. Those that the call would not
    /// fetch from their queue stay parked, since when they were.
    async fn take_parked(&self, call: &WorkerCall<'_>, classes: &[String]) -> Result<WorkerReply, BackendError>;

    /// Moves at most [`MOVE_BATCH`] jobs that were parked before this Unix time in milliseconds to the failed ones, as
    /// of an unknown class, but none of the classes that the caller knows.
    async fn fail_parked(&self, before_ms: u64, worker: &str, known: &[&str]) -> Result<usize, BackendError>;

    /// Takes at most `most` records of jobs of these classes that failed in no attempt: those that were convicted, or parked for
    /// too long. Each is taken once, so that one node runs what the task does then.
    async fn take_unattended(&self, classes: &[&str], most: usize) -> Result<Vec<Bytes>, BackendError>;

    /// The id of the job that has a claim.
    async fn claimant(&self, key: &str) -> Result<Option<Arc<str>>, BackendError>;

    /// Releases a claim if this job has it; returns whether it had.
    async fn release(&self, key: &str, id: &str) -> Result<bool, BackendError>;

    /// Keeps the progress of a job, for `ttl_ms` if it reports nothing more, if the attempt is listed under that generation;
    /// `false` if it is not. A store that is full refuses it.
    async fn report(
        &self,
        of: Generation,
        attempt: &AttemptKey,
        report: &JobReport,
        ttl_ms: u64,
    ) -> Result<bool, BackendError>;

    /// Keeps the checkpoint of a job, given by its id, for `ttl_ms`, if the attempt is listed under that generation; `false` if it is
    /// not. A store that is full refuses it.
    async fn keep_checkpoint(
        &self,
        of: Generation,
        job: (&AttemptKey, &str),
        value: Bytes,
        ttl_ms: u64,
    ) -> Result<bool, BackendError>;

    /// The checkpoint of a job.
    async fn checkpoint(&self, id: &str) -> Result<Option<Bytes>, BackendError>;

    /// The state of a job, and what it reported. A job whose end was settled with a result shows both from the same moment on.
    async fn status(&self, id: &str) -> Result<StoredStatus, BackendError>;

    /// Completes when a tracked job is over, at once if it is, with its state and what it reported; `None`, at once, for a
    /// job that is not tracked, and for one that the store does not know. The end of a job is kept for a day. One that the store
    /// loses meanwhile may be listed again: `None` is for later then.
    async fn ended(&self, id: &str) -> Result<Option<StoredStatus>, BackendError>;

    /// Deletes a job.
    async fn delete(&self, id: &str) -> Result<DeleteOutcome, BackendError>;

    /// The numbers.
    async fn stats(&self) -> Result<TaskStats, BackendError>;

    /// Adds to the minute series of tasks, at most [`SERIES_BATCH`](super::SERIES_BATCH) minutes of tasks, which are kept for a
    /// day. If it is not answered, they may be added or not. A store that is full refuses it.
    async fn add_minutes(&self, minutes: &[TaskMinute]) -> Result<(), BackendError>;

    /// The minutes of all tasks in which attempts ended, of all nodes together: in the order of the minutes, then of the names.
    async fn minutes(&self, from: u64, to: u64) -> Result<Vec<TaskMinute>, BackendError>;

    /// The attempts that nodes run, those of a node in the order in which they began. Those of nodes that died, and were
    /// not reaped yet, are among them.
    async fn running(&self, skip: usize, limit: usize) -> Result<Vec<ListedAttempt>, BackendError>;

    /// The jobs that wait in a queue, from the one that is fetched next.
    async fn waiting(&self, queue: &str, skip: usize, limit: usize) -> Result<Vec<Bytes>, BackendError>;

    /// The failed jobs, the oldest first, in resque's form.
    async fn failed(&self, skip: usize, limit: usize) -> Result<Vec<Bytes>, BackendError>;

    /// Removes failed jobs, or has them run again, at most [`MOVE_BATCH`], all in one step; returns the outcome of each.
    async fn take_failed(&self, jobs: &[FailedTake]) -> Result<Vec<TakeOutcome>, BackendError>;

    /// Pauses a queue in the whole cluster, or resumes it.
    async fn set_paused(&self, queue: &str, is_paused: bool) -> Result<(), BackendError>;

    /// The ways in which the store, as it is set up now, may lose jobs that it accepted, for operators. Empty if it knows of
    /// none, or cannot find out in the time of one command.
    async fn risks(&self) -> Vec<String>;
}

impl fmt::Debug for NewJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewJob").field("id", &self.id).field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl fmt::Debug for FailedTake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailedTake").field("retry", &self.retry).finish_non_exhaustive()
    }
}

impl fmt::Debug for FetchedJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchedJob").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}
