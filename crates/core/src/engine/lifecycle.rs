//! How a node starts and stops, in one readable order.

use std::error::Error;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::seq::SliceRandom;
use tokio::time::{Instant, MissedTickBehavior, Sleep, interval_at, sleep_until};
use tracing::{error, info, warn};

use super::Engine;
use super::setup::NodeSetup;
use crate::backend::BackendError;
use crate::config::Config;
use crate::connection::Connection;
use crate::cookie::SameSite;
use crate::error::{ActionError, BoxError, Chain, ErrorKind};
use crate::event::Event;
use crate::initializer::{self, Boot, Initializer};
use crate::lease;
use crate::lease::renew::LeaseKeeper;
use crate::node::has_secure_cookies;
use crate::protocol::CloseReason;
use crate::registry::{DefinitionErrors, Definitions, Registry};
use crate::shutdown::{Shutdown, Successor};

/// Why a node did not start. Print the whole chain: the cause behind an initializer or a room is its source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The application's definitions do not fit together.
    #[error(transparent)]
    Definitions(#[from] DefinitionErrors),
    /// The initializers' order cannot be found.
    #[error(transparent)]
    Order(#[from] initializer::OrderError),
    /// An initializer failed.
    #[error("initializer {name}")]
    Initializer {
        /// Its name.
        name: &'static str,
        /// The cause.
        source: BoxError,
    },
    /// A transport could not start to accept.
    #[error(transparent)]
    Transport(BoxError),
    /// The settings are invalid.
    #[error(transparent)]
    Settings(BoxError),
    /// The settings do not make a member of a cluster.
    #[error(transparent)]
    Cluster(BoxError),
    /// The backend could not be reached within `redis.boot_timeout`.
    #[error(transparent)]
    Backend(BackendError),
    /// A room of `rooms.start` could not be created.
    #[error("room {room}")]
    Room {
        /// The room.
        room: String,
        /// The cause.
        source: ActionError,
    },
    /// A stop was requested before the node was ready.
    #[error("a stop was requested before the node was ready")]
    Stopped,
}

/// How a node stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StopReport {
    /// How many calls and connections were left when the grace was over, and how many attempts of jobs whose end could not
    /// be stored.
    pub abandoned: usize,
}

/// Retries of the backend while a node starts: `redis.boot_timeout` for all its steps together.
struct BootRetry {
    deadline: Instant,
    pause: Duration,
}

impl BootRetry {
    const LONGEST_PAUSE: Duration = Duration::from_secs(2);

    fn new(limit: Duration) -> Self {
        Self { deadline: Instant::now() + limit, pause: Duration::from_millis(100) }
    }

    /// The pause before the next attempt, unless there is no time for one.
    fn pause(&mut self, engine: &Engine, cause: &(dyn Error + 'static)) -> Option<Sleep> {
        let until = Instant::now() + self.pause;
        if until > self.deadline {
            return None;
        }
        self.pause = (self.pause * 2).min(Self::LONGEST_PAUSE);
        warn!(cause = %Chain(cause), "the backend cannot be reached yet");
        engine.parts().health.set(&["the backend cannot be reached yet"]);
        Some(sleep_until(until))
    }
}

/// The time that initializers have to stop in any case.
const LAST_STOPS: Duration = Duration::from_secs(1);

impl Engine {
    /// Returns the definitions that a node would serve: initializers are prepared and definitions checked, and nothing is
    /// started.
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
        let registry = Registry::new(definitions)?;
        registry.check_settings(config)?;
        Ok(registry)
    }

    /// Checks all that a node checks before it starts: settings, definitions, transports. Initializers are prepared; nothing
    /// is started, and the backend is not reached.
    ///
    /// # Errors
    ///
    /// The same as for a node that starts.
    pub async fn check(setup: NodeSetup) -> Result<Self, StartError> {
        let (engine, _) = Self::prepare(setup).await?;
        Ok(engine)
    }

    /// Starts a node: initializers, definitions checked, own tasks, start rooms, initializers' start, transports. When a
    /// stop is requested through `setup.shutdown` meanwhile, the step that runs is dropped.
    ///
    /// # Errors
    ///
    /// The error of the first step that fails; the steps before it are undone.
    pub async fn start(setup: NodeSetup) -> Result<Self, StartError> {
        let shutdown = setup.shutdown.clone();
        let (engine, initializers) = match Self::prepare(setup).await {
            Ok(prepared) => prepared,
            Err(error) => {
                shutdown.close().await; // the listener for operators runs before the node does
                return Err(error);
            }
        };
        match unless_stopped(&shutdown, engine.open(&initializers)).await {
            Ok(()) => Ok(engine),
            Err(error) => {
                engine.stop_after(Duration::ZERO).await; // nothing was ready
                Err(error)
            }
        }
    }

