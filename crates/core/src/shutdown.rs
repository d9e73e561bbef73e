//! Shutdown as a value: the request to stop, and the tasks that stopping waits for.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::config::General;
use crate::cut::{CutWork, UnfinishedWork};

/// The process that serves the clients of a node once it has stopped. Of several requests the first of these counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Successor {
    /// None: the node takes no further connections, and serves those that wait for it before it closes its listening
    /// socket, of which no other process may have a copy then. Only an explicit request says so.
    None,
    /// None that this process knows of, but others may have copies of the listening socket: the node serves the connections
    /// that wait, and closes its copy.
    #[default]
    Unknown,
    /// Other processes, which accept from the same socket: the node closes its copy at once, without
    /// `general.stop_delay`.
    Neighbours,
    /// The program that this process executes next: it gets the listening socket, with the connections that wait.
    NextProgram,
}

/// How a node is to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopRequest {
    /// The process that serves its clients afterwards.
    pub successor: Successor,
    /// The time that the node has at most, if that is shorter than `general.grace`.
    pub grace: Option<Duration>,
}

impl StopRequest {
    /// Both together: the shorter grace, and the successor that promises the least.
    fn and(self, other: Self) -> Self {
        let grace = self.grace.into_iter().chain(other.grace).min();
        Self { successor: self.successor.min(other.successor), grace }
    }
}

/// A node's shutdown: requested, then draining, then closed. One tracker counts calls and connections, another the node's own
/// tasks, which outlive them.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    requested: CancellationToken,
    request: Arc<Mutex<Option<StopRequest>>>,
    cut: Arc<CutWork>,
    draining: CancellationToken,
    bodies_due: CancellationToken,
    closed: CancellationToken,
    calls: TaskTracker,
    background: TaskTracker,
}

impl Shutdown {
    /// Spawns a call or a connection. Stopping waits for it within the grace period.
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
        self.background.spawn(future)
    }

    /// Returns a token that counts as a running call: stopping waits until it is dropped.
    pub(crate) fn token(&self) -> TaskTrackerToken {
        self.calls.token()
    }

    /// Requests the node to stop. A second request changes only what the node has not done yet, and takes nothing of the
    /// first back: a worker whose parent is gone has no more time because a signal comes as well.
    pub fn request(&self, request: StopRequest) {
        let mut requested = self.stop_request();
        *requested = Some(requested.map_or(request, |earlier| earlier.and(request)));
        drop(requested);
        self.requested.cancel();
    }

    /// Work that is dropped from then on counts as cut off.
    pub fn cut_from(&self, instant: Instant) {
        self.cut.begins_at(instant);
    }

    /// Cuts off what runs. Parts with threads of their own note their work meanwhile, for 500 ms at most; what the node's
    /// runtime runs is noted when that is dropped.
    pub async fn cut(&self) {
        self.cut.begin().await;
    }

    /// Completes at [`cut`](Self::cut). A part that reacts to it holds a [`part_of_cut`](Self::part_of_cut).
    pub async fn cut_off(&self) {
        self.cut.begun().await;
    }

    /// A part of the node that notes its work when it is cut off, and drops this once it has.
    pub fn part_of_cut(&self) -> TaskTrackerToken {
        self.cut.part()
    }

    /// Work that begins now: its name is noted if it is cut off.
    pub fn unfinished<F: FnOnce() -> String>(&self, name: F) -> UnfinishedWork<F> {
        UnfinishedWork::new(self.cut.clone(), name)
    }

    /// Notes the name of work that is dropped before its end, if it is cut off.
    pub fn note_cut(&self, name: impl FnOnce() -> String) {
        self.cut.note(name);
    }

    /// The names of the work that was cut off, 20 of them at most; `None` if there was none.
    pub fn cut_work(&self) -> Option<String> {
        self.cut.text()
    }

    /// The process that serves the clients of this node once it has stopped.
    pub fn successor(&self) -> Successor {
        self.stop_request().unwrap_or_default().successor
    }

    /// The time that the node has to stop.
    pub(crate) fn grace(&self, settings: &General) -> Duration {
        self.stop_request().unwrap_or_default().grace.map_or(settings.grace, |grace| grace.min(settings.grace))
    }

    fn stop_request(&self) -> MutexGuard<'_, Option<StopRequest>> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes when the stop was requested.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Begins to drain: from here on nothing new is taken.
    pub(crate) fn begin_drain(&self) {
        self.requested.cancel();
        self.draining.cancel();
    }

    /// Completes when the node begins to drain, `general.stop_delay` after the request.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Whether the node drains.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Completes shortly before the grace is over: a call whose body has not come by then is refused, while its client
    /// can still get the response.
    pub async fn bodies_due(&self) {
        self.bodies_due.cancelled().await;
    }

    /// Refuses the calls whose bodies are awaited at `deadline`.
    pub(crate) fn refuse_bodies_at(&self, deadline: Instant) {
        let shutdown = self.clone();
        self.spawn_own(async move {
            if timeout_at(deadline, shutdown.closed()).await.is_err() {
                shutdown.bodies_due.cancel();
            }
        });
    }

    /// Completes when running calls have ended or run out of time, and the node's own tasks must end.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// The number of running calls and connections.
    pub fn running(&self) -> usize {
        self.calls.len()
    }

    /// Waits for calls and connections, at most until `deadline`; returns how many still run.
    pub(crate) async fn calls_finished(&self, deadline: Instant) -> usize {
        self.calls.close();
        let _ = timeout_at(deadline, self.calls.wait()).await;
        self.calls.len()
    }

    /// Ends the node's own tasks, and waits for them for a second at most.
    pub(crate) async fn close(&self) {
        self.begin_drain();
        self.closed.cancel();
        self.background.close();
        let _ = timeout(Duration::from_secs(1), self.background.wait()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_request_takes_nothing_of_an_earlier_one_back() {
        let request = |successor, grace: Option<u64>| StopRequest { successor, grace: grace.map(Duration::from_secs) };
        for (requests, successor, grace) in [
            (vec![], Successor::Unknown, 30),
            (vec![request(Successor::NextProgram, None)], Successor::NextProgram, 30),
            // A worker whose parent is gone, and a signal that comes as well.
            (vec![request(Successor::None, Some(3)), request(Successor::None, None)], Successor::None, 3),
            (vec![request(Successor::None, None), request(Successor::None, Some(3))], Successor::None, 3),
            (vec![request(Successor::None, Some(3)), request(Successor::None, Some(60))], Successor::None, 3),
            // INT to all processes of a group, and the word of the parent after it.
            (vec![request(Successor::Unknown, None), request(Successor::None, None)], Successor::None, 30),
            // A stop and a restart; a roll and the stop of all workers: no neighbour is left then.
            (vec![request(Successor::None, None), request(Successor::NextProgram, None)], Successor::None, 30),
            (vec![request(Successor::NextProgram, None), request(Successor::None, None)], Successor::None, 30),
            (vec![request(Successor::Neighbours, None), request(Successor::None, None)], Successor::None, 30),
        ] {
            let shutdown = Shutdown::default();
            for request in &requests {
                shutdown.request(*request);
            }
            let all = (shutdown.successor(), shutdown.grace(&General::default()));
            assert_eq!(all, (successor, Duration::from_secs(grace)), "{requests:?}");
        }
    }
}
