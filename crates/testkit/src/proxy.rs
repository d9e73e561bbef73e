//! A network that fails on demand, between a node and its Redis.

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

use crate::resp::value_len;

/// Hands bytes on between clients and a server, unless it is told otherwise.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    link: watch::Sender<Link>,
    faults: Arc<Mutex<Faults>>,
    accepting: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Whole,
    /// Bytes wait.
    Held,
    /// Connections are gone, and new ones go at once.
    Cut,
    /// Connections, new ones too, are forgotten on the way: nothing passes any more, and neither side is told.
    Silent,
}

#[derive(Debug, Default)]
struct Faults {
    delay: Duration,
    /// Answers and messages of the server that contain one of these are swallowed, once each.
    swallow: Vec<Vec<u8>>,
}

impl Proxy {
    /// Stands in front of a server.
    ///
    /// # Panics
    ///
    /// If this machine has no port left.
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let addr = listener.local_addr().expect("a listener has an address");
        let link = watch::Sender::new(Link::Whole);
        let faults = Arc::new(Mutex::new(Faults::default()));
        let accepting = tokio::spawn(accept(listener, server, link.subscribe(), faults.clone()));
        Self { addr, link, faults, accepting }
    }

    /// Where clients reach it.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Breaks every connection off, and each new one at once, until [`Proxy::mend`].
    pub fn cut(&self) {
        self.link.send_replace(Link::Cut);
    }

    /// Keeps every connection and hands nothing on, until [`Proxy::mend`]; then all of it arrives.
    pub fn hold(&self) {
        self.link.send_replace(Link::Held);
    }

    /// Drops everything in silence: connections stay open, and nothing is ever handed on over them again. Those made
    /// after [`Proxy::mend`] are whole.
    pub fn silence(&self) {
        self.link.send_replace(Link::Silent);
    }

    /// Ends [`Proxy::cut`], [`Proxy::hold`] and [`Proxy::silence`].
    pub fn mend(&self) {
        self.link.send_replace(Link::Whole);
    }

    /// From now on, what is read arrives so much later, each way.
    pub fn delay(&self, delay: Duration) {
        faults(&self.faults).delay = delay;
    }

    /// Swallows the next answer or message of the server that contains these bytes.
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

fn faults(faults: &Mutex<Faults>) -> std::sync::MutexGuard<'_, Faults> {
    faults.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, server: SocketAddr, link: watch::Receiver<Link>, faults: Arc<Mutex<Faults>>) {
    while let Ok((client, _)) = listener.accept().await {
        if *link.borrow() == Link::Cut {
            continue;
        }
        let (mut cut, mut silent, link, faults) = (link.clone(), link.clone(), link.clone(), faults.clone());
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else { return };
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            let mut asking = pin!(pump(from_client, to_server, link.clone(), faults.clone(), Way::ToServer));
            let mut answering = pin!(pump(from_server, to_client, link, faults, Way::ToClient));
            let is_silent = tokio::select! {
                // First of all: what arrives after the network went silent is not handed on.
                biased;
                _ = silent.wait_for(|link| *link == Link::Silent) => true,
                // Either side gone, or the link cut: dropping the halves closes both connections.
                _ = cut.wait_for(|link| *link == Link::Cut) => false,
                () = &mut asking => false,
                () = &mut answering => false,
            };
            if is_silent {
                let _ = cut.wait_for(|link| *link == Link::Cut).await;
            }
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut link: watch::Receiver<Link>,
    shared: Arc<Mutex<Faults>>,
    way: Way,
) {
    const AT_ONCE: usize = 16 * 1024; // each of them is delayed
    let mut bytes = Vec::with_capacity(AT_ONCE);
    while from.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
        let delay = faults(&shared).delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if link.wait_for(|link| *link == Link::Whole).await.is_err() {
            return;
        }
        let ready = match way {
            Way::ToServer => std::mem::take(&mut bytes),
            Way::ToClient => unswallowed(&mut bytes, &shared),
        };
        if to.write_all(&ready).await.is_err() {
            return;
        }
        bytes.reserve(AT_ONCE);
    }
}

/// Takes the whole values out of `bytes`, less those that are to be swallowed.
fn unswallowed(bytes: &mut Vec<u8>, shared: &Mutex<Faults>) -> Vec<u8> {
    let mut faults = faults(shared);
    let (mut ready, mut done) = (Vec::new(), 0);
    while let Some(len) = bytes.get(done..).filter(|rest| !rest.is_empty()).and_then(value_len) {
        let value = &bytes[done..done + len];
        let doomed = faults.swallow.iter().position(|part| value.windows(part.len()).any(|window| window == part));
        match doomed {
            Some(doomed) => drop(faults.swallow.remove(doomed)),
            None => ready.extend_from_slice(value),
        }
        done += len;
    }
    bytes.drain(..done);
    ready
}
