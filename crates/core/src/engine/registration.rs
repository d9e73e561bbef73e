//! A connection's entry in the registry: how it is added, and how it is removed whatever happens.

use super::Engine;
use crate::connection::Connection;
use crate::error::ActionError;
use crate::event::Event;
use crate::protocol::CloseReason;

/// A connection's entry in the registry, owned by the task that serves it.
///
/// Dropped without [`Registration::remove`], because a client left in the middle of its upgrade or a task panicked, it
/// removes the connection all the same: no connection stays in the registry without a task.
#[derive(Debug)]
pub struct Registration {
    engine: Engine,
    connection: Connection,
    is_registered: bool,
    /// Whether hooks and observers know of it, which then learn of its end too.
    is_notified: bool,
}

impl Engine {
    /// Adds a connection to the registry: from here on others find it.
    ///
    /// # Errors
    ///
    /// `conflict` if its id is taken, `unavailable` beyond `websocket.max_connections`.
    pub fn register(&self, connection: Connection) -> Result<Registration, ActionError> {
        connection.set_tag_host(self.parts().tags.host());
        self.parts().connections.insert(&connection)?;
        let metrics = &self.parts().metrics;
        metrics.connections.increment(1);
        metrics.connections_total.increment(1);
        if self.shutdown().is_draining() {
            connection.close(CloseReason::NodeStops); // those that were registered before are closed by `Engine::stop`
        }
        Ok(Registration { engine: self.clone(), connection, is_registered: true, is_notified: false })
    }

    async fn remove(&self, connection: &Connection, reason: CloseReason, is_notified: bool) {
        connection.close(reason);
        self.parts().tags.remove_all(connection);
        self.rooms().leave_all(connection).await;
        if !self.parts().connections.remove(connection) {
            return;
        }
        self.parts().metrics.connections.decrement(1);
        metrics::counter!("phalanx_connections_closed_total", "reason" => reason.as_str()).increment(1);
        if is_notified {
            self.parts().hooks.run_disconnected(connection, reason).await;
            self.registry().observers.notify(&Event::Disconnected(connection.clone(), reason));
        }
    }
}

impl Registration {
    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Runs the `after_connect` hooks, and notifies observers. Without it, as where the upgrade is refused after all, they do not learn
    /// of the connection's end either.
    pub async fn notify_created(&mut self) {
        self.is_notified = true;
        self.engine.parts().hooks.run_connected(&self.connection).await;
        self.connection.close_if_signed_out();
        self.engine.registry().observers.notify(&Event::Connected(self.connection.clone()));
    }

    /// Takes the connection out of its rooms and the registry, then runs hooks and notifies observers. Its id is taken
    /// until it is out of all rooms.
    pub async fn remove(mut self, reason: CloseReason) {
        self.engine.remove(&self.connection, reason, self.is_notified).await;
        self.is_registered = false;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.is_registered {
            let (engine, connection, is_notified) = (self.engine.clone(), self.connection.clone(), self.is_notified);
            let removal = async move { engine.remove(&connection, CloseReason::Broken, is_notified).await };
            self.engine.shutdown().spawn(removal);
        }
    }
}
