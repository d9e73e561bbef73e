//! The store of an application in a test, whose jobs run by themselves, within their enqueue, or when the test says so.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use phalanx_core::Generation;
use phalanx_core::backend::{
    AttemptEnd, AttemptKey, BackendError, BatchStage, Clock, DeleteOutcome, EnqueueOutcome, FailedTake, FetchedJob,
    GiveBackOutcome, JobReport, JobState, LimitedQueue, ListedAttempt, NewBatch, NewJob, Promotion, SealOutcome,
    Settlement, StoredBatch, StoredStatus, TakeOutcome, TaskMinute, TaskStats, TaskStore, TickCall, TickOutcome,
    WorkerCall, WorkerReply, WorkerSign,
};
use phalanx_core::config::Config;
use phalanx_core::memory::MemoryTasks;
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::timeout;

use super::waiting::CONDITION;

/// The jobs at once where an enqueue waits for its job: each job that enqueues another keeps its slot meanwhile.
const INLINE_SLOTS: usize = 1000;

/// Most jobs with follow-on jobs that are noted: those of ticks and of later attempts stay, since no enqueue waits for them.
const MAX_FOLLOWED: usize = 100_000;

/// When the jobs of an application in a test run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum JobMode {
    /// By themselves, beside the test.
    #[default]
    Beside,
    /// Within their enqueue.
    Inline,
    /// When the test calls `drain`.
    Manual,
}

impl JobMode {
    /// Sets what a test may change.
    pub(super) fn set(self, config: &mut Config) {
        if self == Self::Inline {
            config.tasks.concurrency = INLINE_SLOTS;
        }
    }
}

/// The attempts that ended in a [`TestApp::drain`](super::TestApp::drain).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainedJobs {
    /// Jobs that succeeded.
    pub done: u64,
    /// Jobs that failed for good.
    pub failed: u64,
    /// Attempts after which the job is to run again: they failed, or snoozed.
    pub again: u64,
    /// Jobs that were deleted, discarded, or had expired.
    pub dropped: u64,
}

/// The store of the embedded backend, whose jobs run as the mode of the test says.
pub(super) struct TestJobs {
    inner: MemoryTasks,
    mode: JobMode,
    /// Whether jobs may begin.
    is_open: AtomicBool,
    opened: Notify,
    /// Held while attempts end, so that a look sees their jobs and their counts alike.
    steps: Mutex<()>,
    /// Changes with each attempt that ends.
    ended: watch::Sender<DrainedJobs>,
    /// The jobs that follow on the success of another, by the id of that, where an enqueue waits for them.
    followers: StdMutex<HashMap<Arc<str>, Vec<Arc<str>>>>,
    /// The time of the node's last look for ticks that was answered, in µs.
    ticked_us: AtomicU64,
    has_ticked: watch::Sender<u64>,
}

impl TestJobs {
    pub(super) fn new(clock: Arc<dyn Clock>, failed_max: usize, mode: JobMode) -> Self {
        Self {
            inner: MemoryTasks::new(clock, failed_max),
            mode,
            is_open: AtomicBool::new(mode != JobMode::Manual),
            opened: Notify::new(),
            steps: Mutex::default(),
            ended: watch::Sender::default(),
            followers: StdMutex::default(),
            ticked_us: AtomicU64::new(0),
            has_ticked: watch::Sender::default(),
        }
    }

    pub(super) fn mode(&self) -> JobMode {
        self.mode
    }

    /// The texts of the jobs that wait, are due later, or are to run again.
    pub(super) fn enqueued(&self) -> Vec<Bytes> {
        self.inner.stored()
    }

    /// Lets jobs begin until none waits or runs, also of those that they enqueue; then no more.
    ///
    /// # Errors
    ///
    /// The numbers of the queue, if that takes too long.
    pub(super) async fn drain(&self) -> Result<DrainedJobs, String> {
        let mut ended = self.ended.subscribe();
        let before = *ended.borrow_and_update();
        self.is_open.store(true, SeqCst);
        self.opened.notify_one();
        let mut left = Err("the store does not answer".to_owned());
        let drained = timeout(CONDITION, async {
            loop {
                left = self.idle().await;
                if left.is_ok() {
                    break;
                }
                let _ = ended.changed().await; // its sender is this store's
            }
        });
        let is_over = drained.await.is_ok();
        self.is_open.store(self.mode != JobMode::Manual, SeqCst);
        if !is_over {
            left?;
        }
        let now = *self.ended.borrow();
        Ok(DrainedJobs {
            done: now.done - before.done,
            failed: now.failed - before.failed,
            again: now.again - before.again,
            dropped: now.dropped - before.dropped,
        })
    }

