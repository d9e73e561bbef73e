//! The transports of Phalanx: HTTP and WebSocket over axum.
//!
//! [`Server`] binds its port, reports the address, serves until the node shuts down, and lets running requests finish.

mod admin;
mod http;
mod listener;
mod quota;
mod reserving_semaphore;
mod run_permits;
mod shares;
mod wire_error;
mod ws;

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use phalanx_core::error::Panicked;
use phalanx_core::transport::Transport;
use phalanx_core::{BoxError, Engine, Node, Shutdown};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

pub use admin::AdminServer;
pub use http::own_route_call::{Guard, Refused};
pub use listener::BACKLOG;

use crate::http::service::{HttpService, ServiceState, check_routes};
use crate::listener::{Admission, Beyond, Drain, HttpListener, LingerLimits};
use crate::quota::Quota;
use crate::shares::AddressShares;

/// The time for connections that were cut to end: they do at once, unless code of the application's blocks its thread.
const LAST_ENDS: Duration = Duration::from_secs(1);

/// Binds an address for [`Server::on`]. Clients are refused until the server starts.
///
/// # Errors
///
/// The address is in use, or not of this machine; the message names it.
pub fn bind(addr: SocketAddr) -> Result<TcpListener, BoxError> {
    listener::bind(addr).map_err(|error| cannot_listen(addr, &error))
}

fn cannot_listen(addr: SocketAddr, error: &std::io::Error) -> BoxError {
    format!("cannot listen on {addr}: {error}").into()
}

/// An application's own routes, which are served after the actions and the WebSocket endpoint.
#[derive(Default)]
pub struct AppRoutes {
    /// The routes.
    pub router: Router,
    /// The functions that make further ones of a node, once its initializers have started.
    pub makers: Vec<MakeRoutes>,
    /// The paths among them that pages of every site may send requests to.
    pub cross_site: Vec<String>,
}

/// A function that makes routes of a node.
pub type MakeRoutes = Box<dyn FnOnce(Node) -> Result<Router, BoxError> + Send>;

/// Why a function of `App::routes` made none.
#[derive(Debug, thiserror::Error)]
#[error("App::routes")]
struct RoutesError(#[source] BoxError);

impl AppRoutes {
    /// Makes the routes that are made of a node. That two routes are the same is a panic of axum's.
    fn make(&mut self, node: &Node) -> Result<(), RoutesError> {
        for make in std::mem::take(&mut self.makers) {
            let (router, node) = (std::mem::take(&mut self.router), node.clone());
            let made = catch_unwind(AssertUnwindSafe(|| Ok(router.merge(make(node)?))));
            self.router = made.unwrap_or_else(|panic| Err(Panicked::with(&*panic).into())).map_err(RoutesError)?;
        }
        Ok(())
    }
}

impl fmt::Debug for AppRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { router, makers, cross_site } = self;
        let mut shown = f.debug_struct("AppRoutes");
        shown.field("router", router).field("makers", &makers.len()).field("cross_site", cross_site).finish()
    }
}

/// HTTP and WebSocket on one port.
#[derive(Debug, Default)]
pub struct Server {
    routes: Mutex<Option<AppRoutes>>,
    given: Mutex<Option<TcpListener>>,
    beyond: Beyond,
    running: Mutex<Option<RunningServer>>,
}

#[derive(Debug)]
struct RunningServer {
    addr: SocketAddr,
    connections: Quota,
    drain: Drain,
    shutdown: Shutdown,
    task: Option<JoinHandle<()>>,
}

impl Server {
    /// Makes a server that also serves an application's own routes.
    pub fn new(routes: AppRoutes) -> Self {
        Self { routes: Mutex::new(Some(routes)), ..Self::default() }
    }

    /// Serves on a socket that is bound already, instead of binding the configured address. It may listen already.
    pub fn on(self, socket: TcpListener) -> Self {
        Self { given: Mutex::new(Some(socket)), ..self }
    }

    /// Serves on a socket as [`on`](Self::on) does, from which other processes accept as well: connections beyond
    /// `web.max_connections` are left to them, instead of being closed.
    pub fn on_shared(self, socket: TcpListener) -> Self {
        Self { beyond: Beyond::Leave, ..self.on(socket) }
    }

    /// The number of open connections, sockets excepted.
    pub fn http_connections(&self) -> u64 {
        self.running().as_ref().map_or(0, |running| running.connections.used())
    }

    /// Takes the listening socket for the next program of this process, once the node has stopped for it.
    pub fn take_kept_socket(&self) -> Option<TcpListener> {
        self.running().as_ref().and_then(|running| running.drain.take_kept())
    }

    /// The address of the listener; `None` until it listens.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.running().as_ref().map(|running| running.addr)
    }

    fn take_given(&self) -> Option<TcpListener> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<RunningServer>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Transport for Server {
    fn name(&self) -> &'static str {
        "web"
    }

    fn is_for_clients(&self) -> bool {
        true
    }

    fn listen_addr(&self) -> Option<SocketAddr> {
        self.addr()
    }

    fn check(&self, engine: &Engine) -> Result<(), BoxError> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.as_ref().map_or(Ok(()), |routes| check_routes(engine, routes))
    }

    async fn start(&self, engine: &Engine) -> Result<(), BoxError> {
        let settings = &engine.config().web;
        let mut app_routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        app_routes.make(engine.node())?;
        let waiting_bodies = Quota::new("web.max_waiting_bodies", settings.max_waiting_bodies as u64);
        let linger = LingerLimits::new(settings, waiting_bodies.clone());
        let shares = AddressShares::new(engine.config(), engine.registry().actions().map(|action| action.def.body));
        if engine.registry().actions().any(|action| action.limits().next().is_some()) {
            shares.look_for_local_proxies();
        }
        let drain = Drain::default();
        let service = ServiceState::new(engine.clone(), app_routes, waiting_bodies, shares.clone(), drain.clone())?;
        let socket = match self.take_given() {
            Some(socket) => socket,
            None => bind(SocketAddr::new(settings.bind, settings.port))?,
        };
        let addr = socket.local_addr()?;
        listener::listen(&socket).map_err(|error| cannot_listen(addr, &error))?;
        let connections = Quota::new("web.max_connections", settings.max_connections as u64);
        let admission = Admission::new(connections.clone(), settings.write_timeout, linger)
            .with_beyond(self.beyond)
            .with_shares(shares, &settings.trusted_proxies);
        let protocol = listener::protocol(settings);
        let listener = HttpListener { socket, admission, protocol, drain: drain.clone(), quiet: settings.drain };
        let service = Arc::new(service);
        let task = engine.shutdown().spawn_own(async move {
            if let Err(error) = listener.serve(|peer| HttpService::new(service.clone(), peer)).await {
                warn!(%error, "the listener ended");
            }
        });
        info!(%addr, "listening");
        let shutdown = engine.shutdown().clone();
        *self.running() = Some(RunningServer { addr, connections, drain, shutdown, task: Some(task) });
        Ok(())
    }

    async fn stop_accepting(&self) {
        if let Some(running) = &*self.running() {
            running.drain.begin(running.shutdown.successor());
        }
        drop(self.take_given()); // it did not start: no client is to wait for it
    }

    async fn finish(&self, deadline: Instant) -> usize {
        let (drain, task) = match &mut *self.running() {
            Some(running) => (running.drain.clone(), running.task.take()),
            None => return 0,
        };
        let Some(mut task) = task else { return 0 };
        if timeout_at(deadline, &mut task).await.is_err() {
            drain.cut();
            let _ = timeout(LAST_ENDS, task).await;
        }
        drain.cut_requests()
    }
}
