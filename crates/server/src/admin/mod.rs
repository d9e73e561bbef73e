//! The listener for operators: `/livez`, `/readyz`, `/metrics`.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1::Builder;
use hyper_util::rt::TokioTimer;
use hyper_util::service::TowerToHyperService;
use phalanx_core::BoxError;
use phalanx_core::config::Admin;
use phalanx_core::transport::Transport;
use phalanx_core::{Engine, Node, Shutdown};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::listener::{self, Admission, Drain, HttpListener, LingerLimits};
use crate::quota::Quota;

/// The limit of open connections: few operators and scrapers connect to one node.
const MAX_CONNECTIONS: u64 = 64;

/// The time limit of a client for sending its request, and for reading any of the pending response.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time for the last requests once the node is closed, which waits for a second.
const LAST_RESPONSES: Duration = Duration::from_millis(500);

/// Renders the metrics as text.
type MetricsRenderer = Arc<dyn Fn() -> String + Send + Sync>;

/// The listener for operators. It responds for as long as the process runs, also before the node has started: a process
/// that is slow to start is not dead, and `/livez` must not get it restarted. Until then `/readyz` reports `starting`.
pub struct AdminServer {
    render: MetricsRenderer,
    /// The handle and not the engine, which owns this transport.
    node: Arc<OnceLock<Node>>,
    addr: OnceLock<SocketAddr>,
    drain: Drain,
}

impl AdminServer {
    /// Makes a listener whose `/metrics` calls `render`.
    pub fn new(render: MetricsRenderer) -> Self {
        Self { render, node: Arc::default(), addr: OnceLock::new(), drain: Drain::default() }
    }

    /// The address of the listener; `None` until it is bound.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addr.get().copied()
    }

    /// Takes the listening socket for the next program of this process, once the node has stopped for it.
    pub fn take_kept_socket(&self) -> Option<TcpListener> {
        self.drain.take_kept()
    }

    /// Serves until `shutdown` is closed, on a socket that is bound already or else on the configured address.
    ///
    /// # Errors
    ///
    /// The configured address is not valid, or cannot be bound.
    pub fn listen(&self, settings: &Admin, given: Option<TcpListener>, shutdown: &Shutdown) -> Result<(), BoxError> {
        let socket = given.map_or_else(|| bind(settings), Ok)?;
        listener::listen(&socket)?;
        let addr = socket.local_addr()?;
        let router = Router::new()
            .route("/livez", get(|| async { "ok" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state((self.node.clone(), self.render.clone()));
        let linger = LingerLimits {
            idle: CLIENT_TIMEOUT,
            time: CLIENT_TIMEOUT,
            bytes: MAX_CONNECTIONS * 1024,
            waiting_bodies: Quota::new("admin", MAX_CONNECTIONS),
        };
        let admission = Admission::new(Quota::new("admin", MAX_CONNECTIONS), CLIENT_TIMEOUT, linger);
        let mut protocol = Builder::new();
        protocol.timer(TokioTimer::new()).header_read_timeout(CLIENT_TIMEOUT).keep_alive(false);
        let drain = self.drain.clone();
        let listener = HttpListener { socket, admission, protocol, drain: drain.clone(), quiet: Duration::ZERO };
        let serving = listener.serve(move |_| TowerToHyperService::new(router.clone()));
        let closing = shutdown.clone();
        let ending = async move {
            closing.closed().await; // it serves until then
            drain.begin(closing.successor());
            sleep(LAST_RESPONSES).await;
            drain.cut();
        };
        shutdown.spawn_own(async move {
            tokio::pin!(serving);
            let ended = tokio::select! {
                ended = &mut serving => ended,
                () = ending => serving.await,
            };
            if let Err(error) = ended {
                warn!(%error, "the admin listener ended");
            }
        });
        info!(%addr, "admin listening");
        self.addr.get_or_init(|| addr);
        Ok(())
    }
}

impl std::fmt::Debug for AdminServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AdminServer({:?})", self.addr())
    }
}

#[async_trait]
impl Transport for AdminServer {
    fn name(&self) -> &'static str {
        "admin"
    }

    fn is_for_operators(&self) -> bool {
        true
    }

    fn check(&self, engine: &Engine) -> Result<(), BoxError> {
        wanted_addr(&engine.config().admin).map(drop)
    }

    fn listen_addr(&self) -> Option<SocketAddr> {
        self.addr()
    }

    /// The listener is bound already; from now on `/readyz` reports the health of the node.
    async fn start(&self, engine: &Engine) -> Result<(), BoxError> {
        self.node.get_or_init(|| engine.node().clone());
        Ok(())
    }

    /// Does nothing: operators watch a node stop, so the listener ends last, with the node's own tasks.
    async fn stop_accepting(&self) {}

    async fn finish(&self, _: Instant) -> usize {
        0
    }
}

/// The configured address; `None` for `auto` and for no listener.
fn wanted_addr(settings: &Admin) -> Result<Option<SocketAddr>, BoxError> {
    if settings.bind.is_empty() || settings.bind == Admin::AUTO {
        return Ok(None);
    }
    let wanted = settings.addr().ok_or_else(|| {
        format!("admin.bind {:?} is no address with a port, such as 127.0.0.1:9100 or localhost:9100", settings.bind)
    })?;
    Ok(Some(wanted))
}

/// Binds the configured address. With `auto` it is the usual one, or a free port if that is taken.
fn bind(settings: &Admin) -> Result<TcpListener, BoxError> {
    let Some(wanted) = wanted_addr(settings)? else {
        return TcpListener::bind(Admin::USUAL_BIND).or_else(|error| {
            warn!(wanted = %Admin::USUAL_BIND, %error, "the usual admin address is taken: a free port is used");
            Ok(TcpListener::bind((Admin::USUAL_BIND.ip(), 0))?)
        });
    };
    TcpListener::bind(wanted).map_err(|error| format!("cannot listen on {wanted} (admin.bind): {error}").into())
}

async fn ready(State((node, _)): State<(Arc<OnceLock<Node>>, MetricsRenderer)>) -> Result<Response, Infallible> {
    let problems = node.get().map_or_else(|| vec!["starting".to_owned()], Node::health);
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({ "ready": problems.is_empty(), "problems": problems });
    let media = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((status, media, body.to_string()).into_response())
}

/// The time for the metrics to be rendered: by then the threads that may block are all waiting for a disk.
const RENDERING: Duration = Duration::from_secs(5);

/// Renders on a thread that may block: to count the open files takes 16 ms where there are 20,000.
async fn metrics(State((_, render)): State<(Arc<OnceLock<Node>>, MetricsRenderer)>) -> Response {
    let media = [(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"))];
    match timeout(RENDERING, spawn_blocking(move || render())).await {
        Ok(Ok(text)) => (media, text).into_response(),
        Ok(Err(_)) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "all threads that may block are busy\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::thread::{self, ThreadId};

    use super::*;

    #[tokio::test]
    async fn metrics_are_rendered_on_a_thread_that_may_block() {
        let (on, rendered) = std::sync::mpsc::channel::<ThreadId>();
        let render: MetricsRenderer = Arc::new(move || {
            on.send(thread::current().id()).unwrap();
            String::new()
        });
        assert_eq!(metrics(State((Arc::default(), render))).await.status(), StatusCode::OK);
        assert_ne!(rendered.recv().unwrap(), thread::current().id());
    }
}
