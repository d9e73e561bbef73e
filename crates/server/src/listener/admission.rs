//! Admission of connections: their number is limited, and each gets a service that knows its peer.

use std::future::{Ready, ready};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use axum_server::accept::Accept;
use tokio::net::TcpStream;

use super::AcceptedStream;
use super::linger::LingerLimits;
use crate::http::identity::Peer;
use crate::quota::{Quota, QuotaPermit};

/// Admits connections up to a quota; beyond it they are closed at once and counted.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    connections: Quota,
    write_timeout: Duration,
    linger: Arc<LingerLimits>,
}

impl Admission {
    pub(crate) fn new(connections: Quota, write_timeout: Duration, linger: LingerLimits) -> Self {
        Self { connections, write_timeout, linger: Arc::new(linger) }
    }
}

/// A service that is made for one peer.
pub(crate) trait PeerService {
    /// Returns the service for the connection of `peer`.
    fn for_peer(self, peer: Peer) -> Self;
}

impl<S: PeerService> Accept<TcpStream, S> for Admission {
    type Stream = AcceptedStream;
    type Service = S;
    type Future = Ready<io::Result<(AcceptedStream, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        ready(match self.connections.try_acquire(1) {
            Some(permit) => self.admit(stream, service, permit),
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        })
    }
}

impl Admission {
    fn admit<S: PeerService>(
        &self,
        stream: TcpStream,
        service: S,
        permit: QuotaPermit,
    ) -> io::Result<(AcceptedStream, S)> {
        stream.set_nodelay(true)?;
        let sending = Arc::<AtomicU32>::default();
        let peer = Peer { addr: stream.peer_addr()?, sending: sending.clone() };
        let stream = AcceptedStream {
            stream,
            resets_on_drop: false,
            sending,
            write_timeout: self.write_timeout,
            write_deadline: None,
            did_first_read: false,
            linger: self.linger.clone(),
            lingering: None,
            _permit: permit,
        };
        Ok((stream, service.for_peer(peer)))
    }
}
