//! An application's own remote methods: definitions, and typed calls.

use std::fmt;
use std::time::Duration;

use schemars::Schema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::answer::{Answer, IntoAnswer, Outcome, answering};
use crate::call::body::CallBody;
use crate::cluster::{Cluster, NodeReplies, decode};
use crate::context::Context;
use crate::error::ActionError;
use crate::future::{BoxFuture, Deadline};
use crate::guard::Requirements;
use crate::id::ConnectionId;
use crate::params::{Input, input_schema};
use crate::remote::{ApplyError, Connections};

/// The type that `#[remote]` makes beside a function.
pub trait Remote: Send + Sync + 'static {
    /// The method's input; that it is an [`Input`](crate::params::Input) is required where its schema is read.
    type Input: 'static;
    /// Its value on success.
    type Output: IntoAnswer;
    /// Its definition.
    const DEF: RemoteDef;
}

/// A remote method as data. Only what is registered can be called from another node.
#[derive(Clone, Copy)]
pub struct RemoteDef {
    /// Its name.
    pub name: &'static str,
    /// The doc comment of the function.
    pub description: &'static str,
    /// How long a caller waits by default.
    pub deadline: Deadline,
    /// The schema of its input.
    pub input: fn() -> Schema,
    /// The schema of its output.
    pub output: fn() -> Schema,
    /// Names the needs of its guards, for the check at boot.
    pub require: fn(&mut Requirements),
    /// Extracts guards, decodes the input, runs the function and encodes its value.
    pub run: fn(Context, CallBody) -> BoxFuture<'static, Outcome>,
}

impl RemoteDef {
    /// A method that nodes have without the application, for calls without a connection. `run` calls [`run_of_node`].
    pub(crate) const fn of_node<I: Input, O: IntoAnswer>(
        name: &'static str,
        description: &'static str,
        run: fn(Context, CallBody) -> BoxFuture<'static, Outcome>,
    ) -> Self {
        Self {
            name,
            description,
            deadline: Deadline::Default,
            input: input_schema::<I>,
            output: <O as IntoAnswer>::schema,
            require: |_| {},
            run,
        }
    }
}

/// Runs such a method with its input.
pub(crate) fn run_of_node<I: Input, O: Serialize + 'static>(
    ctx: Context,
    body: CallBody,
    method: fn(&Context, I) -> O,
) -> BoxFuture<'static, Outcome> {
    answering(async move {
        let input = match body.params(&ctx).await {
            Ok(params) => params.decode()?,
            Err(outcome) => return outcome,
        };
        Answer::json(&method(&ctx, input))
    })
}

impl fmt::Debug for RemoteDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Connections {
    /// Runs a typed remote method on a connection, wherever it is.
    ///
    /// # Errors
    ///
    /// Those of [`Connections::apply`].
    pub async fn call<R>(&self, id: &ConnectionId, input: R::Input) -> Result<R::Output, ApplyError>
    where
        R: Remote,
        R::Input: Serialize,
        R::Output: DeserializeOwned,
    {
        let input = serde_json::to_value(input).map_err(ActionError::internal)?;
        decode(self.apply(id, R::DEF.name, input).await?)
    }
}

impl Cluster {
    /// Runs a remote method on the node with that id, without a connection.
    ///
    /// # Errors
    ///
    /// [`ApplyError::NotFound`] if there is no such node; otherwise those of [`Connections::apply`].
    pub async fn call<R>(&self, node: &str, input: R::Input) -> Result<R::Output, ApplyError>
    where
        R: Remote,
        R::Input: Serialize,
        R::Output: DeserializeOwned,
    {
        let input = serde_json::to_value(input).map_err(ActionError::internal)?;
        decode(self.call_node(node, R::DEF.name, input).await?)
    }

    /// Runs a remote method on every node at once, without a connection. The call does not fail as a whole: a node that
    /// does not reply within `limit`, at most an hour, is named.
    ///
    /// # Errors
    ///
    /// Only before the call is sent: `unavailable` if the nodes cannot be read, or `cluster.max_calls` calls are pending;
    /// `payload_too_large` if the input is larger than `cluster.max_call`.
    pub async fn call_all<R>(&self, input: R::Input, limit: Duration) -> Result<NodeReplies<R::Output>, ActionError>
    where
        R: Remote,
        R::Input: Serialize,
        R::Output: DeserializeOwned,
    {
        let input = serde_json::to_value(input).map_err(ActionError::internal)?;
        Ok(self.call_nodes(R::DEF.name, input, limit).await?.decoded())
    }
}

/// Lists remote methods for `App::remotes`: `remotes![authorize]`.
#[macro_export]
macro_rules! remotes {
    ($($remote:path),* $(,)?) => {
        [$(<$remote as $crate::Remote>::DEF),*]
    };
}
