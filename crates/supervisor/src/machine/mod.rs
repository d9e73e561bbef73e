//! The decisions of the parent, without a process, a socket or a clock: a [`Trigger`] comes in with the time, and
//! [`Order`]s go out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

mod deaths;
mod order;
mod roll;
mod stop;
mod target;
mod trigger;
mod worker;

#[cfg(test)]
mod tests;

pub use deaths::WorkerEnd;
pub use order::{Level, Order, ProgramChoice, WorkerSignal};
pub use roll::RollEnd;
pub use trigger::{ScaleChange, Trigger};
pub use worker::{WorkerKey, WorkerProcess, WorkerState};

use deaths::{DeathLog, Vacancy};
use roll::Roll;
use stop::Stopping;

/// The most workers of all groups together.
pub const MAX_WORKERS: u32 = 512;

/// The time between two checks of the workers' beats: the shell sends [`Trigger::Check`] so often.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The limits of waits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a worker to be ready: `cluster.start_timeout`.
    pub start: Duration,
    /// For a worker to stop while others serve on: `general.grace`.
    pub grace: Duration,
    /// By which that is longer when all stop: `general.stop_delay`.
    pub stop_delay: Duration,
    /// Checks in a row without a beat, one each second, until a worker counts as hung: `cluster.beat_timeout`.
    pub silent_checks: u32,
}

/// Workers with the same roles.
#[derive(Clone, Debug)]
pub struct Group {
    /// The workers' ids are this and a number.
    pub prefix: String,
    /// How many there are.
    pub workers: u32,
}

/// The state of the parent.
#[derive(Debug)]
pub struct Supervisor {
    limits: Limits,
    groups: Vec<Group>,
    /// The group whose number of workers changes by signals and `scale`.
    scaled: usize,
    now: Duration,
    workers: BTreeMap<WorkerKey, WorkerProcess>,
    /// Numbers of processes that were killed and have not ended: they still hold the files of their ids.
    abandoned: BTreeSet<WorkerKey>,
    vacancies: Vec<Vacancy>,
    deaths: DeathLog,
    /// Whether a worker was ready since the start.
    was_ready: bool,
    /// When the last check came.
    checked: Option<Duration>,
    roll: Option<Roll>,
    /// The number of rolls that were started.
    rolls: u64,
    /// The number of the roll whose program is the current one; 0 for that of the start.
    current_program: u64,
    /// Whether another roll was requested during the running one.
    rolls_again: bool,
    last_roll: Option<RollEnd>,
    /// The number of workers that was requested during a roll.
    next_target: Option<u32>,
    stopping: Option<Stopping>,
    orders: Vec<Order>,
}

impl Supervisor {
    /// The state before the first worker is started, which [`Trigger::Time`] does.
    pub fn new(groups: Vec<Group>, scaled: usize, limits: Limits) -> Self {
        Self {
            limits,
            groups,
            scaled,
            now: Duration::ZERO,
            workers: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            vacancies: Vec::new(),
            deaths: DeathLog::default(),
            was_ready: false,
            checked: None,
            roll: None,
            rolls: 0,
            current_program: 0,
            rolls_again: false,
            last_roll: None,
            next_target: None,
            stopping: None,
            orders: Vec::new(),
        }
    }

    /// Takes a trigger at a time since the start, and returns the orders that follow from it.
    pub fn handle(&mut self, now: Duration, trigger: Trigger) -> Vec<Order> {
        self.now = now;
        match trigger {
            Trigger::Time => {}
            Trigger::Check => self.check(),
            Trigger::Ready(key) => self.on_ready(key),
            Trigger::Beat(key) => self.on_beat(key),
            Trigger::Failed(key, reason) => self.on_failed(key, reason),
            Trigger::CutWork(key, work) => self.on_cut_work(key, &work),
            Trigger::Ended(key, end) => self.on_ended(key, &end),
            Trigger::Roll => self.request_roll(),
            Trigger::NoProgram(reason) => self.on_no_program(&reason),
            Trigger::Scale(change) => self.scale(change),
            Trigger::Stop => self.stop(),
            Trigger::Interrupt => self.interrupt(),
            Trigger::Reopen => {
                let all: Vec<WorkerKey> = self.workers.keys().copied().collect();
                self.orders.extend(all.into_iter().map(|key| Order::Signal(key, WorkerSignal::Hup)));
                self.orders.push(Order::Reopen);
            }
        }
        self.advance();
        std::mem::take(&mut self.orders)
    }

    /// Does what is due.
    fn advance(&mut self) {
        self.kill_late_workers();
        self.abandon_stuck_workers();
        if self.stopping.is_some() {
            return self.advance_stop();
        }
        self.advance_roll();
        self.fill_vacancies();
    }

    /// When [`Trigger::Time`] is due next, if no other one comes before.
    pub fn next_due(&self) -> Option<Duration> {
        let workers = self
            .workers
            .values()
            .flat_map(|worker| [worker.kill_due(), worker.abandon_due(), worker.start_limit(&self.limits)]);
        let vacancies = self.vacancies.iter().map(|vacancy| Some(vacancy.due));
        workers.chain(vacancies).chain([self.roll_due()]).flatten().filter(|due| *due > self.now).min()
    }

    /// The workers, by group and number.
    pub fn workers(&self) -> impl Iterator<Item = (WorkerKey, &WorkerProcess)> {
        self.workers.iter().map(|(key, worker)| (*key, worker))
    }

    /// The id of a worker's node.
    pub fn id(&self, key: WorkerKey) -> String {
        format!("{}{}", self.groups[key.group].prefix, key.number)
    }

    /// How many workers serve, and how many there shall be.
    pub fn ready(&self) -> (u32, u32) {
        let ready = self.workers.values().filter(|worker| worker.is_ready()).count();
        (u32::try_from(ready).unwrap_or(u32::MAX), self.groups.iter().map(|group| group.workers).sum())
    }

    /// Whether there are as many workers as there shall be, all of them ready.
    pub fn is_settled(&self) -> bool {
        let (ready, target) = self.ready();
        let is_idle = self.roll.is_none() && self.next_target.is_none() && self.vacancies.is_empty();
        is_idle && ready == target && self.workers.len() == target as usize
    }

    /// The number of the roll that runs.
    pub fn running_roll(&self) -> Option<u64> {
        self.roll.as_ref().map(|roll| roll.number)
    }

    /// The number of the roll that the next request starts, or that is requested already.
    pub fn next_roll(&self) -> u64 {
        self.rolls + 1
    }

    /// The end of the last roll.
    pub fn last_roll(&self) -> Option<&RollEnd> {
        self.last_roll.as_ref()
    }

    /// Whether all workers are to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    fn log(&mut self, level: Level, text: String) {
        self.orders.push(Order::Log(level, text));
    }
}
