//! How a node starts and stops, in one readable order.

use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, MissedTickBehavior, Sleep, interval_at, sleep_until};
use tracing::{error, info, warn};

use super::{Names, Node, Parts, Setup};
use crate::backend::{Arrival, BackendError};
use crate::cache::Cache;
use crate::calls::Calls;
use crate::cluster::Topics;
use crate::config::Config;
use crate::connection::{CloseReason, Connection};
use crate::connections;
use crate::dispatch::Chain;
use crate::error::{ActionError, ErrorKind};
use crate::event::Event;
use crate::files::PublicFiles;
use crate::initializer::{self, Boot, Initializer};
use crate::lease::{self, Lease};
use crate::locks::Locks;
use crate::metrics::NodeMetrics;
use crate::registry::{Definitions, Registry};
use crate::rooms;
use crate::shutdown::Shutdown;

/// Why a node did not start. Print the whole chain: what is behind an initializer or a room stands in the source.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The application's definitions do not fit together.
    #[error(transparent)]
    Faults(#[from] crate::registry::Faults),
    /// The initializers' order cannot be found.
    #[error(transparent)]
    Order(#[from] initializer::OrderError),
    /// An initializer gave up.
    #[error("initializer {name}")]
    Initializer {
        /// Its name.
        name: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A transport could not begin to accept.
    #[error(transparent)]
    Transport(Box<dyn std::error::Error + Send + Sync>),
    /// Settings that cannot mean anything.
    #[error(transparent)]
    Settings(Box<dyn std::error::Error + Send + Sync>),
    /// The settings do not make a member of a cluster.
    #[error(transparent)]
    Cluster(Box<dyn std::error::Error + Send + Sync>),
    /// The backend could not be reached within `redis.boot_timeout`.
    #[error(transparent)]
    Backend(BackendError),
    /// A room of `rooms.start` could not be made.
    #[error("room {room}")]
    Room {
        /// The room.
        room: String,
        /// Why.
        source: ActionError,
    },
    /// It was asked to stop before it was ready.
    #[error("asked to stop before the node was ready")]
    Stopped,
}

/// How a node stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// How many calls and connections were still there when the grace was over.
    pub abandoned: usize,
}

/// How long a node that starts waits for its backend: `redis.boot_timeout` for all that it needs of it.
struct Patience {
    deadline: Instant,
    pause: Duration,
}

impl Patience {
    const LONGEST_PAUSE: Duration = Duration::from_secs(2);

    fn new(limit: Duration) -> Self {
        Self { deadline: Instant::now() + limit, pause: Duration::from_millis(100) }
    }

    /// The pause before the next attempt, unless there is no time for one.
    fn pause(&mut self, node: &Node, cause: &(dyn Error + 'static)) -> Option<Sleep> {
        let until = Instant::now() + self.pause;
        if until > self.deadline {
            return None;
        }
        self.pause = (self.pause * 2).min(Self::LONGEST_PAUSE);
        warn!(cause = %Chain(cause), "the backend cannot be reached yet");
        *node.problems() = vec!["the backend cannot be reached yet".to_owned()];
        Some(sleep_until(until))
    }
}

impl Node {
    /// Finds out what a node would serve: initializers are made ready and definitions checked, and nothing is started.
    ///
    /// # Errors
    ///
    /// The same as for a node that starts.
    pub async fn plan(
        initializers: &[Arc<dyn Initializer>],
        mut definitions: Definitions,
        config: &Config,
    ) -> Result<Registry, StartError> {
        let mut boot = Boot { config, definitions: &mut definitions };
        initialize(&initializer::in_order(initializers)?, &mut boot).await?;
        Ok(Registry::new(definitions)?)
    }

    /// Starts a node: initializers, definitions checked, own tasks, starting rooms, initializers' start, transports.
    /// When `setup.shutdown` is asked meanwhile, the step that runs is dropped.
    ///
    /// # Errors
    ///
    /// The first step that does not work out; what had been started is stopped again.
    pub async fn start(setup: Setup) -> Result<Self, StartError> {
        let shutdown = setup.shutdown.clone();
        let (node, initializers) = match Self::prepare(setup).await {
            Ok(prepared) => prepared,
            Err(error) => {
                shutdown.close().await; // who answers operators is there before the node is
                return Err(error);
            }
        };
        match unless_asked(&shutdown, node.open(&initializers)).await {
            Ok(()) => Ok(node),
            Err(error) => {
                node.stop().await;
                Err(error)
            }
        }
    }

    /// A node with everything that it is made of, and nothing that runs.
    async fn prepare(mut setup: Setup) -> Result<(Self, Vec<Arc<dyn Initializer>>), StartError> {
        let shutdown = setup.shutdown.clone();
        let initializers = initializer::in_order(&setup.initializers)?;
        let mut boot = Boot { config: &setup.config, definitions: &mut setup.definitions };
        unless_asked(&shutdown, initialize(&initializers, &mut boot)).await?;
        Ok((Self::assemble(setup)?, initializers))
    }

    fn assemble(setup: Setup) -> Result<Self, StartError> {
        let registry = Registry::new(setup.definitions)?;
        let backend = setup.backend;
        Ok(Self(Arc::new(Parts {
            app: setup.app,
            version: setup.version,
            id: setup.node_id,
            names: Names::new(),
            environment: setup.environment,
            files: PublicFiles::new(setup.config.paths.public.clone()),
            calls: Calls::new(setup.config.cluster.max_calls),
            config: setup.config,
            registry,
            connections: connections::Table::default(),
            rooms: rooms::Table::default(),
            cache: Cache::new(backend.cache, backend.clock.clone()),
            locks: Locks::new(backend.locks, setup.shutdown.clone()),
            membership: backend.membership,
            lease: Lease::default(),
            mends: AtomicBool::new(false),
            topics: Topics::default(),
            bus: backend.bus,
            room_store: backend.rooms,
            foreign: backend.foreign,
            started_at: unix_ms(),
            clock: backend.clock,
            metrics: NodeMetrics::new(),
            shutdown: setup.shutdown,
            started: Instant::now(),
            requests: AtomicU64::new(0),
            problems: Mutex::new(vec!["starting".to_owned()]),
            initializers: Mutex::default(),
            transports: setup.transports,
        })))
    }

    async fn open(&self, initializers: &[Arc<dyn Initializer>]) -> Result<(), StartError> {
        let (first, last): (Vec<_>, Vec<_>) = self.0.transports.iter().partition(|it| it.is_for_operators());
        for transport in first {
            transport.start(self).await.map_err(StartError::Transport)?;
        }
        self.spawn_delivery();
        let mut patience = Patience::new(self.0.config.redis.boot_timeout);
        let life = self.enter_cluster(&mut patience).await?;
        self.0.shutdown.spawn_own(lease::keep(self.clone(), life));
        self.spawn_heartbeat();
        self.make_starting_rooms(&mut patience).await?;
        for initializer in initializers {
            let starting = async { initializer.start(self).await };
            let started = initializer::step(self.0.config.general.initializer_timeout, starting).await;
            started.map_err(|source| StartError::Initializer { name: initializer.name(), source })?;
            self.started().push(initializer.clone());
        }
        for transport in last {
            transport.start(self).await.map_err(StartError::Transport)?;
        }
        self.problems().clear();
        self.tell(&Event::Ready);
        info!(node = self.0.id, generation = %self.generation(), "ready");
        Ok(())
    }

    /// Becomes a member of the cluster.
    async fn enter_cluster(&self, patience: &mut Patience) -> Result<String, StartError> {
        loop {
            let error = match lease::enter(self).await {
                Ok(life) => return Ok(life),
                Err(error) => error,
            };
            match patience.pause(self, &error) {
                Some(pause) => pause.await,
                None => return Err(StartError::Backend(error)),
            }
        }
    }

    async fn make_starting_rooms(&self, patience: &mut Patience) -> Result<(), StartError> {
        for room in &self.0.config.rooms.start {
            while let Err(source) = self.rooms().add(room).await {
                if source.code() == ErrorKind::Conflict.code() {
                    break; // it exists
                }
                let is_away = source.kind() == ErrorKind::Unavailable;
                match is_away.then(|| patience.pause(self, &source)).flatten() {
                    Some(pause) => pause.await,
                    None => return Err(StartError::Room { room: room.clone(), source }),
                }
            }
        }
        Ok(())
    }

    /// Stops the node: no longer ready, no new connections, sockets told, running calls finished within
    /// `general.grace`, rooms left, initializers stopped in reverse.
    pub async fn stop(&self) -> Stopped {
        let grace = self.0.config.general.grace;
        let deadline = Instant::now() + grace;
        *self.problems() = vec!["stopping".to_owned()];
        self.0.shutdown.ask();
        self.tell(&Event::Stopping);
        info!(node = self.0.id, ?grace, "stopping");
        for transport in self.0.transports.iter().rev() {
            transport.stop_accepting().await;
        }
        self.dismiss_sockets().await;
        for transport in self.0.transports.iter().rev() {
            transport.finish(deadline).await;
        }
        let abandoned = self.0.shutdown.calls_finished(deadline).await;
        self.break_off_what_is_left().await;
        self.0.topics.close();
        let started = std::mem::take(&mut *self.started());
        for initializer in started.iter().rev() {
            self.stop_initializer(&**initializer).await;
        }
        self.0.shutdown.close().await;
        lease::give_up(self).await;
        if abandoned > 0 {
            warn!(abandoned, "stopped with calls still running: the grace is over");
        }
        info!(node = self.0.id, "stopped");
        Stopped { abandoned }
    }

    async fn stop_initializer(&self, initializer: &dyn Initializer) {
        let stopping = async {
            initializer.stop(self).await;
            Ok(())
        };
        if let Err(cause) = initializer::step(self.0.config.general.initializer_timeout, stopping).await {
            error!(name = initializer.name(), cause = %Chain(&*cause), "an initializer did not stop as it should");
        }
    }

    fn started(&self) -> MutexGuard<'_, Vec<Arc<dyn Initializer>>> {
        self.0.initializers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every socket that the node stops, spread over `websocket.drain` so that not all come back at once.
    async fn dismiss_sockets(&self) {
        const STEPS: u32 = 50;
        const AT_ONCE: usize = 20;
        let connections = self.connections().all();
        let batch = connections.len().div_ceil(STEPS as usize).max(AT_ONCE);
        let pause = self.0.config.websocket.drain.min(self.0.config.general.grace) / STEPS;
        let mut batches = connections.chunks(batch).peekable();
        while let Some(batch) = batches.next() {
            batch.iter().for_each(|connection| connection.close(CloseReason::NodeStops));
            if batches.peek().is_some() {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Breaks off the sockets that outlasted the grace.
    async fn break_off_what_is_left(&self) {
        self.connections().all().iter().for_each(Connection::break_off);
        self.0.shutdown.calls_finished(Instant::now() + Duration::from_secs(1)).await;
    }

    /// Delivers what the bus brings, and lets others run in between: a burst must not evict the healthy.
    fn spawn_delivery(&self) {
        const AT_ONCE: usize = 128;
        let Some(mut messages) = self.0.bus.receiver() else { return };
        let node = self.clone();
        self.0.shutdown.spawn_own(async move {
            let mut batch: Vec<Arrival> = Vec::with_capacity(AT_ONCE);
            loop {
                tokio::select! {
                    () = node.0.shutdown.closed() => break,
                    count = messages.recv_many(&mut batch, AT_ONCE) => if count == 0 { break },
                }
                node.0.metrics.bus_depth.set(messages.len() as f64);
                batch.drain(..).for_each(|arrival| node.receive(arrival));
                tokio::task::yield_now().await;
            }
        });
    }

    fn receive(&self, arrival: Arrival) {
        match arrival {
            Arrival::Message(message) => self.rooms().deliver(&message),
            Arrival::Letter(from, letter) => self.0.calls.receive(self, from, letter),
            Arrival::Asked(asked) => self.0.calls.receive_asked(self, asked),
            Arrival::Away => self.0.calls.fail_all(),
            Arrival::Gap(missed) => {
                self.0.metrics.bus_gaps.increment(1);
                warn!(?missed, "messages of other nodes may have been missed");
                self.rooms().gap();
                self.0.topics.gap();
                self.tell(&Event::Missed(missed));
                self.rooms().misses();
            }
        }
    }

    fn spawn_heartbeat(&self) {
        let every = self.0.config.websocket.heartbeat;
        if every.is_zero() {
            return;
        }
        let node = self.clone();
        self.0.shutdown.spawn_own(async move {
            let mut ticks = interval_at(Instant::now() + every, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = node.0.shutdown.closed() => break,
                    _ = ticks.tick() => node.connections().sweep().await,
                }
            }
        });
    }
}

async fn initialize(initializers: &[Arc<dyn Initializer>], boot: &mut Boot<'_>) -> Result<(), StartError> {
    for initializer in initializers {
        let limit = boot.config.general.initializer_timeout;
        let ready = initializer::step(limit, async { initializer.initialize(boot).await }).await;
        ready.map_err(|source| StartError::Initializer { name: initializer.name(), source })?;
    }
    Ok(())
}

/// Goes on with a start until the node is asked to stop.
async fn unless_asked(
    shutdown: &Shutdown,
    starting: impl Future<Output = Result<(), StartError>>,
) -> Result<(), StartError> {
    tokio::select! {
        biased;
        () = shutdown.asked() => Err(StartError::Stopped),
        started = starting => started,
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests;