    /// Has all jobs wait that are due.
    ///
    /// # Errors
    ///
    /// That of the store.
    pub(super) async fn promote_all(&self) -> Result<(), String> {
        while self.inner.promote().await.map_err(|error| error.to_string())?.moved > 0 {}
        Ok(())
    }

    /// Whether no job that could run waits or runs.
    async fn idle(&self) -> Result<(), String> {
        self.promote_all().await?;
        let _step = self.steps.lock().await;
        let stats = self.inner.stats().await.map_err(|error| error.to_string())?;
        let can_run = stats.queues.iter().filter(|(name, _)| !stats.paused.contains(name));
        let waiting: u64 = can_run.map(|(_, length)| length).sum();
        if waiting + stats.running == 0 { Ok(()) } else { Err(format!("{stats:?}")) }
    }

    /// Waits until the node has enqueued the ticks that were due at this time.
    ///
    /// # Errors
    ///
    /// If it does not within the time of a condition.
    pub(super) async fn ticked(&self, now_us: u64) -> Result<(), String> {
        let mut has_ticked = self.has_ticked.subscribe();
        let late = async {
            while self.ticked_us.load(SeqCst) < now_us {
                let _ = has_ticked.changed().await;
            }
        };
        timeout(CONDITION, late).await.map_err(|_| "the node looks for no ticks".to_owned())
    }

    /// Waits until a job is over, or is to run later, and so are those that follow on it.
    async fn run_inline(&self, id: &str) -> Result<(), BackendError> {
        let mut left = vec![Arc::<str>::from(id)];
        while let Some(id) = left.pop() {
            timeout(CONDITION, self.run_one(&id)).await.unwrap_or_else(|_| {
                let why = "is its queue paused, or not in tasks.queues?";
                Err(BackendError::unavailable(format!("the job {id} did not end within {CONDITION:?}: {why}")))
            })?;
            left.extend(self.followers().remove(&id).unwrap_or_default());
        }
        Ok(())
    }

    async fn run_one(&self, id: &str) -> Result<(), BackendError> {
        let mut ended = self.ended.subscribe();
        loop {
            ended.borrow_and_update();
            match self.inner.status(id).await?.state {
                JobState::Waiting | JobState::Running(_) => drop(ended.changed().await),
                _ => return Ok(()),
            }
        }
    }

    /// Notes the jobs that follow on those which are settled.
    fn note_followers(&self, settlements: &[Settlement]) {
        let following = settlements.iter().filter(|it| self.mode == JobMode::Inline && it.end == AttemptEnd::Done);
        for (id, consequences) in following.filter_map(|it| it.id.as_ref().zip(it.consequences.as_ref())) {
            let ids: Vec<_> = consequences.follow_ups.iter().map(|job| job.id.clone()).collect();
            let mut followers = self.followers();
            if !ids.is_empty() && followers.len() < MAX_FOLLOWED {
                followers.insert(id.clone(), ids);
            }
        }
    }

    fn followers(&self) -> MutexGuard<'_, HashMap<Arc<str>, Vec<Arc<str>>>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, end: &AttemptEnd) {
        self.ended.send_modify(|ended| {
            let count = match end {
                AttemptEnd::Done => &mut ended.done,
                AttemptEnd::Failed { .. } => &mut ended.failed,
                AttemptEnd::Dropped => &mut ended.dropped,
                _ => &mut ended.again,
            };
            *count += 1;
        });
    }
}

impl fmt::Debug for TestJobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestJobs({:?})", self.mode)
    }
}

#[async_trait]
impl TaskStore for TestJobs {
    async fn enqueue(&self, jobs: &[NewJob], until_us: u64) -> Result<Vec<EnqueueOutcome>, BackendError> {
        let outcomes = self.inner.enqueue(jobs, until_us).await?;
        if self.mode == JobMode::Inline {
            for (job, outcome) in jobs.iter().zip(&outcomes) {
                if *outcome == EnqueueOutcome::Stored {
                    self.run_inline(&job.id).await?;
                }
            }
        }
        Ok(outcomes)
    }

