//! The context of an attempt: the first parameter of tasks that need it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::attempt::AttemptFacts;
use super::batch::JobBatch;
use super::control::TaskControl;
use super::handle::Tasks;
use crate::action::Action;
use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::context::Context;
use crate::error::ActionError;
use crate::id::RequestId;
use crate::locks::Locks;
use crate::node::Node;
use crate::remote::Connections;
use crate::rooms::Rooms;

/// One attempt of a job, as its function sees it. Cheap to clone.
#[derive(Clone)]
pub struct TaskContext {
    pub(super) context: Context,
    pub(super) facts: Arc<AttemptFacts>,
}

impl TaskContext {
    /// The context of an attempt, from that of its call.
    ///
    /// # Errors
    ///
    /// `internal` if the call is no attempt.
    pub fn of(context: &Context) -> Result<Self, ActionError> {
        let facts = context.attempt().ok_or_else(|| ActionError::internal("this call is no attempt of a task"))?;
        Ok(Self { context: context.clone(), facts: facts.clone() })
    }

    /// The job's id.
    pub fn id(&self) -> &str {
        &self.facts.id
    }

    /// The name of the task.
    pub fn name(&self) -> &'static str {
        self.context.name()
    }

    /// The queue that the job came from.
    pub fn queue(&self) -> &str {
        &self.facts.key.queue
    }

    /// The number of this attempt, from 1. Attempts of nodes that died, stopped or were cut off do not count.
    pub fn attempt(&self) -> u32 {
        self.facts.key.counters.attempts
    }

    /// How many nodes died while they ran this job.
    pub fn deaths(&self) -> u32 {
        self.facts.key.counters.deaths
    }

    /// A number that rises from one attempt of the job to the next, on whichever node: a service that keeps the highest
    /// one it has seen can refuse requests of an attempt that was taken for dead.
    #[doc(alias = "fencing token")]
    pub fn fence(&self) -> u64 {
        self.facts.fence
    }

    /// The tick that the job is of, Unix time in milliseconds; `None` if it was not enqueued by the schedule of its task. The
    /// job may begin later, and run again: a task about "the last hour" should count from here.
    pub fn tick_ms(&self) -> Option<u64> {
        self.facts.tick_ms
    }

    /// The batch that the job is a member of, or whose completion it is.
    pub fn batch(&self) -> Option<JobBatch> {
        self.facts.batch.clone().map(|id| self.tasks().batch(id))
    }

    /// The request in which the job was enqueued, or an id of its own. Jobs that this one enqueues carry it on.
    pub fn request(&self) -> &RequestId {
        self.context.id()
    }

    /// The trace of that request, in the form of W3C (`traceparent`). Jobs that this one enqueues carry it on.
    pub fn traceparent(&self) -> Option<&str> {
        self.facts.origin.traceparent.as_deref()
    }

    /// A value that the enqueue gave to the job, or to one that enqueued it.
    pub fn meta(&self, name: &str) -> Option<&str> {
        self.facts.origin.values.get(name).map(String::as_str)
    }

    /// When the attempt's time is up, unless [`heartbeat`](Self::heartbeat) moves it.
    pub fn deadline(&self) -> Option<Instant> {
        self.facts.clock.deadline()
    }

    /// Completes when the attempt is to end: its job was deleted, its node stops, or another node has taken the job over.
    /// An attempt that goes on is dropped at its next `await`; one that blocks its thread should look at
    /// [`is_cancelled`](Self::is_cancelled).
    pub async fn cancelled(&self) {
        self.facts.cancelled.cancelled().await;
    }

    /// Whether the attempt is to end.
    pub fn is_cancelled(&self) -> bool {
        self.facts.cancelled.is_cancelled()
    }

    /// Completes when the node has not been able to renew its lease for 4 s: from about a second later on, another node may
    /// run the job too. The attempt goes on, unless its task is `exclusive`.
    pub async fn lease_lost(&self) {
        self.facts.lease_lost.cancelled().await;
    }

    /// The rooms of the cluster.
    pub fn rooms(&self) -> &Rooms {
        self.context.rooms()
    }

    /// The connections of the cluster.
    pub fn connections(&self) -> &Connections {
        self.context.connections()
    }

    /// The cache that nodes share.
    pub fn cache(&self) -> &Cache {
        self.context.cache()
    }

    /// The locks that nodes share.
    pub fn locks(&self) -> &Locks {
        self.context.locks()
    }

    /// The nodes that run the application together.
    pub fn cluster(&self) -> &Cluster {
        self.context.cluster()
    }

    /// The task queue. Jobs that this one enqueues have ids made of its own: another attempt finds them instead of enqueuing them
    /// again, within a day.
    pub fn tasks(&self) -> Tasks {
        self.context.tasks()
    }

    /// The node's settings.
    pub fn config(&self) -> &Config {
        self.context.config()
    }

    /// The node that runs the attempt.
    pub fn node(&self) -> &Node {
        self.context.node()
    }

    /// The context of the call, for guards and layers.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Calls an action within this attempt.
    ///
    /// # Errors
    ///
    /// Those of [`Context::call`].
    pub async fn call<A>(&self, input: A::Input) -> Result<A::Output, ActionError>
    where
        A: Action,
        A::Input: Serialize,
        A::Output: DeserializeOwned,
    {
        self.context.call::<A>(input).await
    }

    /// The error by which an attempt ends to run again after `pause`. It counts as an attempt: after the last one the job
    /// fails.
    pub fn retry_in(&self, pause: Duration) -> ActionError {
        TaskControl::RetryIn(pause).into_error()
    }

    /// The error by which an attempt ends to run after `pause` instead. It does not count as an attempt.
    pub fn snooze(&self, pause: Duration) -> ActionError {
        TaskControl::Snooze(pause).into_error()
    }

    /// The error by which an attempt ends the job as failed, for that reason, whatever attempts are left.
    pub fn cancel(&self, reason: impl Into<String>) -> ActionError {
        TaskControl::Cancel(reason.into()).into_error()
    }

    /// The error by which an attempt ends the job: it neither succeeded nor failed.
    pub fn discard(&self) -> ActionError {
        TaskControl::Discard.into_error()
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext").field("name", &self.name()).field("facts", &self.facts).finish_non_exhaustive()
    }
}
