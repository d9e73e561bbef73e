//! Tasks over Redis: resque's lists, and what they have no room for beside them.
//!
//! - **A node dies.** Its attempts are in a hash under its generation, each with its job; the reaper moves them back. A
//!   settlement of a generation that was reaped changes nothing.
//! - **A reply is lost.** Fetching has a deadline in Redis's time, so a call that arrives late settles and fetches nothing;
//!   the hash shows what it did.
//! - **Redis is full.** It refuses jobs that are added; all other scripts begin with a removal, if there is nothing else that
//!   of a key that is never set ([`Keys::unused`]), and run.
//! - **A key is spoilt**, of another type. Jobs stay where they were; the key is counted, logged, and in the reply.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use phalanx_core::Generation;
use phalanx_core::backend::{
    AttemptKey, BackendError, DeleteOutcome, EnqueueOutcome, FailedTake, FetchedJob, GiveBackOutcome, JobReport,
    LimitedQueue, ListedAttempt, NewBatch, NewJob, Promotion, SealOutcome, StoredBatch, StoredStatus, TakeOutcome,
    TaskMinute, TaskStats, TaskStore, TickCall, TickOutcome, WorkerCall, WorkerReply, WorkerSign,
};
use tracing::warn;

use crate::client::RedisClient;
use crate::keys::Keys;

mod attempts;
mod batches;
mod call;
mod checkpoints;
mod ends;
mod enqueue;
mod entry;
mod exchange;
mod jobs;
mod limits;
mod moves;
mod operations;
mod own_connection;
mod registration;
mod replicas;
mod reports;
mod risks;
mod running;
mod search;
mod series;
mod ticks;
mod turns;
mod unattended;
mod wake;

use call::TaskScript;
use ends::JobEnds;
use exchange::{Exchange, SERVING, constant, quote};
use own_connection::OwnConnection;
use registration::Repeated;
use replicas::ReplicaWait;
use wake::WakeUps;

/// The jobs that nodes share.
pub struct RedisTasks {
    /// The connection that all commands share, over which operators search too: that keeps no worker waiting.
    shared: RedisClient,
    own: OwnConnection,
    /// That of the worker's calls.
    calls: OwnConnection,
    /// Set if enqueues wait for replicas.
    confirmation: Option<ReplicaWait>,
    keys: Keys,
    channel: String,
    /// The id of the node.
    node: String,
    /// Names it among those that move delayed jobs.
    name: String,
    failed_max: usize,
    exchange: Exchange,
    /// Announcements that the node serves its queues.
    serving: Repeated,
    scripts: Scripts,
    wake_ups: WakeUps,
    ends: JobEnds,
}

struct Scripts {
    fields: TaskScript,
    enqueue: TaskScript,
    enqueue_in_turns: TaskScript,
    find: TaskScript,
    report: TaskScript,
    checkpoint: TaskScript,
    create_batch: TaskScript,
    seal_batch: TaskScript,
    promote: TaskScript,
    tick: TaskScript,
    give_back: TaskScript,
    came_back: TaskScript,
    take_parked: TaskScript,
    fail_parked: TaskScript,
    take_unattended: TaskScript,
    take_failed: TaskScript,
    list_again: TaskScript,
    delete_delayed: TaskScript,
    release: TaskScript,
    register: TaskScript,
    remove_worker: TaskScript,
    add_minutes: TaskScript,
}

