//! Tasks: functions that run as jobs, at least once, on any node of the cluster.
//!
//! A complete task, as the attribute `#[task]` writes it:
//!
//! ```
//! use phalanx_core::answer::{IntoAnswer, answering};
//! use phalanx_core::params::input_schema;
//! use phalanx_core::task::{
//!     QueueLimits, RetryPolicy, Task, TaskContext, TaskDef, UniquePolicy, check_input, decode_input,
//! };
//! use phalanx_core::{ActionError, Deadline, NoInput};
//!
//! /// Forgets what is too old.
//! async fn clean(ctx: TaskContext, _: NoInput) -> Result<(), ActionError> {
//!     ctx.cache().destroy("old").await?;
//!     Ok(())
//! }
//!
//! struct Clean;
//!
//! impl Task for Clean {
//!     type Input = NoInput;
//!     const DEF: TaskDef = TaskDef {
//!         name: "clean",
//!         description: "Forgets what is too old.",
//!         queue: "default",
//!         retry: RetryPolicy::DEFAULT,
//!         deadline: Deadline::Default,
//!         blocking: false,
//!         exclusive: false,
//!         tracked: false,
//!         limits: QueueLimits::NONE,
//!         fair_by: None,
//!         schedule: None,
//!         unique: UniquePolicy::DEFAULT,
//!         input: input_schema::<NoInput>,
//!         output: <() as IntoAnswer>::schema,
//!         check: check_input::<NoInput>,
//!         require: |_| {},
//!         on_failed: None,
//!         run: |ctx, body| {
//!             answering(async move {
//!                 let input = match body.params(&ctx).await {
//!                     Ok(params) => decode_input(&params)?,
//!                     Err(outcome) => return outcome,
//!                 };
//!                 clean(TaskContext::of(&ctx)?, input).await?.into_answer()
//!             })
//!         },
//!     };
//! }
//! # assert_eq!(Clean::DEF.name, "clean");
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemars::Schema;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::action::{ActionDef, BodyRules, Exposure, OnDisconnect};
use crate::answer::Outcome;
use crate::call::body::CallBody;
use crate::context::Context;
use crate::error::ActionError;
use crate::future::{BoxFuture, Deadline};
use crate::guard::Requirements;
use crate::params::{Input, Params};

pub(crate) mod accepted;
pub(crate) mod attempt;
mod batch;
pub(crate) mod built_in;
mod checkpoint;
mod children;
mod context;
mod control;
pub(crate) mod draft;
mod due;
mod failed;
mod fair;
mod follow_up;
pub(crate) mod handle;
mod members;
mod operations;
pub(crate) mod origin;
mod policy;
mod progress;
mod pulse;
pub(crate) mod quiet;
mod reporting;
mod running;
mod schedule;
mod series;
mod status;
pub(crate) mod unique;
pub(crate) mod wait;

pub use crate::backend::{JobRate, QueueLimits};
pub use attempt::{AttemptFacts, TaskFailure};
pub use batch::{BATCH_DEADLINE, BatchOptions, BatchStatus, JobBatch, MAX_BATCH_DEADLINE};
pub use built_in::RunAction;
pub use checkpoint::MAX_CHECKPOINT_BYTES;
pub use children::{AttemptChildren, MAX_FOLLOW_UP_BYTES, MAX_FOLLOW_UPS};
pub use context::TaskContext;
pub use control::TaskControl;
pub use draft::JobDraft;
pub use due::MAX_DELAY;
pub use handle::{CancelRequest, EnqueueOptions, Enqueued, MAX_JOB_BYTES, MAX_MANY, Tasks};
pub use origin::{JobOrigin, MAX_META_BYTES};
pub use policy::RetryPolicy;
pub use progress::{AttemptProgress, MAX_PROGRESS_BYTES};
pub use pulse::AttemptClock;
pub use running::ActiveAttempt;
pub use schedule::{CatchUp, MIN_INTERVAL, Overlap, Schedule, TickRule, tick_job};
pub use series::TaskSeries;
pub use status::{JobStatus, MAX_RESULT_BYTES};
pub use unique::{UniqueKey, UniquePolicy, UniqueScope, UniqueUntil, computed_key};
pub use wait::MAX_WAITERS;

/// The type that `#[task]` makes beside a function, so that `tasks().enqueue::<name>(..)` knows its input.
pub trait Task: Send + Sync + 'static {
    /// The function's input. That it is an [`Input`] is required where [`TaskDef::input`] reads its schema.
    type Input: 'static;
    /// Its definition.
    const DEF: TaskDef;
}

/// A task as data, for the registry to list and run.
#[derive(Clone, Copy)]
pub struct TaskDef {
    /// Its name, which is stored with each job.
    pub name: &'static str,
    /// The doc comment of the function.
    pub description: &'static str,
    /// The queue of its jobs, unless an enqueue names another.
    pub queue: &'static str,
    /// How often it is attempted.
    pub retry: RetryPolicy,
    /// How long an attempt may run: `tasks.deadline` by default.
    pub deadline: Deadline,
    /// Whether it blocks its thread: it gets one of its own.
    pub blocking: bool,
    /// Whether its attempts end when their node cannot count on its lease, before another node may run the job too.
    pub exclusive: bool,
    /// Whether the value of its function is kept for a day, for [`Tasks::status`].
    pub tracked: bool,
    /// The limits of its queue in the whole cluster: the same for all tasks of the queue.
    pub limits: QueueLimits,
    /// The field of its input by whose values its jobs take turns in their queue.
    pub fair_by: Option<&'static str>,
    /// When jobs of it are enqueued by the clock, without a caller.
    pub schedule: Option<Schedule>,
    /// Which of its jobs are unique.
    pub unique: UniquePolicy,
    /// The schema of its input.
    pub input: fn() -> Schema,
    /// The schema of its value, which is dropped unless the task is tracked.
    pub output: fn() -> Schema,
    /// Decodes and validates an input, at the enqueue.
    pub check: fn(&Params) -> Result<(), ActionError>,
    /// Names the needs of its guards, for the check at boot.
    pub require: fn(&mut Requirements),
    /// Runs after a job failed for good.
    pub on_failed: Option<OnFailed>,
    /// Extracts guards, decodes the input and runs the function.
    pub run: fn(Context, CallBody) -> BoxFuture<'static, Outcome>,
}

