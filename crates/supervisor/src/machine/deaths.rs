//! Ends of workers that were not requested, and their replacement.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Level, Order, ProgramChoice, Supervisor, WorkerKey, WorkerProcess, WorkerState};

/// A worker that ran for so long is replaced as if it were the first one that ended.
const SETTLED: Duration = Duration::from_secs(60);

/// The longest wait before a replacement is started.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The time in which ends are counted.
const WINDOW: Duration = Duration::from_secs(30);

/// The time between two lines that say that workers end again and again.
const REPORT: Duration = Duration::from_secs(60);

/// How a worker's process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerEnd {
    /// With an exit status.
    Exit(u8),
    /// By a signal.
    Signal {
        /// The number of the signal.
        number: i32,
        /// Whether the kernel has killed for memory since the end before.
        out_of_memory: bool,
    },
    /// It was killed, and the kernel does not end it.
    Stuck {
        /// Its process id.
        pid: i32,
    },
    /// It was not started.
    NotStarted(String),
}

impl WorkerEnd {
    fn describe(&self) -> String {
        match self {
            Self::Exit(status) => format!("ended with exit status {status}"),
            Self::Signal { number, out_of_memory } => {
                let memory = if *out_of_memory { ", and the kernel has killed for memory (oom_kill)" } else { "" };
                format!("was ended by signal {number}{memory}")
            }
            Self::Stuck { pid } => format!("was killed and does not end: process {pid} is not waited for any longer"),
            Self::NotStarted(reason) => format!("could not be started: {reason}"),
        }
    }
}

/// A place for a worker, which is filled when it is due.
#[derive(Debug)]
pub(super) struct Vacancy {
    pub(super) group: usize,
    pub(super) due: Duration,
    pub(super) restarts: u32,
    pub(super) failures: u32,
}

/// The times of unexpected ends within [`WINDOW`].
#[derive(Debug, Default)]
pub(super) struct DeathLog {
    /// As many as are too many at most.
    times: VecDeque<Duration>,
    reported: Option<Duration>,
}

impl DeathLog {
    /// Adds an end; returns whether there are too many: more than twice as many as workers.
    fn add(&mut self, now: Duration, workers: u32) -> bool {
        while self.times.front().is_some_and(|time| *time + WINDOW <= now) {
            self.times.pop_front();
        }
        let most = workers as usize * 2;
        self.times.push_back(now);
        let is_too_many = self.times.len() > most;
        while self.times.len() > most {
            self.times.pop_front();
        }
        is_too_many
    }

    /// Whether a line is due, which this counts as.
    fn take_report(&mut self, now: Duration) -> bool {
        let is_due = self.reported.is_none_or(|reported| reported + REPORT <= now);
        if is_due {
            self.reported = Some(now);
        }
        is_due
    }
}

impl Supervisor {
    pub(super) fn on_ended(&mut self, key: WorkerKey, end: &WorkerEnd) {
        if !matches!(end, WorkerEnd::Stuck { .. }) {
            self.abandoned.remove(&key); // its number is free
        }
        let Some(worker) = self.workers.remove(&key) else { return };
        let mut text = format!("{} {}", self.id(key), end.describe());
        if let Some(reason) = &worker.failed {
            text = format!("{text}: {reason}");
        }
        if self.stopping.is_some() {
            self.on_end_while_stopping(end, text);
        } else if worker.is_stopping() {
            let is_clean = *end == WorkerEnd::Exit(0);
            self.log(if is_clean { Level::Info } else { Level::Warn }, text);
        } else if self.replacement() == Some(key) {
            self.log(Level::Error, text.clone());
            self.stop_roll(&text);
        } else {
            self.replace(key, &worker, end, text);
        }
    }

