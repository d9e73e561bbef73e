//! A network between a node and its Redis that fails on demand.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::flow::{Connections, Direction, Flow, OpenConnection};
use crate::resp::value_len;

/// Forwards bytes between clients and a server, until a fault is set.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    link: watch::Sender<LinkState>,
    faults: Arc<Mutex<NetworkFaults>>,
    server: watch::Sender<SocketAddr>,
    connections: Arc<Connections>,
    accepting: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    Up,
    /// Bytes are kept back.
    Paused,
    /// All connections are closed, and new ones at once.
    Cut,
    /// On all connections, new ones included, bytes are dropped for good, and neither side gets an error.
    Silent,
}

#[derive(Debug, Default)]
struct NetworkFaults {
    delay: Duration,
    /// A reply or message of the server that contains one of these is dropped, once for each.
    swallow: Vec<Vec<u8>>,
    /// Requests of this flow are held from the first one on that contains these bytes.
    hold_from: Option<(Flow, Vec<u8>)>,
    /// Replies on a connection that has sent these bytes are delayed.
    delay_replies_to: Option<(Vec<u8>, Duration)>,
}

impl NetworkFaults {
    /// How long bytes that were read are delayed.
    fn delay(&self, direction: Direction, read: &[u8], connection: &OpenConnection) -> Duration {
        let Some((part, delay)) = &self.delay_replies_to else { return self.delay };
        match direction {
            Direction::ToServer if contains(read, part) => connection.slow_down(),
            Direction::ToClient if connection.is_slow() => return self.delay + *delay,
            Direction::ToServer | Direction::ToClient => {}
        }
        self.delay
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

impl Proxy {
    /// Starts a proxy in front of a server.
    ///
    /// # Panics
    ///
    /// If this machine has no port left.
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let addr = listener.local_addr().expect("a listener has an address");
        let link = watch::Sender::new(LinkState::Up);
        let faults = Arc::new(Mutex::new(NetworkFaults::default()));
        let server = watch::Sender::new(server);
        let connections = Arc::<Connections>::default();
        let state = (link.subscribe(), faults.clone(), connections.clone());
        let accepting = tokio::spawn(accept(listener, server.subscribe(), state));
        Self { addr, link, faults, server, connections, accepting }
    }

    /// Leads connections that are opened from now on to another server; those that are open stay where they are.
    pub fn switch_to(&self, server: SocketAddr) {
        self.server.send_replace(server);
    }

    /// The address for clients.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes all connections, and each new one at once, until [`Proxy::restore`].
    pub fn cut(&self) {
        self.link.send_replace(LinkState::Cut);
    }

    /// Keeps all connections open and forwards nothing until [`Proxy::restore`]; then everything arrives.
    pub fn pause(&self) {
        self.link.send_replace(LinkState::Paused);
    }

    /// Drops everything silently: connections remain open, and nothing is ever forwarded over them again. Connections
    /// that are opened after [`Proxy::restore`] work.
    pub fn silence(&self) {
        self.link.send_replace(LinkState::Silent);
    }

    /// Ends [`Proxy::cut`], [`Proxy::pause`] and [`Proxy::silence`].
    pub fn restore(&self) {
        self.link.send_replace(LinkState::Up);
    }

    /// Keeps back all requests of the connections that are open now, until [`Proxy::release`]; they then reach the server
    /// even if the client has closed its end. New connections work.
    pub fn hold(&self) {
        self.connections.hold(None, Direction::ToServer);
    }

    /// Keeps back one direction of the connections of this flow that are open now, until [`Proxy::release`];
    /// requests then reach the server even if the client has closed its end. New connections work.
    pub fn hold_flow(&self, flow: Flow, direction: Direction) {
        self.connections.hold(Some(flow), direction);
    }

    /// Does the same for requests, from the first one on that contains these bytes.
    pub fn hold_flow_from(&self, flow: Flow, bytes: impl Into<Vec<u8>>) {
        faults(&self.faults).hold_from = Some((flow, bytes.into()));
    }

    /// Ends [`Proxy::hold`], [`Proxy::hold_flow`] and [`Proxy::hold_flow_from`].
    pub fn release(&self) {
        faults(&self.faults).hold_from = None;
        self.connections.release();
    }

    /// Closes the connections of this flow that are open now.
    pub fn close_flow(&self, flow: Flow) {
        self.connections.close(flow);
    }

    /// Delays everything that is read from now on, in each direction.
    pub fn delay(&self, delay: Duration) {
        faults(&self.faults).delay = delay;
    }

    /// Delays everything that the server sends on the connections that send these bytes from now on.
    pub fn delay_replies_to(&self, bytes: impl Into<Vec<u8>>, delay: Duration) {
        faults(&self.faults).delay_replies_to = Some((bytes.into(), delay));
    }

    /// Drops the next reply or message of the server that contains these bytes.
    pub fn swallow(&self, bytes: impl Into<Vec<u8>>) {
        faults(&self.faults).swallow.push(bytes.into());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

fn faults(faults: &Mutex<NetworkFaults>) -> std::sync::MutexGuard<'_, NetworkFaults> {
    faults.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(
    listener: TcpListener,
    server: watch::Receiver<SocketAddr>,
    (link, faults, connections): (watch::Receiver<LinkState>, Arc<Mutex<NetworkFaults>>, Arc<Connections>),
) {
    while let Ok((client, _)) = listener.accept().await {
        if *link.borrow() == LinkState::Cut {
            continue;
        }
        let (mut cut, mut silent, link, faults) = (link.clone(), link.clone(), link.clone(), faults.clone());
        let (server, connection) = (*server.borrow(), connections.opened());
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else { return };
            // As the ends have it: a small request behind another would wait for an acknowledgement, 40 ms.
            if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
                return;
            }
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            let shared = (faults, connection.clone());
            let mut requests = pin!(pump(from_client, to_server, link.clone(), shared.clone(), Direction::ToServer));
            let mut replies = pin!(pump(from_server, to_client, link, shared, Direction::ToClient));
            let is_silent = tokio::select! {
                // In order: bytes that arrive after the network went silent must not be forwarded.
                biased;
                _ = silent.wait_for(|link| *link == LinkState::Silent) => true,
                // If either side has closed or the link is cut, dropping the halves closes both connections.
                _ = cut.wait_for(|link| *link == LinkState::Cut) => false,
                () = connection.closed() => false,
                () = &mut requests => false,
                () = &mut replies => false,
            };
            if is_silent {
                let _ = cut.wait_for(|link| *link == LinkState::Cut).await;
            }
        });
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut link: watch::Receiver<LinkState>,
    (shared, connection): (Arc<Mutex<NetworkFaults>>, OpenConnection),
    direction: Direction,
) {
    const AT_ONCE: usize = 16 * 1024; // the delay applies to each read
    let mut bytes = Vec::with_capacity(AT_ONCE);
    let mut is_open = true;
    while is_open && from.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
        if direction == Direction::ToServer {
            connection.identify(&bytes);
            let mut faults = faults(&shared);
            if let Some((flow, _)) =
                faults.hold_from.take_if(|(flow, part)| connection.is_of(*flow) && contains(&bytes, part))
            {
                connection.hold_all(flow, direction);
            }
        }
        let delay = faults(&shared).delay(direction, &bytes, &connection);
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if link.wait_for(|link| *link == LinkState::Up).await.is_err() {
            return;
        }
        if connection.is_held(direction) {
            is_open = connection.collect(direction, &mut from, &mut bytes).await;
        }
        let ready = match direction {
            Direction::ToServer => std::mem::take(&mut bytes),
            Direction::ToClient => take_forwarded(&mut bytes, &shared),
        };
        // Replies to requests that are held are read, also if the client has gone: a connection that is closed with
        // unread bytes is reset, and the server drops the requests that it has not read.
        if to.write_all(&ready).await.is_err() && !connection.is_late() && !connection.is_held(Direction::ToServer) {
            return;
        }
        bytes.reserve(AT_ONCE);
    }
    if direction == Direction::ToServer && connection.is_late() {
        // The server closes when it has read everything, which ends the other direction.
        let _ = to.shutdown().await;
        std::future::pending().await
    }
}

/// Takes the complete values out of `bytes`, except those that are to be dropped.
fn take_forwarded(bytes: &mut Vec<u8>, shared: &Mutex<NetworkFaults>) -> Vec<u8> {
    let mut faults = faults(shared);
    let (mut ready, mut done) = (Vec::new(), 0);
    while let Some(len) = bytes.get(done..).filter(|rest| !rest.is_empty()).and_then(value_len) {
        let value = &bytes[done..done + len];
        let dropped = faults.swallow.iter().position(|part| contains(value, part));
        match dropped {
            Some(index) => drop(faults.swallow.remove(index)),
            None => ready.extend_from_slice(value),
        }
        done += len;
    }
    bytes.drain(..done);
    ready
}
