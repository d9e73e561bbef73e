//! The end of all workers, and of the parent.

use std::time::Duration;

use super::worker::AFTER_GRACE;
use super::{Level, Order, Supervisor, WorkerEnd, WorkerKey, WorkerState};

/// The time from one INT to another that cuts what runs: not the same key press twice.
const BEFORE_CUT: Duration = Duration::from_secs(1);

/// The time for workers to end after `cut`.
const CUT: Duration = Duration::from_secs(2);

/// The most workers whose cut work the last line has: each names 20 pieces at most, in 2 KiB.
const MAX_NAMED: usize = 8;

/// A stop of all workers.
#[derive(Debug, Default)]
pub(super) struct Stopping {
    /// When INT came first.
    interrupted: Option<Duration>,
    is_cut: bool,
    /// The code and the reason to end with.
    code: u8,
    reason: Option<String>,
    /// The work that workers have cut off, with their ids.
    cut_work: Vec<String>,
    /// How many others have cut off work.
    others: u32,
}

impl Stopping {
    /// The reason with the names of what was cut off: a person who ends all at a terminal reads the last line.
    fn full_reason(&self) -> Option<String> {
        let mut text = self.reason.clone()?;
        if !self.cut_work.is_empty() {
            text = format!("{text}: {}", self.cut_work.join("; "));
        }
        if self.others > 0 {
            text = format!("{text}; and {} other workers have cut off work", self.others);
        }
        Some(text)
    }
}

impl Supervisor {
    pub(super) fn stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.log(Level::Info, "all workers are to stop".to_owned());
        self.begin_stop(Stopping::default(), self.limits.stop_delay + self.limits.grace + AFTER_GRACE);
    }

    pub(super) fn interrupt(&mut self) {
        self.stop();
        let now = self.now;
        let Some(stopping) = &mut self.stopping else { return };
        let first = *stopping.interrupted.get_or_insert(now);
        if stopping.is_cut || now <= first + BEFORE_CUT {
            return;
        }
        stopping.is_cut = true;
        stopping.code = 1;
        stopping.reason = Some("interrupted a second time: running calls are cut off".to_owned());
        for (key, worker) in &mut self.workers {
            worker.kill_at = Some(now + CUT);
            self.orders.push(Order::Cut(*key));
        }
    }

    /// Ends with an error: workers that still start or serve are to stop.
    pub(super) fn fail(&mut self, reason: String) {
        let stopping = Stopping { code: 1, reason: Some(reason), ..Stopping::default() };
        self.begin_stop(stopping, self.limits.grace + AFTER_GRACE);
    }

    fn begin_stop(&mut self, stopping: Stopping, limit: Duration) {
        if let Some(roll) = self.roll.take() {
            self.end_stopped_roll(roll.number, "all workers are to stop"); // its new worker stops as the others do
        }
        self.rolls_again = false;
        self.next_target = None;
        self.vacancies.clear();
        self.stopping = Some(stopping);
        // Before the workers stop: a copy that no process accepts from takes connections until the last worker ends.
        self.orders.push(Order::CloseSockets);
        for (key, worker) in &mut self.workers {
            let limit = if worker.state == WorkerState::Booting { AFTER_GRACE } else { limit };
            worker.kill_at = Some(self.now + limit);
            worker.state = WorkerState::Stopping;
            self.orders.push(Order::StopAll(*key));
        }
    }

    pub(super) fn on_cut_work(&mut self, key: WorkerKey, work: &str) {
        let id = self.id(key);
        self.log(Level::Warn, format!("{id} has cut off: {work}"));
        match &mut self.stopping {
            Some(stopping) if stopping.cut_work.len() < MAX_NAMED => stopping.cut_work.push(format!("{id}: {work}")),
            Some(stopping) => stopping.others += 1,
            None => {}
        }
    }

    pub(super) fn on_end_while_stopping(&mut self, end: &WorkerEnd, text: String) {
        let is_clean = *end == WorkerEnd::Exit(0);
        if let Some(stopping) = self.stopping.as_mut().filter(|_| !is_clean) {
            stopping.code = 1;
            stopping.reason.get_or_insert_with(|| text.clone());
        }
        self.log(if is_clean { Level::Info } else { Level::Warn }, text);
    }

    pub(super) fn advance_stop(&mut self) {
        let Some(stopping) = &self.stopping else { return };
        if self.workers.is_empty() {
            self.orders.push(Order::Exit(stopping.code, stopping.full_reason()));
        }
    }
}