impl RedisTasks {
    /// Stores jobs under these keys, over a connection of its own; at most `failed_max` failed ones are kept.
    pub fn new(client: &RedisClient, keys: Keys, node: &str, failed_max: usize) -> Self {
        let (channel, unused) = (keys.wake(), keys.unused());
        let script = |key: String, text: &str| TaskScript::new(key, text);
        let placing = |key: String, text: &str| TaskScript::placing(key, text);
        let counting = |key: String, text: &str| TaskScript::counting(key, text);
        let checkpoints = constant("CHECKPOINTS", &quote(&keys.checkpoints()));
        let enqueue = [&*checkpoints, include_str!("../lua/tasks/enqueue.lua")].concat();
        Self {
            exchange: Exchange::new(&keys, &channel, failed_max.max(1)),
            serving: Repeated::every(SERVING),
            scripts: Scripts {
                fields: script(format!("{}*", keys.running_of()), include_str!("../lua/tasks/fields.lua")),
                enqueue: script(keys.queues(), &enqueue),
                enqueue_in_turns: script(keys.queues(), &turns::enqueue(&keys, &enqueue)),
                find: script(format!("{}*", keys.ready()), include_str!("../lua/tasks/find.lua")),
                report: script(format!("{}*", keys.reports()), include_str!("../lua/tasks/report.lua")),
                checkpoint: script(format!("{}*", keys.checkpoints()), include_str!("../lua/tasks/checkpoint.lua")),
                create_batch: script(format!("{}*", keys.batches()), include_str!("../lua/tasks/create_batch.lua")),
                seal_batch: counting(format!("{}*", keys.batches()), include_str!("../lua/tasks/seal_batch.lua")),
                promote: counting(keys.delayed(), include_str!("../lua/tasks/promote.lua")),
                tick: placing(keys.ticks(), include_str!("../lua/tasks/tick.lua")),
                give_back: counting(keys.reapers(), include_str!("../lua/tasks/give_back.lua")),
                came_back: script(format!("{}*", keys.stalls_of()), include_str!("../lua/tasks/came_back.lua")),
                take_parked: script(format!("{}*", keys.running_of()), &limits::take_parked(&keys, &channel)),
                fail_parked: counting(keys.failed(), include_str!("../lua/tasks/fail_parked.lua")),
                take_unattended: script(keys.unattended(), include_str!("../lua/tasks/take_unattended.lua")),
                take_failed: placing(keys.failed(), include_str!("../lua/tasks/take_failed.lua")),
                list_again: script(keys.running_of(), include_str!("../lua/tasks/list_again.lua")),
                delete_delayed: counting(keys.delayed_jobs(), include_str!("../lua/tasks/delete_delayed.lua")),
                release: script(unused, include_str!("../lua/tasks/release.lua")),
                register: script(keys.workers(), include_str!("../lua/tasks/register.lua")),
                remove_worker: script(keys.workers(), include_str!("../lua/tasks/remove_worker.lua")),
                add_minutes: script(format!("{}*", keys.series_of()), include_str!("../lua/tasks/add_minutes.lua")),
            },
            wake_ups: WakeUps::new(client.clone(), keys.clone(), channel.clone()),
            ends: JobEnds::new(client.clone(), keys.clone()),
            node: node.to_owned(),
            name: Generation::random().to_string(),
            shared: client.clone(),
            own: OwnConnection::beside(client.clone(), keys.clone()),
            calls: OwnConnection::of_worker(client.clone(), keys.clone()),
            confirmation: None,
            keys,
            channel,
            failed_max: failed_max.max(1),
        }
    }
}

/// Counts and logs keys of another type than their script expects.
fn report_spoilt(keys: &[String]) {
    for key in keys {
        metrics::counter!("phalanx_tasks_spoilt_keys_total").increment(1);
        warn!(key, "a key of tasks is spoilt: the jobs that need it wait until it is removed");
    }
}

/// The time for records that people read.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}

impl fmt::Debug for RedisTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisTasks")
    }
}

#[async_trait]
impl TaskStore for RedisTasks {
    async fn enqueue(&self, jobs: &[NewJob], until_us: u64) -> Result<Vec<EnqueueOutcome>, BackendError> {
        self.enqueue_batch(jobs, until_us).await
    }

    async fn create_batch(&self, batch: &NewBatch, until_us: u64) -> Result<Option<StoredBatch>, BackendError> {
        self.store_batch(batch, until_us).await
    }

    async fn seal_batch(&self, id: &str) -> Result<SealOutcome, BackendError> {
        self.close_batch(id).await
    }

    async fn batch(&self, id: &str) -> Result<Option<StoredBatch>, BackendError> {
        self.read_batch(id).await
    }

    async fn woken(&self) {
        self.wake_ups.next().await;
    }

    async fn exchange(&self, call: &WorkerCall<'_>) -> Result<WorkerReply, BackendError> {
        self.exchange_batch(call).await
    }

    async fn show_worker(&self, sign: &WorkerSign<'_>) -> Result<Option<String>, BackendError> {
        self.register_worker(sign).await
    }

    async fn remove_worker(&self, of: Generation) -> Result<(), BackendError> {
        self.unregister_worker(of).await
    }

    async fn attempts(&self, of: Generation) -> Result<Vec<FetchedJob>, BackendError> {
        self.attempts_of(&*self.calls.client().await?, of.as_str()).await
    }

