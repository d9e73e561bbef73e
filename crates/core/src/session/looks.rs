//! The looks at sessions of sockets that are wanted before their time.

use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::connection::Connection;

/// Requests for looks at the sessions of a node's sockets.
#[derive(Debug, Default)]
pub(crate) struct LookRequests {
    /// Wakes the task that looks at all sockets that are due.
    wake: Arc<Notify>,
    had_gap: AtomicBool,
    /// The sockets whose session is said to have changed, each once: no more than there are sockets.
    changed: Mutex<Vec<Connection>>,
    has_changed: Notify,
}

impl LookRequests {
    /// Wakes the task that looks at all sockets.
    pub(crate) fn wake(&self) -> &Arc<Notify> {
        &self.wake
    }

    /// Requests a look at these sockets, since changes of their sessions may have been missed.
    pub(crate) fn add_gap(&self, connections: &[Connection]) {
        connections.iter().filter_map(Connection::session).for_each(|session| session.set_due(0));
        self.had_gap.store(true, Release);
        self.wake.notify_one();
    }

    pub(crate) fn has_gap(&self) -> bool {
        self.had_gap.load(Acquire)
    }

    pub(crate) fn take_gap(&self) -> bool {
        self.had_gap.swap(false, AcqRel)
    }

    /// Requests looks at these sockets before all others: their session is said to have changed.
    pub(crate) fn add_changed(&self, connections: &[Connection]) {
        // This node has closed its own by now, if the change is its own.
        let is_new = |connection: &&Connection| {
            !connection.is_closing() && connection.session().is_some_and(|session| session.set_changed(true))
        };
        let mut changed = self.changed();
        changed.extend(connections.iter().filter(is_new).cloned());
        if !changed.is_empty() {
            self.has_changed.notify_one();
        }
    }

    /// Waits until there are such sockets.
    pub(crate) async fn some_changed(&self) {
        self.has_changed.notified().await;
    }

    /// Takes some of them. A sign that comes from here on is another one.
    pub(super) fn take_changed(&self, most: usize) -> Vec<Connection> {
        let mut changed = self.changed();
        let count = changed.len().min(most);
        let taken: Vec<Connection> = changed.drain(..count).collect();
        for session in taken.iter().filter_map(Connection::session) {
            session.set_changed(false);
        }
        taken
    }

    fn changed(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
