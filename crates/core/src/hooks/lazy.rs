//! The context of hooks, which is made when one asks for it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::caller::Caller;
use crate::connection::Connection;
use crate::context::{CallHost, Context};

/// The context of the hooks of one event: made when the first of them asks for it, then shared, so that what one of them reads
/// of a session is there for the next. Most hooks of messages need none.
#[derive(Clone)]
pub(crate) struct LazyContext(Arc<LazyFacts>);

struct LazyFacts {
    host: Arc<dyn CallHost>,
    name: &'static str,
    /// The connection that the event is of; `None` if it is of the application itself, or of a dead node.
    connection: Option<Connection>,
    limit: Duration,
    made: OnceLock<Context>,
}

impl LazyContext {
    pub(crate) fn new(
        host: Arc<dyn CallHost>,
        name: &'static str,
        connection: Option<Connection>,
        limit: Duration,
    ) -> Self {
        Self(Arc::new(LazyFacts { host, name, connection, limit, made: OnceLock::new() }))
    }

    pub(crate) fn get(&self) -> &Context {
        let LazyFacts { host, name, connection, limit, made } = &*self.0;
        made.get_or_init(|| {
            let caller = match connection {
                Some(connection) => Arc::new(Caller::socket(connection.clone())),
                None => Caller::application(),
            };
            Context::of_hook(host.clone(), name, (caller, host.next_request_id()), Some(*limit))
        })
    }

    pub(crate) fn connection(&self) -> Option<&Connection> {
        self.0.connection.as_ref()
    }
}
