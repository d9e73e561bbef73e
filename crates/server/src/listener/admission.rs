//! Whom the listener admits.

use std::future::{Ready, ready};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum_server::accept::Accept;
use tokio::net::TcpStream;

use super::Stream;
use crate::http::identity::Peer;
use crate::quota::{Bound, Share};

/// Admits connections up to a number; beyond, they are closed at once and counted.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    connections: Bound,
    write_timeout: Duration,
}

impl Admission {
    pub(crate) fn new(connections: Bound, write_timeout: Duration) -> Self {
        Self { connections, write_timeout }
    }
}

/// What serves a connection, once it is known whose.
pub(crate) trait Serve {
    /// The service for one client.
    fn for_peer(self, peer: Peer) -> Self;
}

impl<S: Serve> Accept<TcpStream, S> for Admission {
    type Stream = Stream;
    type Service = S;
    type Future = Ready<io::Result<(Stream, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        ready(match self.connections.take(1) {
            Some(place) => self.admit(stream, service, place),
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        })
    }
}

impl Admission {
    fn admit<S: Serve>(&self, stream: TcpStream, service: S, place: Share) -> io::Result<(Stream, S)> {
        stream.set_nodelay(true)?;
        let is_sending = Arc::<AtomicBool>::default();
        let peer = Peer { addr: stream.peer_addr()?, is_sending: is_sending.clone() };
        let stream = Stream {
            stream,
            is_to_reset: false,
            is_sending,
            write_timeout: self.write_timeout,
            stalled: None,
            is_begun: false,
            lingering: None,
            _place: place,
        };
        Ok((stream, service.for_peer(peer)))
    }
}
