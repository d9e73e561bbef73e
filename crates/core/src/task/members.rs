//! The typed forms of what the handle on a batch does.

use std::sync::Arc;

use serde::Serialize;

use super::batch::{BatchOptions, JobBatch};
use super::handle::{EnqueueOptions, Enqueued};
use super::{Task, encode};
use crate::error::ActionError;

impl BatchOptions {
    /// With a job that is enqueued once all members have ended, or the deadline has passed. It learns of the batch by
    /// [`TaskContext::batch`](super::TaskContext::batch).
    ///
    /// # Errors
    ///
    /// `internal` for an input that is no JSON.
    pub fn completion<T>(mut self, input: T::Input) -> Result<Self, ActionError>
    where
        T: Task,
        T::Input: Serialize,
    {
        self.completion = Some((T::DEF.name, encode(&input)?));
        Ok(self)
    }
}

impl JobBatch {
    /// Enqueues a job of a task as a member.
    ///
    /// # Errors
    ///
    /// Those of [`JobBatch::add_with`].
    pub async fn add<T>(&self, input: T::Input) -> Result<Enqueued, ActionError>
    where
        T: Task,
        T::Input: Serialize,
    {
        self.add_with::<T>(input, EnqueueOptions::new()).await
    }

    /// Enqueues a job as a member in another way than its task's own.
    ///
    /// # Errors
    ///
    /// Those of [`JobBatch::add_named`].
    pub async fn add_with<T>(&self, input: T::Input, options: EnqueueOptions) -> Result<Enqueued, ActionError>
    where
        T: Task,
        T::Input: Serialize,
    {
        self.tasks.enqueue_raw(T::DEF.name, encode(&input)?, options.member_of(&self.id)).await
    }

    /// Enqueues many jobs of one task as members, as [`Tasks::enqueue_many`](super::Tasks::enqueue_many) does.
    ///
    /// # Errors
    ///
    /// Those of [`JobBatch::add_with`]. If chunks were stored before one failed, the message says how many jobs.
    pub async fn add_many<T>(
        &self,
        inputs: impl IntoIterator<Item = T::Input>,
        options: &EnqueueOptions,
    ) -> Result<Vec<Arc<str>>, ActionError>
    where
        T: Task,
        T::Input: Serialize,
    {
        self.tasks.enqueue_many::<T>(inputs, &options.clone().member_of(&self.id)).await
    }
}
