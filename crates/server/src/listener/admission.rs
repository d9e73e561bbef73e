//! Admission of connections: their number is limited, and each gets a service that knows its peer.

use std::future::{Ready, ready};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use axum_server::accept::Accept;
use phalanx_core::config::Network;
use tokio::net::TcpStream;

use super::AcceptedStream;
use super::linger::LingerLimits;
use crate::http::identity::Peer;
use crate::quota::{Quota, QuotaPermit};
use crate::shares::{self, AddressShare, AddressShares, SharedBound};

/// Admits connections up to a quota; beyond it they are closed at once and counted.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    connections: Quota,
    write_timeout: Duration,
    linger: Arc<LingerLimits>,
    shares: Option<Arc<AddressShares>>,
    trusted_proxies: Arc<[Network]>,
}

impl Admission {
    pub(crate) fn new(connections: Quota, write_timeout: Duration, linger: LingerLimits) -> Self {
        let (shares, trusted_proxies) = (None, Arc::default());
        Self { connections, write_timeout, linger: Arc::new(linger), shares, trusted_proxies }
    }

    /// Limits each address to its share, trusted proxies excepted: their clients have shares of their own.
    pub(crate) fn with_shares(self, shares: Arc<AddressShares>, trusted_proxies: &[Network]) -> Self {
        Self { shares: Some(shares), trusted_proxies: trusted_proxies.into(), ..self }
    }

    fn share_of(&self, address: IpAddr) -> Option<Arc<AddressShare>> {
        let is_trusted = self.trusted_proxies.iter().any(|trusted| trusted.contains(address));
        self.shares.as_ref().filter(|_| !is_trusted)?.of(address)
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
        let addr = stream.peer_addr()?;
        let share = self.share_of(addr.ip());
        let share_permit = shares::take(share.as_ref(), SharedBound::Connections)
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        let peer = Peer { addr, sending: sending.clone(), share: share.clone() };
        let stream = AcceptedStream {
            stream,
            resets_on_drop: false,
            sending,
            write_timeout: self.write_timeout,
            write_deadline: None,
            did_first_read: false,
            linger: self.linger.clone(),
            share,
            lingering: None,
            permit: Some((permit, share_permit)),
        };
        Ok((stream, service.for_peer(peer)))
    }
}
