//! A store whose answers are lost, or that refuses.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use phalanx_core::Generation;
use phalanx_core::backend::{
    AttemptKey, BackendError, DeleteOutcome, EnqueueOutcome, FailedTake, FetchedJob, GiveBackOutcome, JobReport,
    LimitedQueue, ListedAttempt, NewBatch, NewJob, Promotion, SealOutcome, SettleOutcome, StoredBatch, StoredStatus,
    SystemClock, TakeOutcome, TaskMinute, TaskStats, TaskStore, TickCall, TickOutcome, WorkerCall, WorkerReply,
    WorkerSign,
};
use phalanx_core::memory::MemoryTasks;
use tokio::sync::Semaphore;

/// What becomes of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not done.
    Refused,
    /// It does not arrive.
    Lost,
    /// It is done, and its answer is lost.
    AnswerLost,
    /// The store has no lease of the node.
    Reaped,
    /// Keys that its settlements need are spoilt, and nothing is fetched.
    Spoilt,
    /// The store's own code panics.
    Panic,
}

/// A memory store whose next exchanges that do something fail.
pub(crate) struct FaultyStore {
    pub(crate) inner: MemoryTasks,
    faults: Mutex<VecDeque<Fault>>,
    /// The tokens that were listed again.
    pub(crate) relisted: Mutex<Vec<u64>>,
    /// The queues with limits that were named then.
    pub(crate) relisted_limits: Mutex<Vec<LimitedQueue>>,
    pub(crate) relisted_tracked: Mutex<Vec<Arc<str>>>,
    /// Attempts are listed again only while nothing holds it.
    pub(crate) relist_hold: tokio::sync::Mutex<()>,
    /// Whether the store is away for ticks.
    pub(crate) loses_ticks: AtomicBool,
    /// How often parked jobs were looked for, which is done only while nothing holds the other.
    pub(crate) looks: AtomicUsize,
    pub(crate) look_hold: tokio::sync::Mutex<()>,
    /// How often attempts were listed, or were to be.
    pub(crate) lists: AtomicUsize,
    /// The jobs whose settlements had a report.
    pub(crate) reported: Mutex<Vec<Arc<str>>>,
    /// Progress that was written apart from the end of its attempt.
    pub(crate) reports: AtomicUsize,
    /// How many of the next releases of claims fail.
    pub(crate) refused_releases: AtomicUsize,
    /// Attempts are listed only while nothing holds it.
    pub(crate) list_hold: tokio::sync::Mutex<()>,
    /// How often failed jobs were taken.
    pub(crate) takes: AtomicUsize,
    /// The answers that exchanges may get, if they have to wait for one.
    pub(crate) answers: Mutex<Option<Arc<Semaphore>>>,
    /// `sent` and `answered` for each of those that have to wait.
    pub(crate) steps: Mutex<Vec<&'static str>>,
    /// What the node showed that it works on; then `removed`.
    pub(crate) signs: Mutex<Vec<Option<String>>>,
    /// The cluster that uses the same queues.
    pub(crate) other_cluster: Mutex<Option<String>>,
    /// The queues in which jobs take turns, as the last exchange named them.
    pub(crate) in_turns: Mutex<Vec<String>>,
}

impl FaultyStore {
    pub(crate) fn new() -> Arc<Self> {
        let inner = MemoryTasks::new(Arc::new(SystemClock::new()), 1000);
        Arc::new(Self {
            inner,
            faults: Mutex::default(),
            relisted: Mutex::default(),
            relisted_limits: Mutex::default(),
            relisted_tracked: Mutex::default(),
            relist_hold: tokio::sync::Mutex::default(),
            loses_ticks: AtomicBool::new(false),
            looks: AtomicUsize::new(0),
            look_hold: tokio::sync::Mutex::default(),
            lists: AtomicUsize::new(0),
            reported: Mutex::default(),
            reports: AtomicUsize::new(0),
            refused_releases: AtomicUsize::new(0),
            list_hold: tokio::sync::Mutex::default(),
            takes: AtomicUsize::new(0),
            answers: Mutex::default(),
            steps: Mutex::default(),
            signs: Mutex::default(),
            other_cluster: Mutex::default(),
            in_turns: Mutex::default(),
        })
    }

    /// Lets the next exchanges fail that settle something, or would fetch something.
    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    pub(crate) fn is_through(&self) -> bool {
        self.faults.lock().unwrap().is_empty()
    }

