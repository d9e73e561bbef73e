//! The task `runAction`, which runs any action, and the remote method by which attempts are cancelled.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use validator::Validate;

use super::operations::CANCEL_METHOD;
use super::{QueueLimits, RetryPolicy, TaskDef, UniquePolicy, check_input, decode_input};
use crate::answer::{IntoAnswer, answering};
use crate::config::TaskSettings;
use crate::error::ActionError;
use crate::future::Deadline;
use crate::params::{Params, input_schema};
use crate::remote_method::{RemoteDef, run_of_node};

/// The input of the task `runAction`.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Validate)]
pub struct RunAction {
    /// The name of the action.
    #[validate(length(min = 1, max = 100))]
    pub action: String,
    /// Its version; without one the newest runs.
    pub version: Option<u32>,
    /// Its input.
    #[serde(default)]
    pub params: HashMap<String, Value>,
}

/// Runs an action as a job: an action that clients cannot reach as well, without a caller. Its answer is dropped.
pub(crate) const RUN_ACTION: TaskDef = TaskDef {
    name: "runAction",
    description: "Runs an action.",
    queue: TaskSettings::DEFAULT_QUEUE,
    retry: RetryPolicy::DEFAULT,
    deadline: Deadline::Default,
    blocking: false,
    exclusive: false,
    tracked: false,
    limits: QueueLimits::NONE,
    fair_by: None,
    schedule: None,
    unique: UniquePolicy::DEFAULT,
    input: input_schema::<RunAction>,
    output: <() as IntoAnswer>::schema,
    check: check_input::<RunAction>,
    require: |_| {},
    on_failed: None,
    run: |ctx, body| {
        answering(async move {
            let params = match body.params(&ctx).await {
                Ok(params) => params,
                Err(outcome) => return outcome,
            };
            let RunAction { action, version, params } = decode_input(&params)?;
            let input: Map<String, Value> = params.into_iter().collect();
            let input: Box<RawValue> = serde_json::value::to_raw_value(&input).map_err(ActionError::internal)?;
            ctx.call_action((&action, version), Params::from_raw_json(input)?).await
        })
    },
};

#[derive(Debug, Deserialize, JsonSchema, Validate)]
struct CancelledJob {
    id: String,
}

/// Cancels the attempts of a job on the node that runs it.
pub(crate) const CANCEL: RemoteDef = RemoteDef::of_node::<CancelledJob, ()>(
    CANCEL_METHOD,
    "Cancels the attempts of a job that was deleted.",
    |ctx, body| run_of_node(ctx, body, |ctx, job: CancelledJob| ctx.node().tasks().cancel_here(&job.id)),
);
