//! The author's handle on a running node.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::Clock;
use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::config::{Config, Environment};
use crate::health::Health;
use crate::id::{Generation, NodeIdentity};
use crate::lease_state::LeaseState;
use crate::locks::Locks;
use crate::remote::Connections;
use crate::rooms::Rooms;
use crate::session::parts::SessionParts;
use crate::shutdown::Shutdown;
use crate::states::States;
use crate::task::handle::Tasks;
use crate::topics::Topics;

/// A running node, as actions, hooks and initializers use it. Cheap to clone.
///
/// ```
/// use phalanx_core::config::Config;
/// use phalanx_core::{ActionError, Engine, Node, NodeSetup};
///
/// /// Publishes to the room of this node's own news.
/// async fn announce(node: &Node, news: &str) -> Result<(), ActionError> {
///     let room = format!("news:{}", node.id());
///     if !node.rooms().exists(&room).await? {
///         node.rooms().create(&room).await?;
///     }
///     node.rooms().say(&room, news).await
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::start(NodeSetup::new("docs", Config::default())).await?;
/// announce(engine.node(), "it runs").await?;
/// assert_eq!(engine.node().rooms().list().await?, ["news:node"]);
/// # engine.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Node(Arc<NodeParts>);

pub(crate) struct NodeParts {
    pub(crate) identity: Arc<NodeIdentity>,
    pub(crate) environment: Environment,
    pub(crate) config: Arc<Config>,
    pub(crate) states: Arc<States>,
    pub(crate) rooms: Rooms,
    pub(crate) connections: Connections,
    pub(crate) cache: Cache,
    pub(crate) locks: Locks,
    pub(crate) topics: Topics,
    pub(crate) cluster: Cluster,
    pub(crate) tasks: Tasks,
    pub(crate) sessions: Arc<SessionParts>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lease: Arc<LeaseState>,
    pub(crate) health: Arc<Health>,
    pub(crate) started: Instant,
    pub(crate) shutdown: Shutdown,
}

impl Node {
    pub(crate) fn new(parts: NodeParts) -> Self {
        Self(Arc::new(parts))
    }

    /// The application's name.
    pub fn app(&self) -> &str {
        &self.0.identity.app
    }

    /// The application's version.
    pub fn version(&self) -> &str {
        &self.0.identity.version
    }

    /// The node's name for people and logs.
    pub fn id(&self) -> &str {
        &self.0.identity.node_id
    }

    /// The name of this run of the node in the cluster. A node that finds itself reaped takes a new one.
    pub fn generation(&self) -> Generation {
        self.0.identity.generation()
    }

    /// The rooms of the cluster.
    pub fn rooms(&self) -> &Rooms {
        &self.0.rooms
    }

    /// The connections of the cluster.
    pub fn connections(&self) -> &Connections {
        &self.0.connections
    }

    /// The cache that nodes share.
    pub fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// The locks that nodes share.
    pub fn locks(&self) -> &Locks {
        &self.0.locks
    }

    /// The nodes that run the application together.
    pub fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    /// The task queue.
    pub fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    /// The sessions of users, without a call that asks.
    pub(crate) fn session_parts(&self) -> &Arc<SessionParts> {
        &self.0.sessions
    }

    /// The application's own messages between nodes.
    pub fn topics(&self) -> &Topics {
        &self.0.topics
    }

    /// The node's settings.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The environment that the node runs in: `development`, `test`, `production`, ….
    pub fn environment(&self) -> &Environment {
        &self.0.environment
    }

    /// Whether the cookies of the application are `Secure` unless they say otherwise: with `web.tls_in_front`, and in every
    /// environment but `development` and `test`. It is decided at boot and never by a request, so that no proxy and no client
    /// can change it.
    pub fn has_secure_cookies(&self) -> bool {
        has_secure_cookies(&self.0.config, &self.0.environment)
    }

    /// Completes when the node begins to drain: an answer without an end should come to one. Cancel-safe.
    pub async fn stopping(&self) {
        self.0.shutdown.draining().await;
    }

    /// The state of that type, if the application has one.
    pub fn state<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.states.get()
    }

    /// How long the node has been running.
    pub fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Unix time in milliseconds, as the nodes of the cluster agree on it.
    pub fn now_ms(&self) -> u64 {
        self.0.clock.now_ms()
    }

    /// The reasons for which the node does not serve; empty when it is ready. One is `not in the cluster`: the node is
    /// [fenced](Self::is_fenced), and `admin.ready_needs_cluster` is set.
    pub fn health(&self) -> Vec<String> {
        let mut problems = self.0.health.problems();
        if problems.is_empty() && self.0.config.admin.ready_needs_cluster && self.is_fenced() {
            problems.push("not in the cluster".to_owned());
        }
        problems
    }

    /// Whether this node must not count on its lease: for 4 s no renewal was confirmed.
    pub fn is_fenced(&self) -> bool {
        self.0.lease.is_fenced()
    }
}

/// Whether cookies are `Secure` by these settings.
pub(crate) fn has_secure_cookies(config: &Config, environment: &Environment) -> bool {
    config.web.tls_in_front || !environment.is_local()
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({}, {})", self.id(), self.generation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::engine::setup::NodeSetup;

    #[tokio::test]
    async fn cookies_are_secure_by_the_environment_and_by_tls_in_front() {
        for (environment, tls_in_front, expected) in [
            ("development", false, false),
            ("test", false, false),
            ("test", true, true),
            ("staging", false, true),
            ("production", false, true),
        ] {
            let mut setup = NodeSetup::new("app", Config::default());
            setup.environment = Environment(environment.to_owned());
            setup.config.web.tls_in_front = tls_in_front;
            let engine = Engine::start(setup).await.unwrap();
            assert_eq!(engine.node().has_secure_cookies(), expected, "{environment} {tls_in_front}");
            engine.stop().await;
        }
    }
}
