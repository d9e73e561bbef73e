//! A roll: each worker is replaced by one that runs the program as it is now. The new worker comes first, and the first
//! that does not serve stops the roll.

use std::time::Duration;

use super::{Level, Order, ProgramChoice, Supervisor, WorkerKey, WorkerProcess, WorkerState};

/// The time that a replacement serves before the old worker is to stop: many faults show at once.
const PROVEN: Duration = Duration::from_secs(1);

/// A roll that runs.
#[derive(Debug)]
pub(super) struct Roll {
    pub(super) number: u64,
    step: RollStep,
}

/// The step of a roll.
#[derive(Clone, Copy, Debug)]
enum RollStep {
    /// The next worker is to be chosen.
    Next,
    /// The replacement gets ready. If the old worker ends by itself meanwhile, the replacement takes its place.
    Replacing { old: WorkerKey, new: WorkerKey },
    /// The old worker stops.
    Stopping { old: WorkerKey },
}

/// The end of a roll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollEnd {
    /// The number of the roll, from 1.
    pub number: u64,
    /// When it ended.
    pub at: Duration,
    /// The reason why it was stopped; `None` if all workers were replaced.
    pub stopped: Option<String>,
}

impl Supervisor {
    pub(super) fn request_roll(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        if self.roll.is_some() {
            self.rolls_again = true;
            return self.log(Level::Info, "a roll is running: another one follows it".to_owned());
        }
        self.begin_roll();
    }

    fn begin_roll(&mut self) {
        self.rolls += 1;
        self.roll = Some(Roll { number: self.rolls, step: RollStep::Next });
        self.orders.push(Order::OpenProgram);
        self.log(Level::Info, format!("roll {} begins", self.rolls));
    }

    pub(super) fn on_no_program(&mut self, reason: &str) {
        self.stop_roll(reason);
    }

    /// The worker that is to replace another one, which does not stop yet.
    pub(super) fn replacement(&self) -> Option<WorkerKey> {
        match self.roll.as_ref()?.step {
            RollStep::Replacing { new, .. } => Some(new),
            RollStep::Next | RollStep::Stopping { .. } => None,
        }
    }

    /// Whether the running roll starts the replacement of this worker already.
    pub(super) fn roll_replaces(&self, key: WorkerKey) -> bool {
        matches!(&self.roll, Some(Roll { step: RollStep::Replacing { old, .. }, .. }) if *old == key)
    }

    /// When the roll has something to do, if nothing happens before.
    pub(super) fn roll_due(&self) -> Option<Duration> {
        let new = self.workers.get(&self.replacement()?)?;
        Some(match new.state {
            WorkerState::Ready { since, .. } if self.now < since + PROVEN => since + PROVEN,
            WorkerState::Ready { since, .. } => since + self.limits.start,
            _ => new.started + self.limits.start,
        })
    }

    /// Goes on with the roll as far as it goes now.
    pub(super) fn advance_roll(&mut self) {
        while let Some(roll) = &self.roll {
            let next = match roll.step {
                RollStep::Next => self.replace_next(roll.number),
                RollStep::Replacing { old, new } => self.check_replacement(old, new),
                RollStep::Stopping { old } => (!self.workers.contains_key(&old)).then_some(RollStep::Next),
            };
            match (next, &mut self.roll) {
                (Some(next), Some(roll)) => roll.step = next,
                (None, _) => break,
                (_, None) => {}
            }
        }
        if self.roll.is_none() {
            if let Some(target) = self.next_target.take() {
                self.set_target(target);
            }
            if std::mem::take(&mut self.rolls_again) {
                self.begin_roll();
                self.advance_roll();
            }
        }
    }

    /// Starts the replacement of the next worker; completes the roll if none is left.
    fn replace_next(&mut self, number: u64) -> Option<RollStep> {
        let is_old = |worker: &WorkerProcess| !worker.is_stopping() && worker.program < number;
        let old = self.workers.iter().rev().find(|(_, worker)| is_old(worker));
        let Some((old, worker)) = old.map(|(key, worker)| (*key, worker.restarts)) else {
            self.complete_roll(number);
            return None;
        };
        let new = self.start(old.group, ProgramChoice::OfRoll, worker, 0);
        let text = format!("roll {number}: {} replaces {}", self.id(new), self.id(old));
        self.log(Level::Info, text);
        Some(RollStep::Replacing { old, new })
    }

    /// Stops the old worker once its replacement and all others serve.
    fn check_replacement(&mut self, old: WorkerKey, new: WorkerKey) -> Option<RollStep> {
        let worker = self.workers.get(&new)?;
        if let Some(reason) = &worker.failed {
            let text = format!("{}: {reason}", self.id(new));
            self.stop_roll(&text);
            return None;
        }
        let WorkerState::Ready { since, .. } = worker.state else {
            if worker.state == WorkerState::Booting && self.now >= worker.started + self.limits.start {
                let text = format!("{} was not ready within {:?}", self.id(new), self.limits.start);
                self.stop_roll(&text);
            }
            return None;
        };
        let mut others = self.workers.iter().filter(|(key, worker)| **key != old && !worker.is_stopping());
        if let Some((key, _)) = others.find(|(_, worker)| !worker.is_ready()) {
            let unready = self.id(*key);
            return self.wait_for_others(since, &unready);
        }
        if !self.vacancies.is_empty() {
            return self.wait_for_others(since, "a worker that ended");
        }
        if self.now < since + PROVEN {
            return None;
        }
        self.stop_worker(old);
        Some(RollStep::Stopping { old })
    }

    fn wait_for_others(&mut self, since: Duration, unready: &str) -> Option<RollStep> {
        if self.now >= since + self.limits.start {
            self.stop_roll(&format!("{unready} was not ready within {:?}", self.limits.start));
        }
        None
    }

    /// Stops the roll: the old workers stay, and nothing is tried again.
    pub(super) fn stop_roll(&mut self, reason: &str) {
        let Some(roll) = self.roll.take() else { return };
        if let RollStep::Replacing { old, new } = roll.step {
            match self.workers.get(&new) {
                // It serves clients.
                Some(worker) if worker.is_ready() && self.workers.contains_key(&old) => self.stop_worker(new),
                Some(worker) if worker.is_ready() => {}
                _ => self.kill_worker(new),
            }
        }
        self.end_stopped_roll(roll.number, reason);
    }

    pub(super) fn end_stopped_roll(&mut self, number: u64, reason: &str) {
        self.log(Level::Error, format!("roll {number} is stopped: {reason}"));
        self.end_roll(number, Some(reason.to_owned()));
    }

    fn complete_roll(&mut self, number: u64) {
        self.roll = None;
        self.current_program = number;
        self.orders.push(Order::KeepProgram);
        self.log(Level::Info, format!("roll {number} is complete"));
        self.end_roll(number, None);
    }

    fn end_roll(&mut self, number: u64, stopped: Option<String>) {
        let end = RollEnd { number, at: self.now, stopped };
        self.last_roll = Some(end.clone());
        self.orders.push(Order::RollEnded(end));
    }
}
