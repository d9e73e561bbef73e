//! Quiet nodes: they fetch no jobs, and finish those that they run.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use validator::Validate;

use super::handle::Tasks;
use crate::error::{ActionError, ErrorKind};
use crate::remote::ApplyError;
use crate::remote_method::{RemoteDef, run_of_node};

/// The remote method by which a node is made quiet, or says whether it is.
const QUIET_METHOD: &str = "phalanx:quietTasks";

/// How long nodes are waited for that are to say whether they are quiet.
const REPLIES: Duration = Duration::from_secs(2);

#[derive(Debug, Deserialize, JsonSchema, Validate)]
struct QuietRequest {
    /// Without it nothing changes.
    quiet: Option<bool>,
}

/// Makes the node quiet, ends that, or only says whether it is.
pub(crate) const QUIET: RemoteDef = RemoteDef::of_node::<QuietRequest, bool>(
    QUIET_METHOD,
    "Stops or resumes the fetching of jobs on a node.",
    |ctx, body| {
        run_of_node(ctx, body, |ctx, request: QuietRequest| {
            let quiet = &ctx.node().tasks().parts.quiet;
            if let Some(wanted) = request.quiet {
                quiet.send_if_modified(|quiet| std::mem::replace(quiet, wanted) != wanted);
            }
            *quiet.borrow()
        })
    },
);

impl Tasks {
    /// Whether this node fetches no jobs because [`Tasks::quiet`] said so.
    pub fn is_quiet(&self) -> bool {
        *self.parts.quiet.borrow()
    }

    /// Makes the node with that id fetch no more jobs; those that it runs go on. Until [`Tasks::end_quiet`], or until that
    /// node is started again. Of several nodes with the id, the one that has run for longest.
    ///
    /// # Errors
    ///
    /// `not_found` if there is no such node, `unknown_method` if it has no tasks or is of an earlier release; `unreachable` if
    /// it is cut off, `late` if it does not answer: then it may be quiet.
    pub async fn quiet(&self, node: &str) -> Result<(), ActionError> {
        self.set_quiet(node, true).await
    }

    /// Makes a quiet node fetch jobs again.
    ///
    /// # Errors
    ///
    /// Those of [`Tasks::quiet`].
    pub async fn end_quiet(&self, node: &str) -> Result<(), ActionError> {
        self.set_quiet(node, false).await
    }

    /// Whether each node of the cluster is quiet, by its id; `None` where it has no tasks, is of an earlier release, or does
    /// not answer.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer.
    pub async fn quiet_nodes(&self) -> Result<BTreeMap<String, Option<bool>>, ActionError> {
        let all = self.parts.cluster.call_nodes(QUIET_METHOD, json!({}), REPLIES).await?;
        let replied = all.replies.into_iter().map(|(node, reply)| (node, reply.ok().as_ref().and_then(Value::as_bool)));
        Ok(replied.chain(all.missing.into_iter().map(|node| (node, None))).collect())
    }

    async fn set_quiet(&self, node: &str, quiet: bool) -> Result<(), ActionError> {
        let called = self.parts.cluster.call_node(node, QUIET_METHOD, json!({ "quiet": quiet })).await;
        called.map(drop).map_err(|error| match error {
            ApplyError::NotFound => ActionError::not_found("no node of the cluster has that id"),
            ApplyError::UnknownMethod => {
                let message = "the node has no tasks, or is of a release that cannot be quiet";
                ActionError::new(ErrorKind::NotFound, "unknown_method", message)
            }
            error => error.into(),
        })
    }
}
