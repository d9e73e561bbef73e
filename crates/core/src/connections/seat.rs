//! A connection's place in the registry: how it is taken, and how it is given up whatever happens.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use dashmap::mapref::entry::Entry;

use super::Connections;
use crate::connection::{CloseReason, Connection};
use crate::error::{ActionError, ErrorKind};
use crate::event::Event;
use crate::metrics::bound_reached;
use crate::node::Node;

/// A connection's place in the registry, held by whoever serves it.
///
/// Dropped without [`Seat::remove`], because a client left in the middle of its upgrade or something panicked, it
/// takes the connection out all the same: nobody is left in the registry whom nobody serves.
#[derive(Debug)]
pub struct Seat {
    node: Node,
    connection: Connection,
    is_in: bool,
}

impl Connections {
    /// Adds a connection to the registry: from here on others find it.
    ///
    /// # Errors
    ///
    /// `conflict` if its id is taken, `unavailable` beyond `websocket.max_connections`.
    pub fn insert(&self, connection: Connection) -> Result<Seat, ActionError> {
        let table = self.table();
        let most = self.node.config().websocket.max_connections;
        if table.count.fetch_add(1, Relaxed) >= most {
            table.count.fetch_sub(1, Relaxed);
            bound_reached("websocket.max_connections");
            let message = "the node has as many connections as it may";
            return Err(ActionError::of(ErrorKind::Unavailable, message).with_retry_after(Duration::from_secs(5)));
        }
        match table.map.entry(connection.id().clone()) {
            Entry::Occupied(_) => {
                table.count.fetch_sub(1, Relaxed);
                return Err(ActionError::conflict("a connection with this id exists"));
            }
            Entry::Vacant(place) => place.insert(connection.clone()),
        };
        let metrics = self.node.metrics();
        metrics.connections.increment(1);
        metrics.connections_total.increment(1);
        if self.node.shutdown().is_asked() {
            connection.close(CloseReason::NodeStops); // those that came before are told by `Node::stop`
        }
        Ok(Seat { node: self.node.clone(), connection, is_in: true })
    }
}

impl Seat {
    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Tells the application who came.
    pub async fn tell_created(&self) {
        for hook in &self.node.registry().connection_hooks {
            self.node.guarded("created", hook.created(&self.node, &self.connection)).await;
        }
        self.node.tell(&Event::Connected(self.connection.clone()));
    }

    /// Takes the connection out of its rooms and the registry, and tells the application. Its id is taken until it is
    /// out of all rooms.
    pub async fn remove(mut self, reason: CloseReason) {
        take_out(&self.node, &self.connection, reason).await;
        self.is_in = false;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.is_in {
            let (node, connection) = (self.node.clone(), self.connection.clone());
            let removal = async move { take_out(&node, &connection, CloseReason::Broken).await };
            self.node.shutdown().spawn(removal);
        }
    }
}

async fn take_out(node: &Node, connection: &Connection, reason: CloseReason) {
    connection.close(reason);
    node.rooms().leave_all(connection).await;
    let table = node.connection_table();
    if table.map.remove_if(connection.id(), |_, other| other == connection).is_none() {
        return;
    }
    table.count.fetch_sub(1, Relaxed);
    let metrics = node.metrics();
    metrics.connections.decrement(1);
    metrics::counter!("phalanx_connections_closed_total", "reason" => reason.as_str()).increment(1);
    for hook in &node.registry().connection_hooks {
        node.guarded("destroyed", hook.destroyed(node, connection, reason)).await;
    }
    node.tell(&Event::Disconnected(connection.clone(), reason));
}
