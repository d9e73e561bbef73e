//! An application that runs, in this process.

use std::net::SocketAddr;
use std::sync::Arc;

use phalanx_core::{Engine, Node, StopReport};
use phalanx_server::{AdminServer, Server};

use crate::logging;
use crate::process::Sockets;

/// A running application.
#[derive(Debug)]
pub struct RunningApp {
    pub(super) engine: Engine,
    pub(super) server: Arc<Server>,
    pub(super) admin: Arc<AdminServer>,
}

impl RunningApp {
    /// The handle of its node.
    pub fn node(&self) -> &Node {
        self.engine.node()
    }

    #[cfg(feature = "testing")]
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The address that clients connect to. With `web.port = 0` it has the port that was chosen.
    ///
    /// # Panics
    ///
    /// If the node has not the role `web`: see [`RunningApp::web_addr`].
    pub fn addr(&self) -> SocketAddr {
        self.web_addr().expect("a node with the role web listens before it counts as running")
    }

    /// The address that clients connect to, if the node has the role `web`.
    pub fn web_addr(&self) -> Option<SocketAddr> {
        self.server.addr()
    }

    /// Counts the connections of clients, and the sockets among them.
    pub(crate) fn load(&self) -> impl Fn() -> (u64, u64) + Send + 'static {
        let (server, node) = (self.server.clone(), self.node().clone());
        move || {
            let sockets = node.connections().count() as u64;
            (server.http_connections() + sockets, sockets)
        }
    }

    /// The address of the admin listener, if there is one.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.addr()
    }

    /// Stops the application. Every call that was accepted finishes if it does so within `general.grace`.
    pub async fn stop(self) -> StopReport {
        self.engine.stop().await
    }

    /// Stops the application, and returns the listening sockets if the next program of this process is to get them.
    pub(crate) async fn stop_and_keep(self) -> (StopReport, Sockets) {
        let report = self.engine.stop().await;
        let (web, admin) = (self.server.take_kept_socket(), self.admin.take_kept_socket());
        (report, Sockets { web, admin, ..Sockets::default() })
    }

    /// Prints the addresses to stdout, which supervisors read as the sign that the node is ready.
    pub(crate) fn print_addresses(&self) {
        let mut lines = match self.web_addr() {
            Some(addr) => format!("listening on http://{addr}\n"),
            None => "ready, without clients\n".to_owned(),
        };
        if let Some(admin) = self.admin_addr() {
            lines.push_str(&format!("admin on http://{admin}\n"));
        }
        logging::print_ready(&lines);
    }
}
