//! The jobs of one node. They end with its process.

mod batch_ends;
mod batches;
mod checkpoints;
mod ends;
mod exchange;
mod jobs;
mod limits;
mod lists;
mod queue;
mod reaps;
mod reports;
mod series;
mod ticks;
mod turns;
mod unattended;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::backend::{
    AttemptKey, BackendError, CLOCK_MARGIN_US, Clock, DeleteOutcome, EnqueueOutcome, FailedTake, FetchedJob,
    GiveBackOutcome, JobCounters, JobReport, LimitedQueue, ListedAttempt, MOVE_BATCH, NewBatch, NewJob, PaidTime,
    Promotion, SealOutcome, StoredBatch, StoredStatus, TakeOutcome, TaskMinute, TaskStats, TaskStore, TickCall,
    TickOutcome, WorkerCall, WorkerReply, WorkerSign,
};
use crate::id::Generation;
use crate::job::{FailedJob, FailedRecord, JobText};
use crate::metrics::bound_reached;

use batches::MemoryBatches;
use checkpoints::JobCheckpoints;
use jobs::{JobIds, JobPlace};
use queue::{MemoryQueue, WaitingJob};
use reaps::CountedReaps;
use reports::JobReports;
use series::StoredSeries;
use ticks::LastTicks;
use unattended::UnattendedFailures;

/// Most jobs that wait, run, are delayed or parked; beyond, the store is full.
const MAX_JOBS: usize = 1_000_000;

/// How long an id that a caller chose is remembered, and a deletion of a job that waits.
const MEMORY_MS: u64 = 24 * 60 * 60 * 1000;

/// The jobs of one node, behind a mutex that is never locked across an await.
pub struct MemoryTasks {
    clock: Arc<dyn Clock>,
    failed_max: usize,
    state: Mutex<Jobs>,
    /// Notified when a job may be fetched or is due.
    added: Arc<Notify>,
}

#[derive(Default)]
struct Jobs {
    /// Jobs that are anywhere but among the failed ones.
    count: usize,
    queues: BTreeMap<Arc<str>, MemoryQueue>,
    delayed: BTreeMap<(u64, u64), DelayedJob>,
    /// The number of the last delayed job: jobs that are due in the same millisecond stay in order.
    last_delayed: u64,
    running: HashMap<Generation, BTreeMap<u64, RunningJob>>,
    parked: BTreeMap<Arc<str>, VecDeque<ParkedJob>>,
    failed: VecDeque<Bytes>,
    unattended: UnattendedFailures,
    reaps: CountedReaps,
    claims: HashMap<Arc<str>, Claim>,
    ids: JobIds,
    batches: MemoryBatches,
    reports: JobReports,
    checkpoints: JobCheckpoints,
    last_ticks: LastTicks,
    /// The use of rates, by queue: as many as the application's tasks have queues with one.
    rates: HashMap<Arc<str>, PaidTime>,
    series: StoredSeries,
    processed: u64,
}

struct DelayedJob {
    queue: Arc<str>,
    job: WaitingJob,
}

struct RunningJob {
    queue: Arc<str>,
    job: WaitingJob,
    is_deleted: bool,
}

struct ParkedJob {
    since_ms: u64,
    queue: Arc<str>,
    job: WaitingJob,
}

struct Claim {
    id: Arc<str>,
    expires_ms: u64,
}

