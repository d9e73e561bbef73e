//! Puts a node together: each part gets what it needs here, and reaches for nothing later.

use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::hooks::HookRunner;
use super::methods::MethodRunner;
use super::setup::NodeSetup;
use super::{Engine, EngineParts};
use crate::backend::Backend;
use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::connections::ConnectionRegistry;
use crate::context::CallHost;
use crate::files::PublicFiles;
use crate::health::Health;
use crate::id::NodeIdentity;
use crate::lease_state::LeaseState;
use crate::locks::Locks;
use crate::metrics::NodeMetrics;
use crate::node::{Node, NodeParts, has_secure_cookies};
use crate::rate_limit::RateLimits;
use crate::registry::Registry;
use crate::remote::{CallServer, Connections, Executor, RemoteCallParts, RemoteCalls};
use crate::rooms::{RoomParts, Rooms};
use crate::session::parts::SessionParts;
use crate::tags::{TagParts, Tags};
use crate::task::draft::TaskCallbacks;
use crate::task::handle::{TaskParts, Tasks};
use crate::task::wait::MAX_WAITERS;
use crate::topics::Topics;

impl Engine {
    /// Makes the parts of a node, none of which runs yet.
    pub(super) fn assemble(setup: NodeSetup, registry: Registry, started_at: u64) -> Self {
        let Backend {
            cache,
            locks,
            limits,
            membership,
            bus,
            rooms: store,
            tasks: task_store,
            sessions,
            interop,
            clock,
        } = setup.backend;
        let (config, shutdown, registry) = (Arc::new(setup.config), setup.shutdown, Arc::new(registry));
        let identity = Arc::new(NodeIdentity::new(setup.app, setup.version, setup.node_id));
        let (lease, health) = (Arc::new(LeaseState::default()), Arc::new(Health::starting()));
        let connections = Arc::new(ConnectionRegistry::new(config.websocket.max_connections));
        let files = Arc::new(PublicFiles::new(config.paths.public.clone()));
        let metrics = Arc::new(NodeMetrics::new());
        let rates = registry.limits().iter().map(|limit| (limit.name(), limit.rate()));
        let rate_limits = RateLimits::new(rates, limits, clock.clone(), &config.limits);
        let max_bytes = config.cluster.max_call.as_u64();
        let topics = Topics::new(bus.clone(), max_bytes);
        let is_secure = has_secure_cookies(&config, &setup.environment);
        // The hooks of an application take its node, which is made of the rooms that call them: the circle is closed by a
        // weak reference, so that a node that stopped is freed.
        Self(Arc::new_cyclic(|engine: &Weak<EngineParts>| {
            let host: Weak<dyn CallHost> = engine.clone();
            let hooks = Arc::new(HookRunner::new(registry.clone(), host.clone(), &config, shutdown.clone()));
            let rooms = Rooms::new(RoomParts {
                bus: bus.clone(),
                store,
                interop: interop.clone(),
                clock: clock.clone(),
                registry: connections.clone(),
                identity: identity.clone(),
                lease: lease.clone(),
                callbacks: hooks.clone(),
                observers: registry.observers.clone(),
                metrics: metrics.clone(),
                shutdown: shutdown.clone(),
                config: config.clone(),
            });
            let executor = Executor {
                registry: connections.clone(),
                rooms: rooms.clone(),
                files: files.clone(),
                application: Arc::new(MethodRunner::new(registry.clone(), host, identity.clone())),
                max_file: config.websocket.max_file.as_u64(),
                rpc_timeout: config.general.rpc_timeout,
            };
            let calls = Arc::new(RemoteCalls::new(RemoteCallParts {
                bus: bus.clone(),
                membership: membership.clone(),
                interop: interop.clone(),
                clock: clock.clone(),
                identity: identity.clone(),
                executor: executor.clone(),
                max_calls: config.cluster.max_calls,
                max_bytes,
            }));
            let limits = (config.cluster.max_calls, max_bytes);
            let call_server =
                CallServer::new(executor.clone(), bus.clone(), interop, clock.clone(), shutdown.clone(), limits);
            let tags = Tags::new(TagParts {
                bus: bus.clone(),
                calls: calls.clone(),
                call_server: call_server.clone(),
                executor: executor.clone(),
                identity: identity.clone(),
                metrics: metrics.clone(),
                shutdown: shutdown.clone(),
                config: config.clone(),
            });
            let cookie = (config.cluster.name_of(&identity.app), is_secure);
            let parts = (sessions.clone(), clock.clone(), tags.clone());
            let sessions = Arc::new(SessionParts::new(parts, registry.session_type, &config, cookie));
            let locks = Locks::new(locks, shutdown.clone());
            let cluster = Cluster::new(membership.clone(), calls.clone(), topics.clone());
            let tasks = Tasks::new(TaskParts {
                store: task_store.clone(),
                clock: clock.clone(),
                identity: identity.clone(),
                locks: locks.clone(),
                calls: calls.clone(),
                cluster: cluster.clone(),
                hooks: (!registry.hooks.before_enqueue.is_empty()).then(|| hooks.clone() as Arc<dyn TaskCallbacks>),
                observers: registry.observers.clone(),
                known: registry.tasks().map(|task| (task.def.name, task.known(&config))).collect(),
                timeout: config.redis.command_timeout,
                worker: Mutex::default(),
                quiet: watch::Sender::new(false),
                waiters: Semaphore::new(MAX_WAITERS),
            });
            let node = Node::new(NodeParts {
                identity: identity.clone(),
                environment: setup.environment,
                config: config.clone(),
                states: registry.states.clone(),
                rooms: rooms.clone(),
                connections: Connections::new(executor, calls.clone(), tags.clone()),
                cache: Cache::new(cache, clock.clone()),
                locks,
                tasks,
                sessions,
                topics: topics.clone(),
                cluster,
                clock: clock.clone(),
                lease: lease.clone(),
                health: health.clone(),
                started: Instant::now(),
                shutdown: shutdown.clone(),
            });
            EngineParts {
                node,
                identity,
                config,
                registry,
                limits: rate_limits,
                connections,
                rooms,
                calls,
                call_server,
                tags,
                topics,
                files,
                hooks,
                lease,
                health,
                bus,
                tasks: task_store,
                clock,
                membership,
                metrics,
                shutdown,
                started_at,
                started: Mutex::default(),
                transports: setup.transports,
            }
        }))
    }
}
