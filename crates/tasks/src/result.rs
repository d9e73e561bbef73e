//! The result of a tracked task.

use bytes::Bytes;
use phalanx_core::answer::Answer;
use phalanx_core::bound_reached;
use phalanx_core::task::MAX_RESULT_BYTES;
use serde_json::value::RawValue;
use tracing::warn;

/// The JSON of the value that a function returned; `None` if it cannot be kept: the job is done all the same.
pub(crate) fn of(answer: &Answer, job: &str) -> Option<Bytes> {
    let value: Box<RawValue> = answer.decode().ok()?;
    if value.get().len() > MAX_RESULT_BYTES {
        bound_reached("task_result");
        warn!(job, bytes = value.get().len(), "the result of a job is too large, and is not kept");
        return None;
    }
    Some(Bytes::from(Box::<str>::from(value).into_boxed_bytes()))
}
