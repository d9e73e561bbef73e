//! Follow-on jobs: those that an attempt enqueues by its success.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::handle::{EnqueueOptions, Tasks, invalid};
use super::{Task, encode};
use crate::error::{ActionError, ErrorKind};

impl Tasks {
    /// Enqueues a job of a task in the step that settles this job as done: all jobs that it says so of, or, if the attempt ends in
    /// another way, none. The next attempt says it again. Returns the id that the job will have.
    ///
    /// # Errors
    ///
    /// Those of [`Tasks::after_named`].
    pub async fn after<T>(&self, input: T::Input) -> Result<Arc<str>, ActionError>
    where
        T: Task,
        T::Input: Serialize,
    {
        self.after_with::<T>(input, EnqueueOptions::new()).await
    }

    /// The same in another way than the task's own.
    ///
    /// # Errors
    ///
    /// Those of [`Tasks::after_named`].
    pub async fn after_with<T>(&self, input: T::Input, options: EnqueueOptions) -> Result<Arc<str>, ActionError>
    where
        T: Task,
        T::Input: Serialize,
    {
        self.after_raw(T::DEF.name, encode(&input)?, options).await
    }

    /// The same by the name of the task, with JSON. A job whose unique key another one has by then is not stored.
    ///
    /// # Errors
    ///
    /// Those of [`Tasks::enqueue_named`] that need no answer of the backend; `conflict` with the code `no_attempt` outside of a job;
    /// `invalid_input` for an id, which follows from this job's; `payload_too_large` for more than [`MAX_FOLLOW_UPS`](super::MAX_FOLLOW_UPS) jobs or
    /// [`MAX_FOLLOW_UP_BYTES`](super::MAX_FOLLOW_UP_BYTES).
    pub async fn after_named(
        &self,
        task: &str,
        input: &Value,
        options: EnqueueOptions,
    ) -> Result<Arc<str>, ActionError> {
        self.after_raw(task, serde_json::value::to_raw_value(input).map_err(ActionError::internal)?, options).await
    }

    async fn after_raw(
        &self,
        task: &str,
        input: Box<RawValue>,
        options: EnqueueOptions,
    ) -> Result<Arc<str>, ActionError> {
        let Some(attempt) = &self.attempt else {
            return Err(ActionError::new(ErrorKind::Conflict, "no_attempt", "only a job has follow-on jobs"));
        };
        if options.has_id() {
            return Err(invalid("id", "the id of a follow-on job is made of that of its job"));
        }
        attempt.children.follow(self.prepare(task, input, &options, self.hooks_until()).await?)
    }
}
