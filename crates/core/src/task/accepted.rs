//! The answer to a request whose work goes on as a job.

use http::StatusCode;
use http::header::{HeaderValue, LOCATION};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::handle::Enqueued;
use crate::action::Action;
use crate::answer::Reply;
use crate::context::Context;
use crate::error::ActionError;
use crate::protocol::AcceptedJob;

/// The characters of an id that are encoded in a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Context {
    /// Answers 202: the work goes on as this job, whose status the action `A` shows at a route for GET. The only parameter in the
    /// path of that route is the job's id.
    ///
    /// ```
    /// # use phalanx_core::{Action, ActionError, Context, Reply};
    /// # use phalanx_core::protocol::AcceptedJob;
    /// # use phalanx_core::task::Task;
    /// async fn export<T: Task<Input: serde::Serialize>, JobStatus: Action>(
    ///     ctx: Context,
    ///     input: T::Input,
    /// ) -> Result<Reply<AcceptedJob>, ActionError> {
    ///     let job = ctx.tasks().enqueue::<T>(input).await?;
    ///     ctx.accepted::<JobStatus>(&job)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// `internal` if the application has no such action, or that no such route.
    pub fn accepted<A: Action>(&self, job: &Enqueued) -> Result<Reply<AcceptedJob>, ActionError> {
        let action = A::DEF;
        let path = self.path_with_id((action.name, Some(action.version)), &job.id).ok_or_else(|| {
            let wanted = "in the application, with a route for GET whose only parameter is the job's id";
            ActionError::internal(format!(
                "the action {}, which shows the status of jobs, is not {wanted}",
                action.name
            ))
        })?;
        let status = [self.config().web.prefix.trim_end_matches('/'), &path].concat();
        let location = HeaderValue::try_from(&status).map_err(ActionError::internal)?;
        let answer = AcceptedJob { id: job.id.to_string(), status };
        Ok(Reply::new(answer).status(StatusCode::ACCEPTED).header(LOCATION, location))
    }
}

/// The path with the id in place of its only parameter.
pub(crate) fn with_id(path: &str, id: &str) -> Option<String> {
    let (before, rest) = path.split_once('{')?;
    let (name, after) = rest.split_once('}')?;
    let is_only = !name.starts_with('*') && !after.contains('{');
    is_only.then(|| format!("{before}{}{after}", utf8_percent_encode(id, SEGMENT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_only_parameter_of_a_path() {
        assert_eq!(with_id("/jobs/{id}", "a").as_deref(), Some("/jobs/a"));
        assert_eq!(with_id("/jobs/{id}/status", "tick@5/é").as_deref(), Some("/jobs/tick%405%2F%C3%A9/status"));
        for path in ["/jobs", "/jobs/{*id}", "/{shop}/jobs/{id}"] {
            assert_eq!(with_id(path, "a"), None, "{path}");
        }
    }
}
