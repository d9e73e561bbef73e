//! `on_failed`, which a task runs when a job has failed for good: after the job's last attempt, or where it failed in none.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use phalanx_core::Generation;
use phalanx_core::backend::{AttemptKey, BackendError};
use phalanx_core::job::{FailedJob, JobText};
use phalanx_core::task::{AttemptChildren, AttemptClock, AttemptFacts, AttemptProgress, JobOrigin, TaskFailure};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::run::WorkerLoop;
use crate::served::ServedTask;

/// The longest run of a task's `on_failed`.
const ON_FAILED: Duration = Duration::from_secs(30);

/// Runs of it on a node beyond which it takes no failures of others.
const AT_ONCE: usize = 100;

impl WorkerLoop {
    /// The facts of an attempt of a job with this text.
    pub(crate) fn facts(
        &mut self,
        generation: Generation,
        key: AttemptKey,
        task: &ServedTask,
        read: &JobText<'_>,
        (now, now_us): (Instant, u64),
    ) -> Arc<AttemptFacts> {
        // Follows the clock that nodes share, as the tokens of locks do, so that it also rises from one node to the next.
        let fence = now_us.max(self.last_fence + 1);
        self.last_fence = fence;
        Arc::new(AttemptFacts {
            id: read.id.as_deref().map_or_else(|| format!("{generation}-{}", key.token).into(), Arc::from),
            key,
            generation,
            fence,
            tick_ms: read.tick,
            enqueued_at_ms: read.enqueued_at,
            batch: read.batch_id().map(Arc::from),
            origin: JobOrigin::read(read.meta.as_ref()),
            cancelled: CancellationToken::new(),
            lease_lost: self.lease.clone(),
            clock: AttemptClock::start(now, self.engine.attempt_limit(task)),
            progress: AttemptProgress::default(),
            is_foreign: read.id.is_none(),
            has_checkpoint: false.into(),
            children: AttemptChildren::default(),
            taken: false.into(),
        })
    }

    /// Runs `on_failed`, if the task has one.
    pub(crate) fn run_on_failed(&self, task: Arc<ServedTask>, facts: Arc<AttemptFacts>, failure: TaskFailure) {
        if task.def.on_failed.is_some() {
            // Nothing would store them: the attempt is settled, or there was none.
            drop(facts.children.close());
            let engine = self.engine.clone();
            let running = async move { engine.run_on_failed(&task, facts, failure, ON_FAILED).await };
            self.after_failures.spawn_on(running, &self.runtime);
        }
    }

    /// How many failures of others this node may take.
    pub(crate) fn free_for_failures(&self) -> usize {
        AT_ONCE.saturating_sub(self.after_failures.len())
    }

    /// Jobs of this node's tasks failed in no attempt.
    pub(crate) fn on_unattended(&mut self, result: Result<Vec<Bytes>, BackendError>) {
        let records = result.unwrap_or_else(|error| {
            warn!(%error, "jobs that failed in no attempt are not known");
            Vec::new()
        });
        for record in records {
            let failed = FailedJob::read(&record);
            let text = Bytes::from(failed.payload.get().to_owned());
            let Some(task) = self.tasks.get(&*failed.task).cloned() else { continue };
            let Some(read) = JobText::read(&text) else { continue };
            let now_us = self.engine.clock().now_us();
            let token = self.tokens.take(1, now_us).start;
            let key = AttemptKey { token, queue: failed.queue.as_str().into(), counters: failed.counters };
            let facts = self.facts(self.engine.node().generation(), key, &task, &read, (Instant::now(), now_us));
            warn!(task = task.def.name, job = %facts.id, cause = failed.error, "a job failed for good, in no attempt");
            let failure = TaskFailure::new(failed.exception, failed.error, failed.counters.attempts, text.clone());
            self.run_on_failed(task, facts, failure);
        }
    }
}