    async fn create_batch(&self, batch: &NewBatch, until_us: u64) -> Result<Option<StoredBatch>, BackendError> {
        self.inner.create_batch(batch, until_us).await
    }

    async fn seal_batch(&self, id: &str) -> Result<SealOutcome, BackendError> {
        let outcome = self.inner.seal_batch(id).await?;
        if self.mode == JobMode::Inline
            && let SealOutcome::Sealed(StoredBatch { stage: BatchStage::Finished, completion: Some(id), .. }) = &outcome
        {
            self.run_inline(id).await?;
        }
        Ok(outcome)
    }

    async fn batch(&self, id: &str) -> Result<Option<StoredBatch>, BackendError> {
        self.inner.batch(id).await
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

    async fn woken(&self) {
        tokio::select! {
            () = self.inner.woken() => {}
            () = self.opened.notified() => {}
        }
    }

    async fn exchange(&self, call: &WorkerCall<'_>) -> Result<WorkerReply, BackendError> {
        let is_open = self.is_open.load(SeqCst);
        let wanted = if is_open { call.wanted } else { 0 };
        let _step = self.steps.lock().await;
        self.note_followers(call.settlements);
        let mut reply = self.inner.exchange(&WorkerCall { wanted, ..call.clone() }).await?;
        reply.has_more &= is_open;
        call.settlements.iter().for_each(|settlement| self.count(&settlement.end));
        Ok(reply)
    }

    async fn show_worker(&self, sign: &WorkerSign<'_>) -> Result<Option<String>, BackendError> {
        self.inner.show_worker(sign).await
    }

    async fn remove_worker(&self, of: Generation) -> Result<(), BackendError> {
        self.inner.remove_worker(of).await
    }

    async fn attempts(&self, of: Generation) -> Result<Vec<FetchedJob>, BackendError> {
        self.inner.attempts(of).await
    }

    async fn deleted_of(&self, of: Generation, attempts: &[FetchedJob]) -> Result<Vec<u64>, BackendError> {
        self.inner.deleted_of(of, attempts).await
    }

    async fn list_again(
        &self,
        of: Generation,
        attempts: &[FetchedJob],
        limited: &[LimitedQueue],
        tracked: &[Arc<str>],
    ) -> Result<(), BackendError> {
        self.inner.list_again(of, attempts, limited, tracked).await
    }

    async fn promote(&self) -> Result<Promotion, BackendError> {
        self.inner.promote().await
    }

    async fn tick(&self, call: &TickCall<'_>) -> Result<Vec<TickOutcome>, BackendError> {
        let outcomes = self.inner.tick(call).await?;
        self.ticked_us.fetch_max(call.now_us, SeqCst);
        self.has_ticked.send_modify(|count| *count += 1);
        Ok(outcomes)
    }

    async fn give_back(&self, by: Generation, dead: Generation, worker: &str) -> Result<GiveBackOutcome, BackendError> {
        self.inner.give_back(by, dead, worker).await
    }

    async fn came_back(&self, generation: Generation) -> Result<(), BackendError> {
        self.inner.came_back(generation).await
    }

    async fn parked(&self) -> Result<Vec<String>, BackendError> {
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
        self.inner.release(key, id).await
    }

    async fn report(
        &self,
        of: Generation,
        attempt: &AttemptKey,
        report: &JobReport,
        ttl_ms: u64,
    ) -> Result<bool, BackendError> {
        self.inner.report(of, attempt, report, ttl_ms).await
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
        let outcomes = self.inner.take_failed(jobs).await?;
        if self.mode == JobMode::Inline {
            for job in jobs.iter().filter_map(|job| job.retry.as_ref()) {
                self.run_inline(&job.id).await?;
            }
        }
        Ok(outcomes)
    }

    async fn set_paused(&self, queue: &str, is_paused: bool) -> Result<(), BackendError> {
        self.inner.set_paused(queue, is_paused).await
    }

    async fn risks(&self) -> Vec<String> {
        Vec::new() // that jobs end with the process is what a test wants
    }
}
