//! Jobs as clients see them: the answer to a request that started one, and its status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The answer 202 to a request that started a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AcceptedJob {
    /// The job's id.
    pub id: String,
    /// The path of its status, which is also in the header `location`.
    pub status: String,
}

/// The status of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobView {
    /// `waiting`, `delayed`, `running`, `done`, `failed`, `dropped` or `unknown`.
    pub state: String,
    /// The node that runs it, or whose attempt reported last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The number of that attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The progress that it reported last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Value>,
    /// The value that it returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why it is done without one: `too_large` or `not_json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_missing: Option<String>,
}
