//! The sockets that the parent binds, and hands to its workers.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

/// A socket that is bound, or is to be.
#[derive(Debug)]
pub enum Endpoint {
    /// Of this address.
    Bind(SocketAddr),
    /// Given by the service manager.
    Inherited(OwnedFd),
}

/// A bound socket. It listens only once a worker is ready, so that clients are refused until then instead of waiting.
#[derive(Debug)]
pub(super) struct BoundSocket {
    socket: OwnedFd,
    /// With the port that was chosen, if any was wanted.
    pub(super) addr: SocketAddr,
}

impl BoundSocket {
    pub(super) fn of(endpoint: Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Bind(addr) => Self::bind(addr),
            Endpoint::Inherited(socket) => Self::bound(socket.into()),
        }
    }

    pub(super) fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        Self::bound(socket)
    }

    fn bound(socket: Socket) -> io::Result<Self> {
        let addr = socket.local_addr()?.as_socket();
        let addr = addr.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is no socket of TCP"))?;
        Ok(Self { socket: socket.into(), addr })
    }

    /// Another descriptor of it, for a worker.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }
}

/// The address of the parent's admin listener, from which those of its workers follow.
#[derive(Debug)]
pub struct AdminEndpoint {
    /// The address.
    pub endpoint: Endpoint,
    /// Whether any free port will do if it is taken.
    pub or_free_port: bool,
}

/// Listens for operators.
pub(super) fn listen_for_operators(admin: AdminEndpoint) -> io::Result<TcpListener> {
    let listener = match admin.endpoint {
        Endpoint::Inherited(socket) => TcpListener::from(socket),
        Endpoint::Bind(addr) => TcpListener::bind(addr).or_else(|error| {
            if !admin.or_free_port {
                return Err(io::Error::new(error.kind(), format!("cannot listen on {addr} (admin.bind): {error}")));
            }
            warn!(wanted = %addr, %error, "the usual admin address is taken: a free port is used");
            TcpListener::bind((addr.ip(), 0))
        })?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The admin socket of a worker: so many ports above the parent's, so that it stays the same over restarts. If that is
/// taken, or it has none of its own, any free port. It listens at once: several sockets may be bound to one port, of which
/// only one can listen, and a worker that could not would end.
pub(super) fn listen_for_worker(parent: SocketAddr, offset: Option<u32>) -> io::Result<OwnedFd> {
    let port = offset.and_then(|offset| u16::try_from(u32::from(parent.port()) + offset).ok()).unwrap_or(0);
    let wanted = SocketAddr::new(parent.ip(), port);
    let listener = TcpListener::bind(wanted).or_else(|error| {
        warn!(%wanted, %error, "the admin address of a worker is taken: a free port is used");
        TcpListener::bind((parent.ip(), 0))
    })?;
    Ok(listener.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_workers_get_the_same_admin_port() {
        let parent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let sockets = [0; 2].map(|_| TcpListener::from(listen_for_worker(parent, Some(1)).unwrap()));
        let [one, other] = sockets.map(|socket| socket.local_addr().unwrap().port());
        assert_ne!(one, other);
    }
}
