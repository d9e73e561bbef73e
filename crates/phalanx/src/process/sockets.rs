//! Listening sockets that this process was given instead of binding them.

use std::io;
use std::net::{SocketAddr, TcpListener};

use phalanx_core::config::{Admin, Config, Web};

/// The sockets for clients and for operators, as far as there are any.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pub(crate) web: Option<TcpListener>,
    pub(crate) admin: Option<TcpListener>,
    /// Whether other processes accept from that for clients.
    pub(crate) is_shared: bool,
}

impl Sockets {
    /// Keeps those that the settings name. The new address for clients is bound before a socket of another one is closed.
    pub(super) fn fit(&mut self, config: &Config) {
        if let Some(socket) = self.web.take_if(|socket| !is_web(socket, &config.web)) {
            self.web = phalanx_server::bind(web_addr(&config.web)).ok();
            drop(socket); // the server tries again and reports the error: this one may have been in the way
        }
        self.admin.take_if(|socket| !is_admin(socket, &config.admin));
    }

    /// These, or for those that are missing others.
    pub(super) fn or(self, others: Self) -> Self {
        Self { web: self.web.or(others.web), admin: self.admin.or(others.admin), ..self }
    }

    /// The address of the socket for clients and the one that the settings name, if these are not the same.
    pub(super) fn other_web_addr(&self, settings: &Web) -> Option<(SocketAddr, SocketAddr)> {
        let socket = self.web.as_ref().filter(|socket| !is_web(socket, settings))?;
        Some((socket.local_addr().ok()?, web_addr(settings)))
    }

    /// Other descriptors of the same sockets.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        let clone = |socket: &Option<TcpListener>| socket.as_ref().map(TcpListener::try_clone).transpose();
        Ok(Self { web: clone(&self.web)?, admin: clone(&self.admin)?, ..*self })
    }
}

fn web_addr(settings: &Web) -> SocketAddr {
    SocketAddr::new(settings.bind, settings.port)
}

fn is_web(socket: &TcpListener, settings: &Web) -> bool {
    is_at(socket, web_addr(settings))
}

fn is_admin(socket: &TcpListener, settings: &Admin) -> bool {
    if settings.bind == Admin::AUTO {
        return is_at(socket, SocketAddr::new(Admin::USUAL_BIND.ip(), 0)); // one that is free, if the usual one was not
    }
    settings.addr().is_some_and(|addr| is_at(socket, addr))
}

/// Whether a socket is at an address, whose port may be any.
fn is_at(socket: &TcpListener, wanted: SocketAddr) -> bool {
    socket.local_addr().is_ok_and(|addr| addr.ip() == wanted.ip() && [0, addr.port()].contains(&wanted.port()))
}
