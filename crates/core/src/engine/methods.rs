//! Runs the remote methods of an application.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::hooks::catch;
use crate::answer::{Answer, Content};
use crate::call::body::CallBody;
use crate::caller::Caller;
use crate::connection::Connection;
use crate::context::{CallHost, Context, NewCall};
use crate::error::ActionError;
use crate::future::Deadline;
use crate::id::NodeIdentity;
use crate::params::Params;
use crate::registry::Registry;
use crate::remote::{ApplicationMethods, ApplyError, invalid_args};

/// The remote methods of an application, with the node that they run on.
pub(super) struct MethodRunner {
    registry: Arc<Registry>,
    host: Weak<dyn CallHost>,
    identity: Arc<NodeIdentity>,
}

impl MethodRunner {
    pub(super) const fn new(registry: Arc<Registry>, host: Weak<dyn CallHost>, identity: Arc<NodeIdentity>) -> Self {
        Self { registry, host, identity }
    }
}

#[async_trait]
impl ApplicationMethods for MethodRunner {
    fn deadline(&self, method: &str) -> Deadline {
        self.registry.remote(method).map_or(Deadline::Default, |def| def.deadline)
    }

    async fn run(
        &self,
        connection: Option<Connection>,
        method: &str,
        args: Value,
        deadline: Option<Instant>,
    ) -> Result<Value, ApplyError> {
        let def = self.registry.remote(method).ok_or(ApplyError::UnknownMethod)?;
        let args = match args {
            Value::Null => Value::Object(Map::new()),
            Value::Object(_) => args,
            _ => return Err(invalid_args("", "object", "the arguments must be an object").into()),
        };
        let host = super::running(&self.host)?;
        let text = serde_json::value::to_raw_value(&args).map_err(ActionError::internal)?;
        let caller = Arc::new(connection.map_or_else(Caller::internal, Caller::socket));
        let id = self.identity.next_request_id();
        let (head, started) = (Params::from_raw_json(text)?, Instant::now());
        let limit = deadline.map(|deadline| deadline.saturating_duration_since(started));
        let call = NewCall {
            host,
            name: def.name,
            version: 1,
            caller,
            id,
            uri: None,
            head,
            started,
            limit,
            attempt: None,
            gate: None,
        };
        let answer = catch((def.run)(Context::new(call), CallBody::absent())).await??;
        match answer {
            Answer { content: Content::Json(_), .. } => Ok(answer.decode()?),
            Answer { content: Content::Body(_), .. } => {
                Err(ActionError::internal("a remote method cannot answer a body").into())
            }
        }
    }
}