    /// Puts a node together, with no task that runs.
    pub(super) async fn prepare(mut setup: NodeSetup) -> Result<(Self, Vec<Arc<dyn Initializer>>), StartError> {
        let shutdown = setup.shutdown.clone();
        let initializers = initializer::in_order(&setup.initializers)?;
        let mut boot = Boot { config: &setup.config, definitions: &mut setup.definitions };
        unless_stopped(&shutdown, initialize(&initializers, &mut boot)).await?;
        let registry = Registry::new(std::mem::take(&mut setup.definitions))?;
        registry.check_settings(&setup.config)?;
        check_session_cookie(&setup, &registry)?;
        let engine = Self::assemble(setup, registry, unix_ms());
        for transport in &engine.parts().transports {
            transport.check(&engine).map_err(|error| match error.downcast::<DefinitionErrors>() {
                Ok(errors) => StartError::Definitions(*errors),
                Err(error) => StartError::Transport(error),
            })?;
        }
        Ok((engine, initializers))
    }

    async fn open(&self, initializers: &[Arc<dyn Initializer>]) -> Result<(), StartError> {
        let (first, last): (Vec<_>, Vec<_>) = self.parts().transports.iter().partition(|it| it.is_for_operators());
        for transport in first {
            transport.start(self).await.map_err(StartError::Transport)?;
        }
        self.spawn_delivery();
        let mut retry = BootRetry::new(self.config().redis.boot_timeout);
        let keeper = self.enter_cluster(&mut retry).await?;
        self.shutdown().spawn_own(keeper.run());
        self.spawn_heartbeat();
        self.spawn_session_looks();
        self.create_start_rooms(&mut retry).await?;
        self.start_initializers(initializers).await?;
        for transport in last {
            transport.start(self).await.map_err(StartError::Transport)?;
        }
        self.parts().health.set(&[]);
        self.registry().observers.notify(&Event::Ready);
        info!(node = self.node().id(), generation = %self.node().generation(), "ready");
        Ok(())
    }

    pub(super) async fn start_initializers(&self, initializers: &[Arc<dyn Initializer>]) -> Result<(), StartError> {
        for initializer in initializers {
            let starting = async { initializer.start(self.node()).await };
            let started = initializer::run_step(self.config().general.initializer_timeout, starting).await;
            started.map_err(|source| StartError::Initializer { name: initializer.name(), source })?;
            self.started().push(initializer.clone());
        }
        Ok(())
    }

    /// Becomes a member of the cluster.
    async fn enter_cluster(&self, retry: &mut BootRetry) -> Result<LeaseKeeper, StartError> {
        loop {
            let error = match LeaseKeeper::register(self.lease_parts()).await {
                Ok(keeper) => return Ok(keeper),
                Err(error) => error,
            };
            match retry.pause(self, &error) {
                Some(pause) => pause.await,
                None => return Err(StartError::Backend(error)),
            }
        }
    }

    async fn create_start_rooms(&self, retry: &mut BootRetry) -> Result<(), StartError> {
        for room in &self.config().rooms.start {
            while let Err(source) = self.rooms().create(room).await {
                if source.code() == ErrorKind::Conflict.code() {
                    break; // it exists
                }
                let is_away = source.kind() == ErrorKind::Unavailable;
                match is_away.then(|| retry.pause(self, &source)).flatten() {
                    Some(pause) => pause.await,
                    None => return Err(StartError::Room { room: room.clone(), source }),
                }
            }
        }
        Ok(())
    }

    /// Stops the node: no longer ready, no new jobs; after `general.stop_delay` no new connections, sockets closed with
    /// 1001, open connections drained, running calls finished, initializers stopped in reverse, the lease given up. All
    /// after the delay takes `general.grace` at most, and a second more for initializers if nothing is left of it. The
    /// [`StopRequest`](crate::StopRequest), if there was one, may leave out the delay or shorten the grace.
    pub async fn stop(&self) -> StopReport {
        let delay = match self.shutdown().successor() {
            Successor::Neighbours => Duration::ZERO,
            Successor::None | Successor::Unknown | Successor::NextProgram => self.config().general.stop_delay,
        };
        self.stop_after(delay).await
    }