    /// Takes the next fault, if it is one of these.
    fn next_fault(&self, is_due: impl FnOnce(Fault) -> bool) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let is_due = faults.front().is_some_and(|fault| is_due(*fault));
        if is_due { faults.pop_front() } else { None }
    }

    fn note(&self, step: &'static str) {
        self.steps.lock().unwrap().push(step);
    }

    async fn has_jobs(&self) -> bool {
        self.inner.stats().await.unwrap().queues.iter().any(|(_, length)| *length > 0)
    }
}

#[async_trait]
impl TaskStore for FaultyStore {
    async fn exchange(&self, call: &WorkerCall<'_>) -> Result<WorkerReply, BackendError> {
        let in_turns = call.limited.iter().filter(|limited| limited.takes_turns);
        *self.in_turns.lock().unwrap() = in_turns.map(|limited| limited.queue.to_string()).collect();
        let does_something = !call.settlements.is_empty() || call.wanted > 0 && self.has_jobs().await;
        // Whether an answer is to be lost shows when it is there: a job may come after the look.
        let fault = self.next_fault(|fault| does_something && fault != Fault::AnswerLost);
        match fault {
            None | Some(Fault::AnswerLost) => {
                let answers = self.answers.lock().unwrap().clone();
                if let Some(answers) = answers {
                    // It waits for its answer when it is noted.
                    let (permit, ()) = tokio::join!(biased; answers.acquire(), async { self.note("sent") });
                    permit.unwrap().forget();
                    self.note("answered");
                }
                let reported = call.settlements.iter().filter_map(|it| Some(it.report.as_ref()?.id.clone()));
                self.reported.lock().unwrap().extend(reported);
                let reply = self.inner.exchange(call).await?;
                let did_something = !call.settlements.is_empty() || !reply.fetched.is_empty();
                match self.next_fault(|fault| did_something && fault == Fault::AnswerLost) {
                    Some(_) => Err(BackendError::unavailable("timed out")),
                    None => Ok(reply),
                }
            }
            Some(Fault::Refused) => Err(BackendError::refused("READONLY")),
            Some(Fault::Panic) => panic!("the store's own code panics"),
            Some(Fault::Lost) => Err(BackendError::unavailable("timed out")),
            Some(Fault::Reaped) => Ok(WorkerReply {
                is_reaped: true,
                settled: vec![SettleOutcome::Superseded; call.settlements.len()],
                ..WorkerReply::default()
            }),
            Some(Fault::Spoilt) => Ok(WorkerReply {
                settled: vec![SettleOutcome::Spoilt { key: "failed".to_owned() }; call.settlements.len()],
                ..WorkerReply::default()
            }),
        }
    }

    async fn list_again(
        &self,
        of: Generation,
        attempts: &[FetchedJob],
        limited: &[LimitedQueue],
        tracked: &[Arc<str>],
    ) -> Result<(), BackendError> {
        self.relisted_tracked.lock().unwrap().extend_from_slice(tracked);
        *self.relisted_limits.lock().unwrap() = limited.to_vec();
        self.relisted.lock().unwrap().extend(attempts.iter().map(|job| job.attempt.token));
        let _held = self.relist_hold.lock().await;
        self.inner.list_again(of, attempts, limited, tracked).await
    }

    async fn enqueue(&self, jobs: &[NewJob], until_us: u64) -> Result<Vec<EnqueueOutcome>, BackendError> {
        self.inner.enqueue(jobs, until_us).await
    }

    async fn create_batch(&self, batch: &NewBatch, until_us: u64) -> Result<Option<StoredBatch>, BackendError> {
        self.inner.create_batch(batch, until_us).await
    }

    async fn seal_batch(&self, id: &str) -> Result<SealOutcome, BackendError> {
        self.inner.seal_batch(id).await
    }

    async fn batch(&self, id: &str) -> Result<Option<StoredBatch>, BackendError> {
        self.inner.batch(id).await
    }

    async fn woken(&self) {
        self.inner.woken().await;
    }

    async fn show_worker(&self, sign: &WorkerSign<'_>) -> Result<Option<String>, BackendError> {
        self.signs.lock().unwrap().push(sign.working_on.map(|job| String::from_utf8(job.to_vec()).unwrap()));
        Ok(self.other_cluster.lock().unwrap().clone())
    }

    async fn remove_worker(&self, _of: Generation) -> Result<(), BackendError> {
        self.signs.lock().unwrap().push(Some("removed".to_owned()));
        Ok(())
    }

    async fn attempts(&self, of: Generation) -> Result<Vec<FetchedJob>, BackendError> {
        self.lists.fetch_add(1, SeqCst);
        let _held = self.list_hold.lock().await;
        self.inner.attempts(of).await
    }