    /// Plans the replacement of a worker that ended unexpectedly.
    fn replace(&mut self, key: WorkerKey, worker: &WorkerProcess, end: &WorkerEnd, text: String) {
        if !self.was_ready {
            self.log(Level::Error, text.clone());
            return self.fail(text);
        }
        // A process that got TERM from elsewhere has stopped properly; one whose link was closed has not.
        let is_requested =
            *end == WorkerEnd::Exit(0) && worker.state != WorkerState::Booting && worker.failed.is_none();
        self.log(if is_requested { Level::Info } else { Level::Error }, text.clone());
        if self.running_roll() == Some(worker.program) {
            self.stop_roll(&text);
        }
        if self.roll_replaces(key) {
            return;
        }
        let lived = self.now - worker.started;
        let failures = if lived >= SETTLED || is_requested { 0 } else { worker.failures };
        let wait = match failures {
            0 => Duration::ZERO,
            _ => Duration::from_secs(1 << (failures - 1).min(5)).min(LONGEST_WAIT),
        };
        let mut vacancy = Vacancy {
            group: key.group,
            due: self.now + wait,
            restarts: worker.restarts.saturating_add(1),
            failures: failures + u32::from(!is_requested),
        };
        let (ready, target) = self.ready();
        if !is_requested && self.deaths.add(self.now, target) {
            if ready == 0 {
                return self.fail(format!("more than {} workers ended in 30 s, and none is ready: {text}", target * 2));
            }
            vacancy.due = self.now + LONGEST_WAIT;
            if self.deaths.take_report(self.now) {
                let text = format!("more than {} workers ended in 30 s: each is replaced after 30 s", target * 2);
                self.log(Level::Error, text);
            }
        }
        self.vacancies.push(vacancy);
    }

    /// Starts the workers that are due, or missing since the start or a change of their number; stops those beyond.
    pub(super) fn fill_vacancies(&mut self) {
        for group in 0..self.groups.len() {
            let target = self.groups[group].workers as usize;
            loop {
                let vacant = self.vacancies.iter().filter(|vacancy| vacancy.group == group).count();
                let active: Vec<WorkerKey> = self.active(group).collect();
                if active.len() + vacant < target {
                    self.vacancies.push(Vacancy { group, due: self.now, restarts: 0, failures: 0 });
                } else if active.len() + vacant == target {
                    break;
                } else if let Some(index) = self.vacancies.iter().rposition(|vacancy| vacancy.group == group) {
                    self.vacancies.remove(index);
                } else if let Some(last) = active.last() {
                    self.stop_worker(*last);
                }
            }
        }
        let is_due = |vacancy: &mut Vacancy| vacancy.due <= self.now;
        let due: Vec<Vacancy> = self.vacancies.extract_if(.., is_due).collect();
        for vacancy in due {
            self.start(vacancy.group, ProgramChoice::Current, vacancy.restarts, vacancy.failures);
        }
    }

    /// The workers that count for their group's number: neither those that stop, nor one that replaces another that
    /// still counts.
    fn active(&self, group: usize) -> impl Iterator<Item = WorkerKey> {
        let replacement = self.replacement().filter(|_| self.workers.keys().any(|key| self.roll_replaces(*key)));
        let workers = self.workers.iter().filter(move |(key, worker)| key.group == group && !worker.is_stopping());
        workers.map(|(key, _)| *key).filter(move |key| Some(*key) != replacement)
    }

    /// Starts a worker under the lowest free number.
    pub(super) fn start(&mut self, group: usize, program: ProgramChoice, restarts: u32, failures: u32) -> WorkerKey {
        let mut key = WorkerKey { group, number: 1 };
        while self.workers.contains_key(&key) || self.abandoned.contains(&key) {
            key.number += 1;
        }
        let number = match program {
            ProgramChoice::Current => self.current_program,
            ProgramChoice::OfRoll => self.rolls,
        };
        let worker = WorkerProcess {
            started: self.now,
            restarts,
            failures,
            state: WorkerState::Booting,
            failed: None,
            program: number,
            kill_at: None,
            killed: None,
        };
        self.workers.insert(key, worker);
        self.orders.push(Order::Start(key, program));
        key
    }
}