    async fn stop_after(&self, delay: Duration) -> StopReport {
        let grace = self.shutdown().grace(&self.config().general);
        self.parts().health.set(&["stopping"]);
        self.registry().observers.notify(&Event::Stopping);
        info!(node = self.node().id(), ?delay, ?grace, "stopping");
        let (clients, others): (Vec<_>, Vec<_>) =
            self.parts().transports.iter().rev().partition(|transport| transport.is_for_clients());
        for transport in others {
            transport.stop_accepting().await;
        }
        tokio::time::sleep(delay).await;
        let deadline = Instant::now() + grace;
        self.shutdown().begin_drain();
        self.shutdown().cut_from(deadline);
        // The rest of the grace, a second at most, is for the responses to calls whose bodies did not come.
        self.shutdown().refuse_bodies_at(deadline - (grace / 10).min(Duration::from_secs(1)));
        for transport in clients {
            transport.stop_accepting().await;
        }
        let (unfinished, ()) = tokio::join!(self.finish_transports(deadline), self.close_sockets(grace));
        let abandoned = unfinished + self.shutdown().calls_finished(deadline).await;
        self.abort_remaining_sockets().await;
        self.parts().topics.close();
        self.stop_initializers(deadline.max(Instant::now() + LAST_STOPS)).await;
        self.shutdown().close().await;
        lease::release(&self.lease_parts()).await;
        if abandoned > 0 {
            warn!(abandoned, "stopped with calls still running: the grace is over");
        }
        info!(node = self.node().id(), "stopped");
        StopReport { abandoned }
    }

    async fn finish_transports(&self, deadline: Instant) -> usize {
        let mut unfinished = 0;
        for transport in self.parts().transports.iter().rev() {
            unfinished += transport.finish(deadline).await;
        }
        unfinished
    }

    /// Stops the initializers that were started, in reverse, all of them until `deadline`.
    pub(super) async fn stop_initializers(&self, deadline: Instant) {
        let started = std::mem::take(&mut *self.started());
        for initializer in started.iter().rev() {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let limit = self.config().general.initializer_timeout;
            let limit = if limit.is_zero() { left } else { limit.min(left) };
            let stopping = async {
                initializer.stop(self.node()).await;
                Ok(())
            };
            if let Err(cause) = initializer::run_step(limit, stopping).await {
                error!(name = initializer.name(), cause = %Chain(&*cause), "an initializer did not stop as it should");
            }
        }
    }

    fn started(&self) -> MutexGuard<'_, Vec<Arc<dyn Initializer>>> {
        self.parts().started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes every socket with 1001: one by one, in random order and evenly spaced over `websocket.drain`, so that not
    /// all clients reconnect at once.
    async fn close_sockets(&self, grace: Duration) {
        let mut connections = self.parts().connections.all();
        connections.shuffle(&mut rand::rng());
        let begin = Instant::now();
        let pause = self.config().websocket.drain.min(grace) / (connections.len() as u32).max(1);
        for (number, connection) in (0..).zip(&connections) {
            sleep_until(begin + pause * number).await;
            connection.close(CloseReason::NodeStops);
        }
    }

    /// Aborts the sockets that outlasted the grace.
    async fn abort_remaining_sockets(&self) {
        self.parts().connections.all().iter().for_each(Connection::abort);
        self.shutdown().calls_finished(Instant::now() + Duration::from_secs(1)).await;
    }

    fn spawn_heartbeat(&self) {
        let every = self.config().websocket.heartbeat;
        if every.is_zero() {
            return;
        }
        let engine = self.clone();
        self.shutdown().spawn_own(async move {
            let mut ticks = interval_at(Instant::now() + every, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = engine.shutdown().closed() => break,
                    _ = ticks.tick() => engine.parts().connections.sweep().await,
                }
            }
        });
    }
}

/// Refuses a session cookie that no browser would take.
fn check_session_cookie(setup: &NodeSetup, registry: &Registry) -> Result<(), StartError> {
    let is_secure = has_secure_cookies(&setup.config, &setup.environment);
    if registry.session_type.is_some() && setup.config.session.same_site == SameSite::None && !is_secure {
        let reason = "session.same_site = \"none\" needs a Secure cookie, which browsers take over TLS alone: set \
                      web.tls_in_front, or session.same_site = \"lax\"";
        return Err(StartError::Settings(reason.into()));
    }
    Ok(())
}

async fn initialize(initializers: &[Arc<dyn Initializer>], boot: &mut Boot<'_>) -> Result<(), StartError> {
    for initializer in initializers {
        let limit = boot.config.general.initializer_timeout;
        let ready = initializer::run_step(limit, async { initializer.initialize(boot).await }).await;
        ready.map_err(|source| StartError::Initializer { name: initializer.name(), source })?;
    }
    Ok(())
}

/// Continues a start until a stop is requested.
async fn unless_stopped(
    shutdown: &Shutdown,
    starting: impl Future<Output = Result<(), StartError>>,
) -> Result<(), StartError> {
    tokio::select! {
        biased;
        () = shutdown.requested() => Err(StartError::Stopped),
        started = starting => started,
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests;