    async fn deleted_of(&self, of: Generation, attempts: &[FetchedJob]) -> Result<Vec<u64>, BackendError> {
        self.inner.deleted_of(of, attempts).await
    }

    async fn promote(&self) -> Result<Promotion, BackendError> {
        self.inner.promote().await
    }

    async fn tick(&self, call: &TickCall<'_>) -> Result<Vec<TickOutcome>, BackendError> {
        if self.loses_ticks.load(SeqCst) {
            return Err(BackendError::unavailable("timed out"));
        }
        self.inner.tick(call).await
    }

    async fn give_back(&self, by: Generation, dead: Generation, worker: &str) -> Result<GiveBackOutcome, BackendError> {
        self.inner.give_back(by, dead, worker).await
    }

    async fn came_back(&self, generation: Generation) -> Result<(), BackendError> {
        self.inner.came_back(generation).await
    }

    async fn parked(&self) -> Result<Vec<String>, BackendError> {
        self.looks.fetch_add(1, SeqCst);
        let _held = self.look_hold.lock().await;
        self.inner.parked().await
    }

    async fn take_parked(&self, call: &WorkerCall<'_>, classes: &[String]) -> Result<WorkerReply, BackendError> {
        self.inner.take_parked(call, classes).await
    }

    async fn fail_parked(&self, before_ms: u64, worker: &str, known: &[&str]) -> Result<usize, BackendError> {
        self.inner.fail_parked(before_ms, worker, known).await
    }

    async fn take_unattended(&self, classes: &[&str], most: usize) -> Result<Vec<Bytes>, BackendError> {
        self.inner.take_unattended(classes, most).await
    }

    async fn claimant(&self, key: &str) -> Result<Option<Arc<str>>, BackendError> {
        self.inner.claimant(key).await
    }

    async fn release(&self, key: &str, id: &str) -> Result<bool, BackendError> {
        if self.refused_releases.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(BackendError::unavailable("timed out"));
        }
        self.inner.release(key, id).await
    }

    async fn report(
        &self,
        of: Generation,
        attempt: &AttemptKey,
        report: &JobReport,
        ttl_ms: u64,
    ) -> Result<bool, BackendError> {
        self.reports.fetch_add(1, SeqCst);
        self.inner.report(of, attempt, report, ttl_ms).await
    }

    async fn keep_checkpoint(
        &self,
        of: Generation,
        job: (&AttemptKey, &str),
        value: Bytes,
        ttl_ms: u64,
    ) -> Result<bool, BackendError> {
        self.inner.keep_checkpoint(of, job, value, ttl_ms).await
    }

    async fn checkpoint(&self, id: &str) -> Result<Option<Bytes>, BackendError> {
        self.inner.checkpoint(id).await
    }

    async fn status(&self, id: &str) -> Result<StoredStatus, BackendError> {
        self.inner.status(id).await
    }

    async fn ended(&self, id: &str) -> Result<Option<StoredStatus>, BackendError> {
        self.inner.ended(id).await
    }

    async fn delete(&self, id: &str) -> Result<DeleteOutcome, BackendError> {
        self.inner.delete(id).await
    }

    async fn stats(&self) -> Result<TaskStats, BackendError> {
        self.inner.stats().await
    }

    async fn add_minutes(&self, minutes: &[TaskMinute]) -> Result<(), BackendError> {
        self.inner.add_minutes(minutes).await
    }

    async fn minutes(&self, from: u64, to: u64) -> Result<Vec<TaskMinute>, BackendError> {
        self.inner.minutes(from, to).await
    }

    async fn running(&self, skip: usize, limit: usize) -> Result<Vec<ListedAttempt>, BackendError> {
        self.inner.running(skip, limit).await
    }

    async fn waiting(&self, queue: &str, skip: usize, limit: usize) -> Result<Vec<Bytes>, BackendError> {
        self.inner.waiting(queue, skip, limit).await
    }

    async fn failed(&self, skip: usize, limit: usize) -> Result<Vec<Bytes>, BackendError> {
        self.inner.failed(skip, limit).await
    }

    async fn take_failed(&self, jobs: &[FailedTake]) -> Result<Vec<TakeOutcome>, BackendError> {
        self.takes.fetch_add(1, SeqCst);
        self.inner.take_failed(jobs).await
    }

    async fn set_paused(&self, queue: &str, is_paused: bool) -> Result<(), BackendError> {
        self.inner.set_paused(queue, is_paused).await
    }

    async fn risks(&self) -> Vec<String> {
        self.inner.risks().await
    }
}