impl MemoryTasks {
    /// An empty store that follows this clock and keeps so many failed jobs.
    pub fn new(clock: Arc<dyn Clock>, failed_max: usize) -> Self {
        let added = Arc::<Notify>::default();
        clock.on_advance(&added);
        Self { clock, failed_max, state: Mutex::default(), added }
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Jobs {
    /// The job that has a claim, if one has.
    fn claimant(&self, key: &str, now_ms: u64) -> Option<Arc<str>> {
        self.claims.get(key).filter(|claim| claim.expires_ms > now_ms).map(|claim| claim.id.clone())
    }

    /// Why a job is not stored: there is one of its id or its claim.
    fn existing(&self, job: &NewJob, now_ms: u64) -> Option<EnqueueOutcome> {
        let known = job.digest.and_then(|_| self.ids.digest(&job.id));
        let claimant = job.unique.as_ref().and_then(|unique| self.claimant(&unique.key, now_ms));
        match (known, claimant) {
            (Some(known), _) if Some(known) == job.digest => Some(EnqueueOutcome::Existing(job.id.clone())),
            (Some(_), _) => Some(EnqueueOutcome::Conflict),
            (None, claimant) => claimant.map(EnqueueOutcome::Existing),
        }
    }

    fn enqueue(&mut self, job: &NewJob, now_ms: u64) -> EnqueueOutcome {
        match self.existing(job, now_ms) {
            Some(existing) => existing,
            None => {
                if let Some(digest) = job.digest {
                    self.ids.remember(&job.id, digest, now_ms + MEMORY_MS);
                    self.checkpoints.remove(&job.id); // that of an earlier job of this id
                }
                let member = job.batch.as_deref().and_then(|batch| self.batches.add_member(batch, &job.text));
                let text = member.unwrap_or_else(|| job.text.clone());
                self.store(NewJob { text, ..job.clone() }, now_ms);
                EnqueueOutcome::Stored
            }
        }
    }

    fn store(&mut self, new: NewJob, now_ms: u64) {
        if let Some(unique) = new.unique {
            let expires_ms = now_ms.saturating_add(unique.ttl_ms);
            self.claims.insert(unique.key, Claim { id: new.id.clone(), expires_ms });
        }
        self.count += 1;
        if new.tracked {
            self.reports.track(&new.id);
        }
        let job = WaitingJob { id: Some(new.id), text: new.text, counters: JobCounters::default() };
        match new.due_ms.filter(|due| *due > now_ms) {
            Some(due_ms) => self.delay(new.queue, job, due_ms),
            None => self.wait(new.queue, job),
        }
    }

    /// The names of those queues.
    fn queues_with(&self, is_one: impl Fn(&MemoryQueue) -> bool) -> Vec<String> {
        self.queues.iter().filter(|(_, queue)| is_one(queue)).map(|(name, _)| name.to_string()).collect()
    }

    /// Puts a job at the end of its queue.
    fn wait(&mut self, queue: Arc<str>, job: WaitingJob) {
        self.ids.set_place(&job.id, JobPlace::Waiting);
        self.queues.entry(queue).or_default().push(job);
    }

    fn delay(&mut self, queue: Arc<str>, job: WaitingJob, due_ms: u64) {
        self.last_delayed += 1;
        let key = (due_ms, self.last_delayed);
        self.ids.set_place(&job.id, JobPlace::Delayed(key));
        self.delayed.insert(key, DelayedJob { queue, job });
    }

    fn next_due_ms(&self) -> Option<u64> {
        let delayed = self.delayed.first_key_value().map(|((due_ms, _), _)| *due_ms);
        [delayed, self.batches.next_deadline_ms()].into_iter().flatten().min()
    }
}

#[async_trait]
impl TaskStore for MemoryTasks {
    async fn enqueue(&self, jobs: &[NewJob], until_us: u64) -> Result<Vec<EnqueueOutcome>, BackendError> {
        let now_ms = self.clock.now_ms();
        if self.clock.now_us() > until_us {
            return Err(BackendError::refused("its deadline has passed"));
        }
        let mut state = self.jobs();
        if state.count + jobs.len() > MAX_JOBS {
            bound_reached("memory_tasks");
            return Err(BackendError::Full);
        }
        state.ids.forget_old(now_ms);
        if let Some(refusal) = jobs.first().and_then(|job| state.batches.refusal(job.batch.as_deref()?, jobs.len())) {
            // A job that runs again adds the members of its first run once more.
            let existing: Option<Vec<_>> = jobs.iter().map(|job| state.existing(job, now_ms)).collect();
            return Ok(existing.unwrap_or_else(|| vec![EnqueueOutcome::NoMember(refusal); jobs.len()]));
        }
        let outcomes = jobs.iter().map(|job| state.enqueue(job, now_ms)).collect();
        drop(state);
        self.added.notify_one();
        Ok(outcomes)
    }

    async fn create_batch(&self, batch: &NewBatch, until_us: u64) -> Result<Option<StoredBatch>, BackendError> {
        if self.clock.now_us() > until_us {
            return Err(BackendError::refused("its deadline has passed"));
        }
        let mut state = self.jobs();
        let existing = state.batches.create(batch, self.clock.now_ms())?;
        if let Some(completion) = batch.completion.as_ref().filter(|job| job.tracked && existing.is_none()) {
            state.reports.track(&completion.id); // from now on, so that it can be waited for before it is enqueued
        }
        drop(state);
        self.added.notify_one(); // its deadline may be the next one
        Ok(existing)
    }

    async fn seal_batch(&self, id: &str) -> Result<SealOutcome, BackendError> {
        let outcome = self.jobs().seal_batch(id, self.clock.now_ms());
        self.added.notify_one();
        Ok(outcome)
    }

    async fn batch(&self, id: &str) -> Result<Option<StoredBatch>, BackendError> {
        Ok(self.jobs().batches.status(id))
    }

    async fn woken(&self) {
        self.added.notified().await;
    }

    async fn exchange(&self, call: &WorkerCall<'_>) -> Result<WorkerReply, BackendError> {
        let (now_us, mut reply) = (self.clock.now_us(), WorkerReply::default());
        let mut state = self.jobs();
        let settle = |settlement| state.settle(call.generation, settlement, now_us / 1000, self.failed_max);
        reply.settled = call.settlements.iter().map(settle).collect();
        if now_us <= call.fetch_until_us {
            state.fetch(call, &mut reply, now_us);
        }
        reply.next_due_ms = state.next_due_ms();
        let has_followed = call.settlements.iter().any(|settlement| settlement.consequences.is_some());
        if has_followed || state.has_made_room(call) {
            self.added.notify_one(); // there may be more jobs, or more room for those that wait
        }
        Ok(reply)
    }

    async fn show_worker(&self, _sign: &WorkerSign<'_>) -> Result<Option<String>, BackendError> {
        Ok(None) // no tools see it
    }

    async fn remove_worker(&self, _of: Generation) -> Result<(), BackendError> {
        Ok(())
    }

    async fn attempts(&self, of: Generation) -> Result<Vec<FetchedJob>, BackendError> {
        Ok(self.jobs().running.get(&of).into_iter().flatten().map(lists::fetched).collect())
    }

    async fn deleted_of(&self, of: Generation, attempts: &[FetchedJob]) -> Result<Vec<u64>, BackendError> {
        let state = self.jobs();
        let listed = state.running.get(&of);
        let is_deleted = |token: &u64| listed.and_then(|listed| listed.get(token)).is_some_and(|it| it.is_deleted);
        Ok(attempts.iter().map(|job| job.attempt.token).filter(is_deleted).collect())
    }

    async fn list_again(
        &self,
        of: Generation,
        attempts: &[FetchedJob],
        _limited: &[LimitedQueue],
        tracked: &[Arc<str>],
    ) -> Result<(), BackendError> {
        let mut state = self.jobs();
        for FetchedJob { attempt, text } in attempts {
            if state.running.get(&of).is_some_and(|listed| listed.contains_key(&attempt.token)) {
                continue;
            }
            let id = JobText::read(text).and_then(|job| job.id.map(|id| Arc::from(&*id)));
            if let Some(id) = id.as_ref().filter(|id| tracked.contains(id)) {
                state.reports.track(id);
            }
            let job = WaitingJob { id, text: text.clone(), counters: attempt.counters };
            let place = JobPlace::Running(of, attempt.token);
            let running = RunningJob { queue: attempt.queue.clone(), job: job.clone(), is_deleted: false };
            state.running.entry(of).or_default().insert(attempt.token, running);
            state.ids.set_place(&job.id, place);
            state.count += 1;
        }
        Ok(())
    }

    async fn promote(&self) -> Result<Promotion, BackendError> {
        let now_ms = self.clock.now_ms();
        let mut state = self.jobs();
        let mut moved = 0;
        while moved < MOVE_BATCH {
            let Some(first) = state.delayed.first_entry().filter(|first| first.key().0 <= now_ms) else { break };
            let DelayedJob { queue, job } = first.remove();
            state.wait(queue, job);
            moved += 1;
        }
        moved += state.expire_batches(now_ms);
        let next_due_ms = state.next_due_ms();
        drop(state);
        if moved > 0 {
            self.added.notify_one();
        }
        Ok(Promotion { moved, next_due_ms })
    }

    async fn tick(&self, call: &TickCall<'_>) -> Result<Vec<TickOutcome>, BackendError> {
        let now_us = self.clock.now_us();
        if now_us > call.until_us || now_us + CLOCK_MARGIN_US < call.now_us {
            return Err(BackendError::refused("its deadline has passed, or its node is ahead"));
        }
        let mut state = self.jobs();
        if state.count + call.tasks.iter().map(|task| task.due.len()).sum::<usize>() > MAX_JOBS {
            bound_reached("memory_tasks");
            return Err(BackendError::Full);
        }
        let outcomes = call.tasks.iter().map(|request| state.tick(request, call.since_us, now_us)).collect();
        drop(state);
        self.added.notify_one();
        Ok(outcomes)
    }

    async fn give_back(
        &self,
        _by: Generation,
        dead: Generation,
        worker: &str,
    ) -> Result<GiveBackOutcome, BackendError> {
        let (now_ms, mut convicted) = (self.clock.now_ms(), Vec::new());
        let mut state = self.jobs();
        if state.running.get(&dead).is_none_or(BTreeMap::is_empty) {
            state.running.remove(&dead);
            return Ok(GiveBackOutcome::Done);
        }
        for _ in 0..MOVE_BATCH {
            // The last one first, so that the first one is at the head of its queue in the end.
            let Some((token, RunningJob { queue, mut job, is_deleted })) =
                state.running.get_mut(&dead).and_then(BTreeMap::pop_last)
            else {
                break;
            };
            state.reaps.count(dead, &mut job);
            if is_deleted {
                state.end_deleted(&job, now_ms);
            } else if let Some(conviction) = job.counters.conviction() {
                let record = FailedRecord {
                    worker,
                    queue: &queue,
                    text: &job.text,
                    exception: conviction.exception(),
                    error: conviction.error(),
                    failed_at_ms: now_ms,
                    counters: job.counters,
                };
                state.end_failed(&job, &record, self.failed_max);
                let attempt = AttemptKey { token, queue, counters: job.counters };
                convicted.push(FetchedJob { attempt, text: job.text });
            } else {
                job.counters.attempts = job.counters.attempts.saturating_sub(1);
                state.ids.set_place(&job.id, JobPlace::Waiting);
                state.queues.entry(queue).or_default().give_back(job);
            }
        }
        drop(state);
        self.added.notify_one();
        Ok(GiveBackOutcome::Some(convicted))
    }

    async fn came_back(&self, generation: Generation) -> Result<(), BackendError> {
        self.jobs().reaps.came_back(generation);
        Ok(())
    }

    async fn parked(&self) -> Result<Vec<String>, BackendError> {
        Ok(self.jobs().parked.keys().map(|class| class.to_string()).collect())
    }

    async fn take_parked(&self, call: &WorkerCall<'_>, classes: &[String]) -> Result<WorkerReply, BackendError> {
        let mut reply = WorkerReply::default();
        let mut state = self.jobs();
        let now_us = self.clock.now_us();
        if now_us <= call.fetch_until_us {
            state.take_parked(call, classes, &mut reply, now_us);
        }
        reply.next_due_ms = state.next_due_ms();
        Ok(reply)
    }

    async fn fail_parked(&self, before_ms: u64, worker: &str, known: &[&str]) -> Result<usize, BackendError> {
        let now_ms = self.clock.now_ms();
        let mut state = self.jobs();
        let mut late = Vec::new();
        for (_, parked) in state.parked.iter_mut().filter(|(class, _)| !known.contains(&&***class)) {
            while late.len() < MOVE_BATCH && parked.front().is_some_and(|parked| parked.since_ms < before_ms) {
                late.extend(parked.pop_front());
            }
        }
        state.parked.retain(|_, parked| !parked.is_empty());
        for ParkedJob { queue, job, .. } in &late {
            let record = FailedRecord {
                worker,
                queue,
                text: &job.text,
                exception: "unknown_task",
                error: "no node that serves its queue knew its task for tasks.unknown_grace",
                failed_at_ms: now_ms,
                counters: job.counters,
            };
            state.end_failed(job, &record, self.failed_max);
        }
        drop(state);
        self.added.notify_one(); // the last member of a batch may be among them
        Ok(late.len())
    }

    async fn take_unattended(&self, classes: &[&str], most: usize) -> Result<Vec<Bytes>, BackendError> {
        Ok(self.jobs().unattended.take(classes, most))
    }

    async fn claimant(&self, key: &str) -> Result<Option<Arc<str>>, BackendError> {
        Ok(self.jobs().claimant(key, self.clock.now_ms()))
    }

    async fn release(&self, key: &str, id: &str) -> Result<bool, BackendError> {
        let (now_ms, mut state) = (self.clock.now_ms(), self.jobs());
        let is_own = state.claimant(key, now_ms).is_some_and(|claimant| *claimant == *id);
        if is_own {
            state.claims.remove(key);
        }
        Ok(is_own)
    }

    async fn report(
        &self,
        of: Generation,
        attempt: &AttemptKey,
        report: &JobReport,
        ttl_ms: u64,
    ) -> Result<bool, BackendError> {
        let (now_ms, mut state) = (self.clock.now_ms(), self.jobs());
        let is_listed = state.running.get(&of).is_some_and(|attempts| attempts.contains_key(&attempt.token));
        if is_listed {
            state.reports.keep((of, attempt.clone()), report, now_ms + ttl_ms);
        }
        Ok(is_listed)
    }

    async fn keep_checkpoint(
        &self,
        of: Generation,
        (attempt, id): (&AttemptKey, &str),
        value: Bytes,
        ttl_ms: u64,
    ) -> Result<bool, BackendError> {
        let (now_ms, mut state) = (self.clock.now_ms(), self.jobs());
        let is_listed = state.running.get(&of).is_some_and(|attempts| attempts.contains_key(&attempt.token));
        if is_listed {
            state.checkpoints.keep(id, value, now_ms + ttl_ms);
        }
        Ok(is_listed)
    }

    async fn checkpoint(&self, id: &str) -> Result<Option<Bytes>, BackendError> {
        Ok(self.jobs().checkpoints.get(id, self.clock.now_ms()))
    }

    async fn status(&self, id: &str) -> Result<StoredStatus, BackendError> {
        let (now_ms, state) = (self.clock.now_ms(), self.jobs());
        Ok(state.status(id, now_ms))
    }

    async fn ended(&self, id: &str) -> Result<Option<StoredStatus>, BackendError> {
        Ok(self.await_end(id).await)
    }

    async fn delete(&self, id: &str) -> Result<DeleteOutcome, BackendError> {
        let (now_ms, mut state) = (self.clock.now_ms(), self.jobs());
        Ok(match state.ids.place(id) {
            Some(JobPlace::Delayed(key)) => {
                if let Some(DelayedJob { job, .. }) = state.delayed.remove(&key) {
                    state.end_deleted(&job, now_ms);
                    self.added.notify_one(); // it may have been the last member of a batch
                }
                DeleteOutcome::Deleted
            }
            Some(JobPlace::Waiting) => {
                state.ids.bury(id, now_ms + MEMORY_MS);
                DeleteOutcome::Marked
            }
            Some(JobPlace::Running(generation, token)) => {
                let listed = state.running.get_mut(&generation);
                if let Some(running) = listed.and_then(|attempts| attempts.get_mut(&token)) {
                    running.is_deleted = true;
                }
                DeleteOutcome::Cancelling(generation)
            }
            Some(JobPlace::Failed) => {
                state.failed.retain(|record| FailedJob::read(record).id.as_deref() != Some(id));
                state.ids.forget_failed(id);
                DeleteOutcome::Deleted
            }
            None => DeleteOutcome::NotFound,
        })
    }

    async fn stats(&self) -> Result<TaskStats, BackendError> {
        let state = self.jobs();
        let length = |jobs: usize| jobs as u64;
        Ok(TaskStats {
            queues: state.queues.iter().map(|(name, queue)| (name.to_string(), length(queue.len()))).collect(),
            oldest: state.oldest(),
            paused: state.queues_with(|queue| queue.is_paused),
            in_turns: state.queues_with(MemoryQueue::has_turns),
            running: state.running.values().map(|attempts| length(attempts.len())).sum(),
            delayed: length(state.delayed.len()),
            parked: state.parked.values().map(|parked| length(parked.len())).sum(),
            batches: length(state.batches.deadlines.len()),
            failed: length(state.failed.len()),
            processed: state.processed,
            workers: state.running.keys().map(ToString::to_string).collect(),
        })
    }

    async fn add_minutes(&self, minutes: &[TaskMinute]) -> Result<(), BackendError> {
        self.jobs().series.add(minutes, self.clock.now_ms());
        Ok(())
    }

    async fn minutes(&self, from: u64, to: u64) -> Result<Vec<TaskMinute>, BackendError> {
        Ok(self.jobs().series.range(from, to))
    }

    async fn running(&self, skip: usize, limit: usize) -> Result<Vec<ListedAttempt>, BackendError> {
        Ok(self.jobs().running(skip, limit))
    }

    async fn waiting(&self, queue: &str, skip: usize, limit: usize) -> Result<Vec<Bytes>, BackendError> {
        Ok(self.jobs().queues.get(queue).map(|queue| queue.texts(skip, limit)).unwrap_or_default())
    }

    async fn failed(&self, skip: usize, limit: usize) -> Result<Vec<Bytes>, BackendError> {
        Ok(self.jobs().failed.iter().skip(skip).take(limit).cloned().collect())
    }

    async fn take_failed(&self, jobs: &[FailedTake]) -> Result<Vec<TakeOutcome>, BackendError> {
        let (now_ms, mut state) = (self.clock.now_ms(), self.jobs());
        let outcomes = jobs.iter().map(|job| state.take_failed(job, now_ms)).collect();
        drop(state);
        self.added.notify_one();
        Ok(outcomes)
    }

    async fn set_paused(&self, queue: &str, is_paused: bool) -> Result<(), BackendError> {
        self.jobs().queues.entry(queue.into()).or_default().is_paused = is_paused;
        if !is_paused {
            self.added.notify_one();
        }
        Ok(())
    }

    async fn risks(&self) -> Vec<String> {
        vec!["jobs are kept in the memory of this process, and end with it: set REDIS_URL to keep them".to_owned()]
    }
}

impl fmt::Debug for MemoryTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryTasks({})", self.jobs().count)
    }
}

#[cfg(test)]
mod tests;
