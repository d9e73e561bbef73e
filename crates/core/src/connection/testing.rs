//! Connections without sockets, for tests of what is queued for many of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Wake, Waker};

use super::{Attributes, Connection, NewConnection, OutboxLimit};
use crate::id::ConnectionId;

pub(crate) fn connection(number: usize, outbox: OutboxLimit) -> Connection {
    Connection::new(NewConnection {
        id: ConnectionId::parse(&format!("a-{number}")).unwrap(),
        fingerprint: "f".into(),
        remote: ([127, 0, 0, 1], 1).into(),
        attributes: Attributes::limited(1000),
        connected_at: 0,
        outbox,
    })
}

/// Counts the wake-ups of tasks of connections.
#[derive(Default)]
pub(crate) struct CountedWakes(AtomicUsize);

impl CountedWakes {
    pub(crate) fn count(&self) -> usize {
        self.0.load(SeqCst)
    }

    /// The waker of a connection's task.
    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(self.clone())
    }
}

impl Wake for CountedWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}
