//! The engine of a node: everything that transports and the node's own tasks use, and that actions cannot reach.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use http::HeaderMap;

use crate::backend::{Bus, Clock, Membership, TaskStore};
use crate::config::Config;
use crate::connection::{Attributes, SocketSession};
use crate::connections::ConnectionRegistry;
use crate::context::CallHost;
use crate::error::{ActionError, ErrorKind};
use crate::files::PublicFiles;
use crate::health::Health;
use crate::hooks::{ConnectDecision, ConnectRequest};
use crate::id::{ConnectionId, NodeIdentity, RequestId, random_text};
use crate::initializer::Initializer;
use crate::lease::LeaseParts;
use crate::lease_state::LeaseState;
use crate::metrics::NodeMetrics;
use crate::node::Node;
use crate::rate_limit::RateLimits;
use crate::registry::Registry;
use crate::remote::{CallServer, RemoteCalls};
use crate::rooms::Rooms;
use crate::shutdown::Shutdown;
use crate::tags::Tags;
use crate::topics::Topics;
use crate::transport::Transport;

mod assemble;
pub mod attempts;
mod delivery;
pub mod guest;
mod hooks;
pub mod lifecycle;
mod methods;
pub mod registration;
mod sessions;
pub mod setup;
mod tags;

use hooks::HookRunner;

/// Returns the host of calls, unless its node has stopped.
fn running(host: &Weak<dyn CallHost>) -> Result<Arc<dyn CallHost>, ActionError> {
    host.upgrade().ok_or_else(|| ActionError::of(ErrorKind::Unavailable, "the node has stopped"))
}

/// A running node, as transports and the node's own tasks use it. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<EngineParts>);

pub(crate) struct EngineParts {
    node: Node,
    identity: Arc<NodeIdentity>,
    config: Arc<Config>,
    registry: Arc<Registry>,
    limits: RateLimits,
    connections: Arc<ConnectionRegistry>,
    rooms: Rooms,
    calls: Arc<RemoteCalls>,
    call_server: CallServer,
    tags: Tags,
    topics: Topics,
    files: Arc<PublicFiles>,
    hooks: Arc<HookRunner>,
    lease: Arc<LeaseState>,
    health: Arc<Health>,
    bus: Arc<dyn Bus>,
    tasks: Option<Arc<dyn TaskStore>>,
    clock: Arc<dyn Clock>,
    membership: Arc<dyn Membership>,
    metrics: Arc<NodeMetrics>,
    shutdown: Shutdown,
    started_at: u64,
    /// The initializers that were started, and are to be stopped.
    started: Mutex<Vec<Arc<dyn Initializer>>>,
    transports: Vec<Arc<dyn Transport>>,
}

impl Engine {
    /// The author's handle on this node.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// The node's settings.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The application's definitions.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// The files that every client may read.
    pub fn files(&self) -> &PublicFiles {
        &self.0.files
    }

    /// The request to stop, and the tasks that a stop waits for.
    pub fn shutdown(&self) -> &Shutdown {
        &self.0.shutdown
    }

    /// A connection id that names this node as its owner.
    pub fn new_connection_id(&self) -> ConnectionId {
        self.0.identity.new_connection_id()
    }

    /// A fingerprint for a browser that has none.
    pub fn new_fingerprint(&self) -> String {
        random_text::<32>()
    }

    /// A name for the next request.
    pub fn next_request_id(&self) -> RequestId {
        self.0.identity.next_request_id()
    }

    /// How long a hook may delay a connection. Also where actions have no deadline.
    pub fn hook_deadline(&self) -> Duration {
        self.0.hooks.deadline()
    }

    fn lease_parts(&self) -> LeaseParts {
        let parts = &*self.0;
        LeaseParts {
            membership: parts.membership.clone(),
            bus: parts.bus.clone(),
            tasks: parts.tasks.clone(),
            clock: parts.clock.clone(),
            identity: parts.identity.clone(),
            state: parts.lease.clone(),
            rooms: parts.rooms.clone(),
            sessions: parts.node.session_parts().clone(),
            connections: parts.connections.clone(),
            calls: parts.calls.clone(),
            observers: parts.registry.observers.clone(),
            shutdown: parts.shutdown.clone(),
            roles: parts.config.active_roles().collect(),
            started_at: parts.started_at,
        }
    }

    /// Whether the application has sessions.
    pub fn has_sessions(&self) -> bool {
        self.0.registry.session_type.is_some()
    }

    /// The session that an upgrade names, by a cookie that counts or by a token; `None` if there is none.
    ///
    /// # Errors
    ///
    /// `unauthenticated` for one that was renewed; `unavailable` if the backend does not answer.
    pub async fn session_of_upgrade(
        &self,
        headers: &HeaderMap,
        counts_cookie: bool,
    ) -> Result<Option<Box<SocketSession>>, ActionError> {
        let sessions = self.node().session_parts();
        let session = sessions.of_upgrade(sessions.sent(headers, counts_cookie)).await?;
        Ok(session.map(|(key, user)| Box::new(SocketSession::new(key, user))))
    }

    /// Runs the `before_connect` hooks: may this client connect?
    ///
    /// # Errors
    ///
    /// The error of the first hook that refuses; `timeout` if they do not decide within `general.action_deadline`.
    pub async fn run_connect_hooks(&self, request: ConnectRequest) -> Result<ConnectDecision, ActionError> {
        let attributes = Attributes::limited(self.config().websocket.max_attributes.as_u64() as usize);
        self.0.hooks.run_connect(request, attributes).await
    }

    /// Runs code that may panic because the application's does; the panic is counted and logged.
    ///
    /// # Errors
    ///
    /// `internal` if it panicked.
    pub async fn catch<T>(&self, future: impl Future<Output = T>) -> Result<T, ActionError> {
        hooks::catch(future).await
    }

    /// Runs such code that must not wait; `None` if it panicked.
    pub fn catch_in_place<T>(&self, code: impl FnOnce() -> T) -> Option<T> {
        hooks::catch_in_place(code)
    }

    /// Adds or removes a reason for which the node is not ready.
    pub fn set_problem(&self, problem: &'static str, is_there: bool) {
        self.0.health.set_part(problem, is_there);
    }

    pub(crate) fn parts(&self) -> &EngineParts {
        &self.0
    }

    pub(crate) fn into_parts(self) -> Arc<EngineParts> {
        self.0
    }

    pub(crate) fn from_parts(parts: Arc<EngineParts>) -> Self {
        Self(parts)
    }

    pub(crate) fn rooms(&self) -> &Rooms {
        &self.0.rooms
    }
}

impl EngineParts {
    #[cfg(test)]
    pub(crate) async fn run_guarded(&self, hook: impl Future<Output = ()>) {
        self.hooks.run_guarded("test", || "its subject".to_owned(), hook).await;
    }

    pub(crate) fn limits(&self) -> &RateLimits {
        &self.limits
    }

    /// The actions and tasks of the application.
    pub(crate) fn definitions(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn author_handle(&self) -> &Node {
        &self.node
    }

    pub(crate) fn next_request(&self) -> RequestId {
        self.identity.next_request_id()
    }

    /// The addresses that transports listen on, by their names.
    pub(crate) fn listen_addrs(&self) -> BTreeMap<String, SocketAddr> {
        let bound = self.transports.iter().filter_map(|it| Some((it.name().to_owned(), it.listen_addr()?)));
        bound.collect()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({}, {})", self.0.identity.node_id, self.0.identity.generation())
    }
}
