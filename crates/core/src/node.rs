//! A node: the handle over everything that one process is made of.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, timeout};
use tracing::{error, warn};

use crate::backend::{Backend, Bus, Clock, Foreign, Membership, NodeRecord, RoomStore};
use crate::cache::Cache;
use crate::calls::Calls;
use crate::cluster::{Cluster, Topics};
use crate::config::{Config, Environment};
use crate::connection::{CloseReason, ConnectionId};
use crate::connections::{self, Connections};
use crate::context::RequestId;
use crate::dispatch::panicked;
use crate::error::ActionError;
use crate::event::Event;
use crate::files::PublicFiles;
use crate::hooks::Handshake;
use crate::initializer::Initializer;
use crate::lease::Lease;
use crate::locks::Locks;
use crate::metrics::NodeMetrics;
use crate::registry::{Definitions, Registry};
use crate::rooms::{self, Rooms};
use crate::shutdown::Shutdown;
use crate::transport::Transport;

mod generation;
mod lifecycle;

use generation::Names;

pub use generation::Generation;
pub use lifecycle::{StartError, Stopped};

/// Everything a node is started from.
#[derive(Debug)]
pub struct Setup {
    /// The application's name.
    pub app: String,
    /// The application's version.
    pub version: String,
    /// Names the node for people and logs.
    pub node_id: String,
    /// Its settings.
    pub config: Config,
    /// The world it lives in.
    pub environment: Environment,
    /// What the application is made of.
    pub definitions: Definitions,
    /// What is made ready before the first call.
    pub initializers: Vec<Arc<dyn Initializer>>,
    /// How clients reach it.
    pub transports: Vec<Arc<dyn Transport>>,
    /// Where it keeps what nodes share.
    pub backend: Backend,
    /// Who is asked to stop: also while the node starts.
    pub shutdown: Shutdown,
}

/// A running node: the handle that actions, hooks and transports hold. Cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Parts>);

struct Parts {
    app: String,
    version: String,
    id: String,
    names: Names,
    environment: Environment,
    config: Config,
    registry: Registry,
    connections: connections::Table,
    rooms: rooms::Table,
    files: PublicFiles,
    cache: Cache,
    locks: Locks,
    membership: Arc<dyn Membership>,
    lease: Lease,
    mends: AtomicBool,
    calls: Calls,
    topics: Topics,
    bus: Arc<dyn Bus>,
    room_store: Arc<dyn RoomStore>,
    foreign: Option<Arc<dyn Foreign>>,
    clock: Arc<dyn Clock>,
    metrics: NodeMetrics,
    shutdown: Shutdown,
    started: Instant,
    started_at: u64,
    requests: AtomicU64,
    problems: Mutex<Vec<String>>,
    /// Those that were started, and are to be stopped.
    initializers: Mutex<Vec<Arc<dyn Initializer>>>,
    transports: Vec<Arc<dyn Transport>>,
}

impl Node {
    /// The application's name.
    pub fn app(&self) -> &str {
        &self.0.app
    }

    /// The application's version.
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// Names the node for people and logs.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Names this run of the node in the cluster. A node that finds itself reaped goes on under a new name.
    pub fn generation(&self) -> Generation {
        self.0.names.current()
    }

    /// Whether this node is, or was, that generation.
    pub(crate) fn is_called(&self, generation: Generation) -> bool {
        self.0.names.contains(generation)
    }

    /// Takes a new name. The oldest of many is given up, and so are the sockets that bear it.
    pub(crate) fn rename(&self) -> Generation {
        let generation = Generation::random();
        if let Some(given_up) = self.0.names.add(generation) {
            let all = self.connections().all();
            let theirs = all.iter().filter(|connection| connection.id().owner() == Some(given_up));
            theirs.for_each(|connection| connection.close(CloseReason::NodeStops));
        }
        generation
    }

    /// What the cluster knows of this node.
    pub(crate) fn record(&self) -> NodeRecord {
        NodeRecord {
            generation: self.generation(),
            id: self.0.id.clone(),
            version: self.0.version.clone(),
            started_at: self.0.started_at,
            roles: vec!["web".to_owned()],
            earlier: self.0.names.earlier(),
        }
    }

