//! The connections of this node, by id.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::connection::Connection;
use crate::error::{ActionError, ErrorKind};
use crate::id::ConnectionId;
use crate::metrics::bound_reached;
use crate::protocol::CloseReason;

/// The connections of this node, by id. No guard of the map leaves it.
#[derive(Debug)]
pub(crate) struct ConnectionRegistry {
    map: DashMap<ConnectionId, Connection>,
    /// Counted apart: the map's own length locks all its shards.
    count: AtomicUsize,
    max: usize,
}

impl ConnectionRegistry {
    /// An empty registry for at most `max` connections.
    pub(crate) fn new(max: usize) -> Self {
        Self { map: DashMap::new(), count: AtomicUsize::new(0), max }
    }

    pub(crate) fn find(&self, id: &ConnectionId) -> Option<Connection> {
        self.map.get(id).map(|entry| entry.value().clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    pub(crate) fn all(&self) -> Vec<Connection> {
        self.map.iter().map(|entry| entry.value().clone()).collect()
    }

    pub(crate) fn ids(&self) -> Vec<ConnectionId> {
        self.map.iter().map(|entry| entry.key().clone()).collect()
    }

    /// Adds a connection: from here on others find it.
    ///
    /// # Errors
    ///
    /// `conflict` if its id is taken, `unavailable` beyond `websocket.max_connections`.
    pub(crate) fn insert(&self, connection: &Connection) -> Result<(), ActionError> {
        if self.count.fetch_add(1, Relaxed) >= self.max {
            self.count.fetch_sub(1, Relaxed);
            bound_reached("websocket.max_connections");
            let message = "the node has as many connections as it may";
            return Err(ActionError::of(ErrorKind::Unavailable, message).with_retry_after(Duration::from_secs(5)));
        }
        match self.map.entry(connection.id().clone()) {
            Entry::Occupied(_) => {
                self.count.fetch_sub(1, Relaxed);
                Err(ActionError::conflict("a connection with this id exists"))
            }
            Entry::Vacant(entry) => {
                entry.insert(connection.clone());
                Ok(())
            }
        }
    }

    /// Removes a connection; `false` if it was not there, or another one has its id.
    pub(crate) fn remove(&self, connection: &Connection) -> bool {
        let removed = self.map.remove_if(connection.id(), |_, other| other == connection).is_some();
        if removed {
            self.count.fetch_sub(1, Relaxed);
        }
        removed
    }

    /// Pings every connection, and closes those that sent nothing since the last ping.
    pub(crate) async fn sweep(&self) {
        // A connection that closes is not read any more, so its silence means nothing.
        let open = self.all().into_iter().filter(|connection| !connection.is_closing());
        for (n, connection) in open.enumerate() {
            if connection.take_alive() {
                connection.ping()
            } else {
                connection.close(CloseReason::HeartbeatLost)
            }
            if n % 256 == 255 {
                tokio::task::yield_now().await;
            }
        }
    }
}
