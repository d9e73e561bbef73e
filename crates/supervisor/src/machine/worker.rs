//! One worker, from its start to its end.

use std::time::Duration;

use super::{Level, Limits, Order, Supervisor, WorkerSignal};

/// The time for a process to end by itself once it is to, beyond the grace.
pub(super) const AFTER_GRACE: Duration = Duration::from_secs(5);

/// The time from ABRT to KILL for a hung worker.
const ABORT: Duration = Duration::from_secs(2);

/// The time for a process to end once it got KILL. One that waits for a device or a network disk in the kernel may not.
const AFTER_KILL: Duration = Duration::from_secs(5);

/// A check that comes so much too late shows that the parent did not run: no worker can be judged by it.
const LATE: Duration = Duration::from_secs(2);

/// The number of a worker in its group, which no other process of the group has at the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkerKey {
    /// The index of the group.
    pub group: usize,
    /// From 1.
    pub number: u32,
}

/// A worker's process.
#[derive(Debug)]
pub struct WorkerProcess {
    /// When it was started.
    pub started: Duration,
    /// How often a worker of this place has ended unexpectedly.
    pub restarts: u32,
    /// How many of these ends came one soon after the other.
    pub(super) failures: u32,
    /// The state.
    pub state: WorkerState,
    /// The reason that it gave for being unable to serve.
    pub failed: Option<String>,
    /// The number of the roll whose program it runs; 0 for that of the start.
    pub(super) program: u64,
    /// When it gets KILL.
    pub(super) kill_at: Option<Duration>,
    /// When it got KILL.
    pub(super) killed: Option<Duration>,
}

/// The state of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// It is not ready yet.
    Booting,
    /// It serves.
    Ready {
        /// Since when.
        since: Duration,
        /// Checks in a row without a beat.
        silent: u32,
        /// Whether a beat came since the last check.
        beat: bool,
    },
    /// It did not beat, and was aborted.
    Hung,
    /// It is to stop.
    Stopping,
}

impl WorkerProcess {
    /// Whether it serves.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, WorkerState::Ready { .. })
    }

    /// Whether it is to stop.
    pub fn is_stopping(&self) -> bool {
        self.state == WorkerState::Stopping
    }

    /// When it counts as unable to get ready.
    pub(super) fn start_limit(&self, limits: &Limits) -> Option<Duration> {
        (self.state == WorkerState::Booting && self.killed.is_none()).then(|| self.started + limits.start)
    }

    /// When it gets KILL, if it has not got it yet.
    pub(super) fn kill_due(&self) -> Option<Duration> {
        self.kill_at.filter(|_| self.killed.is_none())
    }

    /// When its end is not awaited any longer, once it got KILL.
    pub(super) fn abandon_due(&self) -> Option<Duration> {
        self.killed.map(|killed| killed + AFTER_KILL)
    }
}

impl Supervisor {
    pub(super) fn on_ready(&mut self, key: WorkerKey) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        if worker.state != WorkerState::Booting {
            return;
        }
        worker.state = WorkerState::Ready { since: self.now, silent: 0, beat: true };
        let took = (self.now - worker.started).as_secs_f64();
        let text = format!("{} is ready after {took:.1} s", self.id(key));
        self.log(Level::Info, text);
        if !std::mem::replace(&mut self.was_ready, true) {
            self.orders.push(Order::FirstReady(key));
        }
    }

    pub(super) fn on_beat(&mut self, key: WorkerKey) {
        if let Some(WorkerProcess { state: WorkerState::Ready { silent, beat, .. }, .. }) = self.workers.get_mut(&key) {
            (*silent, *beat) = (0, true);
        }
    }

    pub(super) fn on_failed(&mut self, key: WorkerKey, reason: String) {
        if let Some(worker) = self.workers.get_mut(&key) {
            worker.failed = Some(reason);
        }
    }

    /// Counts the workers without a beat since the last check, and aborts those that are hung.
    pub(super) fn check(&mut self) {
        let late = self.checked.map_or(Duration::ZERO, |checked| self.now - checked);
        self.checked = Some(self.now);
        let is_late = late > super::CHECK_INTERVAL + LATE;
        let mut hung = Vec::new();
        for (key, worker) in &mut self.workers {
            let WorkerState::Ready { silent, beat, .. } = &mut worker.state else { continue };
            *silent = if is_late || *beat { 0 } else { *silent + 1 };
            *beat = false;
            if *silent >= self.limits.silent_checks {
                worker.state = WorkerState::Hung;
                worker.kill_at = Some(self.now + ABORT);
                hung.push(*key);
            }
        }
        for key in hung {
            let text = format!("{} is hung: no beat for {} s: aborted", self.id(key), self.limits.silent_checks);
            self.log(Level::Error, text);
            self.orders.push(Order::Signal(key, WorkerSignal::Abrt));
        }
    }

    /// Stops a worker while others serve on.
    pub(super) fn stop_worker(&mut self, key: WorkerKey) {
        let Some(worker) = self.workers.get_mut(&key).filter(|worker| !worker.is_stopping()) else { return };
        worker.state = WorkerState::Stopping;
        worker.kill_at = Some(self.now + self.limits.grace + AFTER_GRACE);
        self.orders.push(Order::Stop(key));
    }

    /// Kills a worker that cannot serve, as a part of a decision: its end is expected.
    pub(super) fn kill_worker(&mut self, key: WorkerKey) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        worker.state = WorkerState::Stopping;
        worker.killed = Some(self.now);
        self.orders.push(Order::Signal(key, WorkerSignal::Kill));
    }

    /// Goes on without the workers that were killed, and that the kernel does not end.
    pub(super) fn abandon_stuck_workers(&mut self) {
        let is_due = |worker: &WorkerProcess| worker.abandon_due().is_some_and(|due| due <= self.now);
        let stuck: Vec<_> = self.workers.iter().filter(|(_, worker)| is_due(worker)).map(|(key, _)| *key).collect();
        for key in stuck {
            if self.abandoned.insert(key) {
                self.orders.push(Order::Abandon(key));
            }
        }
    }

    /// Kills the workers whose time is over: those that did not stop, and those that do not get ready.
    pub(super) fn kill_late_workers(&mut self) {
        let replacement = self.replacement(); // the roll decides about it
        let mut lines = Vec::new();
        for (key, worker) in &mut self.workers {
            if replacement != Some(*key) && worker.start_limit(&self.limits).is_some_and(|limit| limit <= self.now) {
                worker.failed.get_or_insert_with(|| format!("not ready within {:?}", self.limits.start));
                worker.kill_at = Some(self.now);
            }
            if worker.kill_due().is_some_and(|due| due <= self.now) {
                worker.killed = Some(self.now);
                self.orders.push(Order::Signal(*key, WorkerSignal::Kill));
                lines.push((*key, worker.state));
            }
        }
        for (key, state) in lines {
            let why = match state {
                WorkerState::Booting => "did not get ready",
                WorkerState::Stopping => "did not stop",
                WorkerState::Ready { .. } | WorkerState::Hung => "is hung",
            };
            let text = format!("{} {why}: killed", self.id(key));
            self.log(Level::Warn, text);
        }
    }
}
