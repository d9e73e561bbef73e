//! The accept loop: admits connections and serves each in a task of its own, until the listener drains.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, UpgradeableConnection};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use phalanx_core::config::Web;
use phalanx_core::{Successor, bound_reached};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::drain::{Drain, DrainedConnection};
use super::{AcceptedStream, Admission, HYPER_MAX_HEADERS};
use crate::http::identity::Peer;

/// The pause after an error of `accept`, such as too many open files.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// The time in which a listener that drains accepts the connections that the kernel has queued for it.
const LAST_ACCEPTS: Duration = Duration::from_secs(1);

/// The time for handshakes that had begun when further connections were refused: one way there and back to most clients.
const HANDSHAKES: Duration = Duration::from_millis(100);

/// The pause between two looks for them.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// A listening socket with the rules for its connections.
#[derive(Debug)]
pub(crate) struct HttpListener {
    pub(crate) socket: TcpListener,
    pub(crate) admission: Admission,
    pub(crate) protocol: Builder,
    pub(crate) drain: Drain,
    /// How long an idle connection stays open while the listener drains.
    pub(crate) quiet: Duration,
}

/// Hyper's limits by the settings: its own defaults are not safe for the open internet.
pub(crate) fn protocol(settings: &Web) -> Builder {
    let mut protocol = Builder::new();
    let head = settings.max_header_bytes.as_u64() as usize;
    protocol.timer(TokioTimer::new()).header_read_timeout(settings.header_timeout).max_buf_size(head.max(8192));
    if settings.max_headers != HYPER_MAX_HEADERS {
        protocol.max_headers(settings.max_headers); // setting it costs an allocation per request
    }
    protocol
}

impl HttpListener {
    /// Serves until the drain has begun and no connection is left.
    ///
    /// # Errors
    ///
    /// The runtime cannot watch the socket.
    pub(crate) async fn serve<S, B>(self, service: impl Fn(Peer) -> S) -> io::Result<()>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        self.socket.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(self.socket)?;
        let connections = TaskTracker::new();
        let spawn = |stream: TcpStream| {
            let (stream, peer) = match self.admission.admit(stream) {
                Ok(admitted) => admitted,
                Err(error) => return debug!(%error, "a connection is not admitted"),
            };
            let activity = peer.activity.clone();
            let connection = self.protocol.serve_connection(TokioIo::new(stream), service(peer)).with_upgrades();
            let (drain, quiet) = (self.drain.clone(), self.quiet);
            connections.spawn(async move { drain.serve(connection, &activity, quiet).await });
        };
        let accept = async || {
            self.admission.ready().await;
            listener.accept().await
        };
        loop {
            tokio::select! {
                biased;
                () = self.drain.begun() => break,
                accepted = accept() => match accepted {
                    Ok((stream, _)) => spawn(stream),
                    Err(error) => {
                        note_accept_error(&error);
                        sleep(PAUSE_AFTER_ERROR).await;
                    }
                },
            }
        }
        let socket = listener.into_std()?;
        match self.drain.successor() {
            Successor::None => {
                let time = if refuses_further(&socket) { HANDSHAKES } else { Duration::ZERO };
                accept_queued(socket, &self.admission, spawn, time).await;
            }
            Successor::Unknown => accept_queued(socket, &self.admission, spawn, Duration::ZERO).await,
            Successor::Neighbours => drop(socket),
            Successor::NextProgram => self.drain.keep(socket),
        }
        connections.close();
        connections.wait().await;
        Ok(())
    }
}

/// Makes the kernel refuse further connections, while those that it has queued can still be accepted; returns whether it does,
/// for which it has to be Linux 5.7 or later. Without that, what comes
/// between the last look into the queue and the end of the socket is reset, though its client was connected: with clients that
/// connect all the time, one connection in 50 stops.
///
/// A listening socket that is bound to a network interface is not there for what comes over another one, and none has this
/// number. It cannot be taken back without privileges, and counts for all copies of the socket.
fn refuses_further(socket: &TcpListener) -> bool {
    const NO_INTERFACE: Option<NonZeroU32> = NonZeroU32::new(i32::MAX as u32);
    // The option is that of the socket, whatever the family of its address.
    match SockRef::from(socket).bind_device_by_index_v4(NO_INTERFACE) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => true, // another process has done it before
        Err(error) => {
            debug!(%error, "connections may come until the socket is closed");
            false
        }
    }
}

/// Accepts the connections whose clients think that they are connected, and those that get so within a time, then closes the
/// socket.
///
/// As long as there is a place for each, no task runs in between: each response that is sent may bring the next connection of
/// its client, so the queue would not become empty under load, and what comes when the time is over is reset.
async fn accept_queued(listener: TcpListener, admission: &Admission, spawn: impl Fn(TcpStream), time: Duration) {
    let begin = Instant::now();
    let until = begin + LAST_ACCEPTS;
    // Not by way of the runtime, which learns of a connection only some time after the kernel has queued it.
    loop {
        if timeout_at(until, admission.ready()).await.is_err() {
            return bound_reached("last_accepts");
        }
        match listener.accept() {
            Ok((stream, _)) => match stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                Ok(stream) => spawn(stream),
                Err(error) => debug!(%error, "a queued connection is not accepted"),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if begin.elapsed() >= time {
                    return; // the queue is empty
                }
                sleep(BETWEEN_LOOKS).await;
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {} // its client is gone
            Err(error) => return note_accept_error(&error),
        }
        if Instant::now() > until {
            return bound_reached("last_accepts");
        }
    }
}

/// A client that is gone already is nothing to note; no more files is.
fn note_accept_error(error: &io::Error) {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) {
        bound_reached("open_files");
    }
    debug!(%error, "no connection is accepted");
}

impl<S, B> DrainedConnection for UpgradeableConnection<TokioIo<AcceptedStream>, S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    fn poll_serve(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // An error is the client's, such as a malformed head, to which hyper responds itself.
        self.poll(cx).map(drop)
    }

    fn close_when_idle(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn connections_are_refused_while_those_that_wait_can_still_be_accepted() {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(addr).unwrap();
            let addr = listener.local_addr().unwrap();
            let mut waiting = std::net::TcpStream::connect(addr).unwrap();
            assert!(refuses_further(&listener));
            let refused = std::net::TcpStream::connect(addr).map_err(|error| error.kind());
            assert_eq!(refused.err(), Some(io::ErrorKind::ConnectionRefused), "{addr}");
            let (mut accepted, _) = listener.accept().unwrap();
            drop(listener);
            waiting.write_all(b"request").unwrap();
            accepted.read_exact(&mut [0; 7]).unwrap();
            accepted.write_all(b"response").unwrap();
            waiting.read_exact(&mut [0; 8]).unwrap();
        }
    }
}