    /// The nodes that run the application together.
    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.clone())
    }

    /// Whether this node must not count on its lease: for 4 s nobody confirmed a renewal.
    pub fn is_fenced(&self) -> bool {
        self.0.lease.is_fenced()
    }

    /// The node's settings.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The world the node lives in.
    pub fn environment(&self) -> &Environment {
        &self.0.environment
    }

    /// What the application is made of.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// The state of that type, if the application has one.
    pub fn state<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.registry.states.get()
    }

    /// The connections of the cluster.
    pub fn connections(&self) -> Connections {
        Connections::new(self.clone())
    }

    /// The rooms of the cluster.
    pub fn rooms(&self) -> Rooms {
        Rooms::new(self.clone())
    }

    /// The cache that nodes share.
    pub fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// The locks that nodes share.
    pub fn locks(&self) -> &Locks {
        &self.0.locks
    }

    /// The files everybody may read.
    pub fn files(&self) -> &PublicFiles {
        &self.0.files
    }

    /// Who is asked to stop, and what is waited for.
    pub fn shutdown(&self) -> &Shutdown {
        &self.0.shutdown
    }

    /// How long the node has been up.
    pub fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Unix time in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.0.clock.now_ms()
    }

    /// What keeps the node from serving; empty when it is ready.
    pub fn health(&self) -> Vec<String> {
        self.problems().clone()
    }

    /// A connection id that names this node as its owner.
    pub fn new_connection_id(&self) -> ConnectionId {
        ConnectionId::ours(format!("{}-{}", self.generation(), generation::random_text::<22>()))
    }

    /// A fingerprint for a browser that has none.
    pub fn new_fingerprint(&self) -> String {
        generation::random_text::<32>()
    }

    /// A name for a request.
    pub fn next_request(&self) -> RequestId {
        RequestId::Ours(self.generation(), self.0.requests.fetch_add(1, Relaxed))
    }

    /// Asks the application whether a client may connect.
    ///
    /// # Errors
    ///
    /// What the first hook that refuses says; `timeout` if they do not decide within `general.action_deadline`.
    pub async fn ask_connect_hooks(&self, handshake: &mut Handshake) -> Result<(), ActionError> {
        let asked = async {
            for hook in &self.0.registry.connection_hooks {
                self.caught(hook.connect(self, handshake)).await??;
            }
            Ok(())
        };
        let late = || ActionError::of(crate::ErrorKind::Timeout, "the connection was not decided on in time");
        let limit = self.hook_deadline();
        // As in `guarded`.
        self.caught(async move { timeout(limit, asked).await }).await?.unwrap_or_else(|_| Err(late()))
    }

    /// Tells observers what happened. A panic of theirs is counted and logged.
    pub fn tell(&self, event: &Event) {
        for observer in &self.0.registry.observers {
            self.caught_in_place(|| observer.observe(event));
        }
    }

    /// Runs a hook; its panic becomes `internal`, and is counted and logged.
    ///
    /// # Errors
    ///
    /// `internal` if it panicked.
    pub async fn caught<T>(&self, hook: impl Future<Output = T>) -> Result<T, ActionError> {
        let caught = AssertUnwindSafe(hook).catch_unwind().await;
        caught.map_err(|panic| self.hook_panicked(&*panic))
    }

    /// Runs a hook that cannot refuse, at most for `general.action_deadline`.
    pub(crate) async fn guarded(&self, name: &'static str, hook: impl Future<Output = ()>) {
        let limit = self.hook_deadline();
        // The hook is dropped in here when it is late, and what it holds may panic then too.
        if let Ok(Err(_)) = self.caught(async move { timeout(limit, hook).await }).await {
            warn!(name, "a hook did not end in time");
        }
    }

    /// How long a hook may hold up a connection. Also where actions have no deadline.
    pub fn hook_deadline(&self) -> Duration {
        match self.0.config.general.action_deadline {
            Duration::ZERO => Duration::from_secs(30),
            limit => limit,
        }
    }

    /// Runs a hook that must not wait; `None` if it panicked, which is counted and logged.
    pub fn caught_in_place<T>(&self, hook: impl FnOnce() -> T) -> Option<T> {
        catch_unwind(AssertUnwindSafe(hook)).map_err(|panic| self.hook_panicked(&*panic)).ok()
    }

    fn hook_panicked(&self, panic: &(dyn Any + Send)) -> ActionError {
        let refused = panicked(panic);
        self.0.metrics.observers_panicked.increment(1);
        error!(cause = %crate::dispatch::Chain(&refused), "a hook of the application panicked");
        refused
    }

    pub(crate) fn connection_table(&self) -> &connections::Table {
        &self.0.connections
    }

    pub(crate) fn room_table(&self) -> &rooms::Table {
        &self.0.rooms
    }

    pub(crate) fn room_store(&self) -> &dyn RoomStore {
        &*self.0.room_store
    }

    pub(crate) fn membership(&self) -> &dyn Membership {
        &*self.0.membership
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.0.lease
    }

    /// Whether something is to be mended and nobody does yet; from now on somebody does.
    pub(crate) fn begins_mending(&self) -> bool {
        (self.lease().needs_restoring() || self.rooms().need_mending()) && !self.0.mends.swap(true, Relaxed)
    }

    pub(crate) fn ends_mending(&self) {
        self.0.mends.store(false, Relaxed);
    }

    /// Whether others may have found this node dead, and told the leaves of its members.
    pub(crate) fn may_be_found_dead(&self) -> bool {
        self.0.mends.load(Relaxed) || self.lease().needs_restoring() || self.lease().is_fenced()
    }

    pub(crate) fn calls(&self) -> &Calls {
        &self.0.calls
    }

    pub(crate) fn topics(&self) -> &Topics {
        &self.0.topics
    }

    pub(crate) fn bus(&self) -> &dyn Bus {
        &*self.0.bus
    }

    /// Nodes of another make, where the cluster has any.
    pub(crate) fn foreign(&self) -> Option<&dyn Foreign> {
        self.0.foreign.as_deref()
    }

    pub(crate) fn metrics(&self) -> &NodeMetrics {
        &self.0.metrics
    }

    fn problems(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({}, {})", self.0.id, self.generation())
    }
}
