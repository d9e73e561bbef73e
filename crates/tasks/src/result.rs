//! The result of a tracked task.

use bytes::Bytes;
use phalanx_core::answer::{Answer, Content};
use phalanx_core::backend::ResultMissing;
use phalanx_core::bound_reached;
use phalanx_core::task::MAX_RESULT_BYTES;
use serde_json::value::RawValue;
use tracing::warn;

/// The JSON of the value that a function returned, or why it cannot be kept: the job is done all the same.
pub(crate) type TaskResult = Result<Bytes, ResultMissing>;

/// The result of an answer.
pub(crate) fn of(answer: &Answer, job: &str) -> TaskResult {
    if matches!(answer.content, Content::Body(_)) {
        warn!(job, "the value of a tracked job is a body, and is not kept");
        return Err(ResultMissing::NotJson);
    }
    let value: Box<RawValue> = answer.decode().map_err(|_| ResultMissing::NotJson)?;
    if value.get().len() > MAX_RESULT_BYTES {
        bound_reached("task_result");
        warn!(job, bytes = value.get().len(), "the result of a job is too large, and is not kept");
        return Err(ResultMissing::TooLarge);
    }
    Ok(Bytes::from(Box::<str>::from(value).into_boxed_bytes()))
}