/// The function that runs after a job failed for good.
pub type OnFailed = fn(TaskContext, TaskFailure) -> BoxFuture<'static, ()>;

impl TaskDef {
    /// The task as its layers see it: an action that no client reaches.
    pub(crate) const fn as_action(&self) -> ActionDef {
        ActionDef {
            name: self.name,
            version: 1,
            description: self.description,
            routes: &[],
            exposure: Exposure::Internal,
            cross_site: false,
            deadline: self.deadline,
            on_disconnect: OnDisconnect::Finish,
            finish_stream: false,
            limits: Vec::new,
            body: BodyRules::DEFAULT,
            input: self.input,
            output: self.output,
            require: self.require,
            run: self.run,
        }
    }
}

impl fmt::Debug for TaskDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Decodes and validates an input, and drops it.
///
/// # Errors
///
/// `invalid_input` with every fault.
pub fn check_input<T: Input>(params: &Params) -> Result<(), ActionError> {
    params.decode::<T>().map(drop)
}

/// Decodes the input of an attempt. Where that fails, the job is not at fault: it may come from another version of the
/// application.
///
/// # Errors
///
/// One that carries [`TaskControl::Undecodable`], with every fault.
pub fn decode_input<T: Input>(params: &Params) -> Result<T, ActionError> {
    params.decode().map_err(|error| error.with_source(TaskControl::Undecodable))
}

impl Tasks {
    /// Enqueues a job of a task, which runs as soon as a node is free.
    ///
    /// ```
    /// # use phalanx_core::task::{Task, Tasks};
    /// # use phalanx_core::ActionError;
    /// async fn twice<T: Task<Input: serde::Serialize + Clone>>(tasks: &Tasks, input: T::Input) -> Result<(), ActionError> {
    ///     tasks.enqueue::<T>(input.clone()).await?;
    ///     tasks.enqueue::<T>(input).await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Tasks::enqueue_named`].
    pub async fn enqueue<T>(&self, input: T::Input) -> Result<Enqueued, ActionError>
    where
        T: Task,
        T::Input: Serialize,
    {
        self.enqueue_with::<T>(input, EnqueueOptions::new()).await
    }

    /// Enqueues a job that is due at this Unix time in milliseconds; a past one means now.
    ///
    /// # Errors
    ///
    /// Those of [`Tasks::enqueue_named`].
    pub async fn enqueue_at<T>(&self, input: T::Input, at_ms: u64) -> Result<Enqueued, ActionError>
    where
        T: Task,
        T::Input: Serialize,
    {
        self.enqueue_with::<T>(input, EnqueueOptions::new().at_ms(at_ms)).await
    }

    /// Enqueues a job that is due after this time, [`MAX_DELAY`] at most.
    ///
    /// # Errors
    ///
    /// Those of [`Tasks::enqueue_named`].
    pub async fn enqueue_in<T>(&self, input: T::Input, delay: Duration) -> Result<Enqueued, ActionError>
    where
        T: Task,
        T::Input: Serialize,
    {
        self.enqueue_with::<T>(input, EnqueueOptions::new().delay(delay)).await
    }

    /// Enqueues a job in another way than its task's own.
    ///
    /// # Errors
    ///
    /// Those of [`Tasks::enqueue_named`].
    pub async fn enqueue_with<T>(&self, input: T::Input, options: EnqueueOptions) -> Result<Enqueued, ActionError>
    where
        T: Task,
        T::Input: Serialize,
    {
        self.enqueue_raw(T::DEF.name, encode(&input)?, options).await
    }

    /// Enqueues many jobs of one task, [`MAX_MANY`] at most, and returns their ids in order; for one whose unique key another
    /// job has, that job's. All are checked before the
    /// first is stored; then they are stored in chunks of 500 jobs or 1 MiB, each at once or not at all.
    ///
    /// # Errors
    ///
    /// Those of [`Tasks::enqueue_named`]. If chunks were stored before one failed, the message says how many jobs.
    pub async fn enqueue_many<T>(
        &self,
        inputs: impl IntoIterator<Item = T::Input>,
        options: &EnqueueOptions,
    ) -> Result<Vec<Arc<str>>, ActionError>
    where
        T: Task,
        T::Input: Serialize,
    {
        let inputs = inputs.into_iter().take(MAX_MANY + 1).map(|input| encode(&input));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        self.enqueue_all_raw(T::DEF.name, inputs, options).await
    }
}

fn encode<T: Serialize>(input: &T) -> Result<Box<RawValue>, ActionError> {
    serde_json::value::to_raw_value(input).map_err(ActionError::internal)
}

/// Lists tasks for `App::tasks`: `tasks![send_mail, reports::monthly]`.
#[macro_export]
macro_rules! tasks {
    ($($task:path),* $(,)?) => {
        [$(<$task as $crate::task::Task>::DEF),*]
    };
}

#[cfg(test)]
mod tests;
