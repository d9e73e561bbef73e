//! Attempts of tasks: everything that a worker uses of a node.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::Instrument;

use super::Engine;
use super::hooks::catch;
use crate::answer::Outcome;
use crate::backend::{Clock, TaskStore};
use crate::call::body::CallBody;
use crate::caller::Caller;
use crate::context::{Context, NewCall};
use crate::dispatch::with_layers;
use crate::event::Event;
use crate::future::BoxFuture;
use crate::id::RequestId;
use crate::job::AttemptOutcome;
use crate::layer::Call;
pub use crate::lease_state::LossSigns;
use crate::params::Params;
use crate::registry::RegisteredTask;
use crate::task::{AttemptFacts, CancelRequest, TaskContext, TaskFailure};

/// Most requests to cancel attempts that wait for the worker.
const CANCEL_REQUESTS: usize = 1024;

/// An attempt that is ready to run.
pub struct StartedAttempt {
    /// Layers, guards, input, function. A poll may panic, and the drop.
    pub run: BoxFuture<'static, Outcome>,
    /// The attempt.
    pub facts: Arc<AttemptFacts>,
}

impl std::fmt::Debug for StartedAttempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StartedAttempt").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Engine {
    /// The store of jobs, if the backend has one.
    pub fn task_store(&self) -> Option<&Arc<dyn TaskStore>> {
        self.node().tasks().parts.store.as_ref()
    }

    /// The time, as nodes agree on it.
    pub fn clock(&self) -> &dyn Clock {
        &*self.parts().clock
    }

    /// How often the backend may have lost the attempts of this node.
    pub fn loss_signs(&self) -> LossSigns {
        self.parts().lease.loss_signs()
    }

    /// The requests to cancel attempts that this node runs. A second call takes them from the first.
    pub fn task_cancellations(&self) -> mpsc::Receiver<CancelRequest> {
        let (sender, receiver) = mpsc::channel(CANCEL_REQUESTS);
        *self.node().tasks().worker() = Some(sender);
        receiver
    }

    /// Whether an operator wants this node to fetch no jobs.
    pub fn task_quiet(&self) -> watch::Receiver<bool> {
        self.node().tasks().parts.quiet.subscribe()
    }

    /// Prepares an attempt. Nothing of it runs before it is polled.
    pub fn start_attempt(&self, task: &RegisteredTask, facts: Arc<AttemptFacts>, input: Params) -> StartedAttempt {
        let context = self.attempt_context(task, facts.clone(), input, (facts.clock.started(), facts.clock.limit()));
        let call = Call { action: task.action, context, body: CallBody::absent() };
        let (run, span) = (with_layers(self, call), facts.origin.span(task.def.name, &facts.id));
        let run = if span.is_none() { run } else { Box::pin(run.instrument(span)) };
        StartedAttempt { run, facts }
    }

    /// Runs the function that a task has for jobs that failed for good, for `limit` at most. Its panic is counted and logged.
    pub async fn run_on_failed(
        &self,
        task: &RegisteredTask,
        facts: Arc<AttemptFacts>,
        failure: TaskFailure,
        limit: Duration,
    ) {
        let Some(on_failed) = task.def.on_failed else { return };
        let context = self.attempt_context(task, facts, Params::default(), (Instant::now(), Some(limit)));
        let Ok(context) = TaskContext::of(&context) else { return };
        let running = async move { tokio::time::timeout(limit, on_failed(context, failure)).await };
        if let Ok(Err(_)) = catch(running).await {
            tracing::warn!(task = task.def.name, ?limit, "on_failed did not end in time");
        }
    }

    /// Notifies observers of the end of an attempt.
    pub fn notify_attempt_ended(&self, task: &'static str, id: Arc<str>, outcome: AttemptOutcome, took: Duration) {
        self.registry().observers.notify(&Event::AttemptEnded { task, id, outcome, took });
    }

    /// How long an attempt of a task may take without a heartbeat.
    pub fn attempt_limit(&self, task: &RegisteredTask) -> Option<Duration> {
        task.limit(self.config())
    }

    fn attempt_context(
        &self,
        task: &RegisteredTask,
        facts: Arc<AttemptFacts>,
        head: Params,
        (started, limit): (Instant, Option<Duration>),
    ) -> Context {
        Context::new(NewCall {
            host: self.clone().into_parts(),
            name: task.def.name,
            version: 1,
            caller: Caller::application(),
            id: facts.origin.request.clone().map_or_else(|| self.next_request_id(), RequestId::Given),
            uri: None,
            head,
            started,
            limit,
            attempt: Some(facts),
            gate: None,
        })
    }
}
