//! Stopping as a value: who is asked to stop, and what is waited for.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A node's shutdown: asked, then closed; beside it a tracker for calls and connections, and one for the node's own
/// tasks, which outlive them.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    asked: CancellationToken,
    closed: CancellationToken,
    calls: TaskTracker,
    own: TaskTracker,
}

impl Shutdown {
    /// Spawns a call or a connection: stopping waits for it within the grace.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.calls.spawn(future)
    }

    /// Spawns a task of the node itself, which ends when [`Shutdown::closed`] completes.
    pub fn spawn_own<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.own.spawn(future)
    }

    /// Stopping waits for whoever has this as for a call.
    pub(crate) fn token(&self) -> TaskTrackerToken {
        self.calls.token()
    }

    /// Asks the node to stop; again has no effect.
    pub fn ask(&self) {
        self.asked.cancel();
    }

    /// Completes when the node was asked to stop.
    pub async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// Whether the node was asked to stop.
    pub fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }

    /// Completes when running calls are over or out of time, and the node's own tasks are to end.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// How many calls and connections run.
    pub fn running(&self) -> usize {
        self.calls.len()
    }

    /// Waits for calls and connections, at most until `deadline`; says how many are left.
    pub(crate) async fn calls_finished(&self, deadline: Instant) -> usize {
        self.calls.close();
        let _ = timeout_at(deadline, self.calls.wait()).await;
        self.calls.len()
    }

    /// Ends the node's own tasks.
    pub(crate) async fn close(&self) {
        self.asked.cancel();
        self.closed.cancel();
        self.own.close();
        let _ = timeout(Duration::from_secs(1), self.own.wait()).await;
    }
}