    async fn deleted_of(&self, _of: Generation, attempts: &[FetchedJob]) -> Result<Vec<u64>, BackendError> {
        self.deleted_among(attempts).await
    }

    async fn list_again(
        &self,
        of: Generation,
        attempts: &[FetchedJob],
        limited: &[LimitedQueue],
        tracked: &[Arc<str>],
    ) -> Result<(), BackendError> {
        self.list_all_again(of, attempts, limited, tracked).await
    }

    async fn promote(&self) -> Result<Promotion, BackendError> {
        self.promote_batch().await
    }

    async fn tick(&self, call: &TickCall<'_>) -> Result<Vec<TickOutcome>, BackendError> {
        self.tick_batch(call).await
    }

    async fn give_back(&self, by: Generation, dead: Generation, worker: &str) -> Result<GiveBackOutcome, BackendError> {
        self.give_back_batch(by, dead, worker).await
    }

    async fn came_back(&self, generation: Generation) -> Result<(), BackendError> {
        self.count_stalls(generation).await
    }

    async fn parked(&self) -> Result<Vec<String>, BackendError> {
        self.names_in(self.keys.parked()).await
    }

    async fn take_parked(&self, call: &WorkerCall<'_>, classes: &[String]) -> Result<WorkerReply, BackendError> {
        self.take_parked_jobs(call, classes).await
    }

    async fn fail_parked(&self, before_ms: u64, worker: &str, known: &[&str]) -> Result<usize, BackendError> {
        self.fail_parked_batch(before_ms, worker, known).await
    }

    async fn take_unattended(&self, classes: &[&str], most: usize) -> Result<Vec<Bytes>, BackendError> {
        self.take_unattended_records(classes, most).await
    }

    async fn claimant(&self, key: &str) -> Result<Option<Arc<str>>, BackendError> {
        self.find_claimant(key).await
    }

    async fn release(&self, key: &str, id: &str) -> Result<bool, BackendError> {
        self.release_claim(key, id).await
    }

    async fn report(
        &self,
        of: Generation,
        attempt: &AttemptKey,
        report: &JobReport,
        ttl_ms: u64,
    ) -> Result<bool, BackendError> {
        self.keep_report(of, attempt, report, ttl_ms).await
    }

    async fn keep_checkpoint(
        &self,
        of: Generation,
        job: (&AttemptKey, &str),
        value: Bytes,
        ttl_ms: u64,
    ) -> Result<bool, BackendError> {
        self.store_checkpoint(of, job, &value, ttl_ms).await
    }

    async fn checkpoint(&self, id: &str) -> Result<Option<Bytes>, BackendError> {
        self.read_checkpoint(id).await
    }

    async fn status(&self, id: &str) -> Result<StoredStatus, BackendError> {
        self.find_status(id).await
    }

    async fn ended(&self, id: &str) -> Result<Option<StoredStatus>, BackendError> {
        self.await_end(id).await
    }

    async fn delete(&self, id: &str) -> Result<DeleteOutcome, BackendError> {
        self.delete_job(id).await
    }

    async fn stats(&self) -> Result<TaskStats, BackendError> {
        self.read_stats().await
    }

    async fn add_minutes(&self, minutes: &[TaskMinute]) -> Result<(), BackendError> {
        self.add_to_minutes(minutes).await
    }

    async fn minutes(&self, from: u64, to: u64) -> Result<Vec<TaskMinute>, BackendError> {
        self.read_minutes(from, to).await
    }

    async fn running(&self, skip: usize, limit: usize) -> Result<Vec<ListedAttempt>, BackendError> {
        self.list_running(skip, limit).await
    }

    async fn waiting(&self, queue: &str, skip: usize, limit: usize) -> Result<Vec<Bytes>, BackendError> {
        self.read_waiting(queue, skip, limit).await
    }

    async fn failed(&self, skip: usize, limit: usize) -> Result<Vec<Bytes>, BackendError> {
        self.read_failed(skip, limit).await
    }

    async fn take_failed(&self, jobs: &[FailedTake]) -> Result<Vec<TakeOutcome>, BackendError> {
        self.take_failed_jobs(jobs).await
    }

    async fn set_paused(&self, queue: &str, is_paused: bool) -> Result<(), BackendError> {
        self.pause(queue, is_paused).await
    }

    async fn risks(&self) -> Vec<String> {
        self.find_risks().await
    }
}
