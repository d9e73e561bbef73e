//! Admission of connections: their number is limited, and each gets a stream with its bounds.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::config::Network;
use tokio::net::TcpStream;

use super::AcceptedStream;
use super::activity::Activity;
use super::linger::LingerLimits;
use crate::http::identity::Peer;
use crate::quota::Quota;
use crate::shares::{self, AddressShare, AddressShares, SharedBound};

/// Admits connections up to a quota.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    connections: Quota,
    beyond: Beyond,
    write_timeout: Duration,
    linger: Arc<LingerLimits>,
    shares: Option<Arc<AddressShares>>,
    trusted_proxies: Arc<[Network]>,
}

/// The fate of a connection for which the quota has no place. Either is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Beyond {
    /// It is closed at once.
    #[default]
    Close,
    /// It stays in the queue of the listening socket, where other processes may accept it, until a place is free.
    Leave,
}

impl Admission {
    pub(crate) fn new(connections: Quota, write_timeout: Duration, linger: LingerLimits) -> Self {
        let (shares, trusted_proxies) = (None, Arc::default());
        let beyond = Beyond::default();
        Self { connections, beyond, write_timeout, linger: Arc::new(linger), shares, trusted_proxies }
    }

    /// Sets the fate of connections beyond the quota.
    pub(crate) fn with_beyond(self, beyond: Beyond) -> Self {
        Self { beyond, ..self }
    }

    /// Limits each address to its share, trusted proxies excepted: their clients have shares of their own.
    pub(crate) fn with_shares(self, shares: Arc<AddressShares>, trusted_proxies: &[Network]) -> Self {
        Self { shares: Some(shares), trusted_proxies: trusted_proxies.into(), ..self }
    }

    /// Completes when the next connection is to be accepted. Safe to cancel.
    pub(super) async fn ready(&self) {
        match self.beyond {
            Beyond::Close => {}
            Beyond::Leave => self.connections.some_free().await,
        }
    }

    /// Admits an accepted connection.
    ///
    /// # Errors
    ///
    /// The node, or the address of the peer, has as many connections as it may; or the peer has left already.
    pub(super) fn admit(&self, stream: TcpStream) -> io::Result<(AcceptedStream, Peer)> {
        let permit = self.connections.try_acquire(1).ok_or(io::ErrorKind::ConnectionRefused)?;
        stream.set_nodelay(true)?;
        let addr = stream.peer_addr()?;
        let share = self.share_of(addr.ip());
        let share_permit = shares::take(share.as_ref(), SharedBound::Connections)
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        let activity = Arc::<Activity>::default();
        let peer = Peer { addr, activity: activity.clone(), share: share.clone() };
        let stream = AcceptedStream {
            stream,
            resets_on_drop: false,
            activity,
            write_timeout: self.write_timeout,
            write_deadline: None,
            linger: self.linger.clone(),
            share,
            lingering: None,
            permit: Some((permit, share_permit)),
        };
        Ok((stream, peer))
    }

    fn share_of(&self, address: IpAddr) -> Option<Arc<AddressShare>> {
        let is_trusted = self.trusted_proxies.iter().any(|trusted| trusted.contains(address));
        self.shares.as_ref().filter(|_| !is_trusted)?.of(address)
    }
}
