//! One queue: jobs that were given back, jobs that ran before, fresh ones; and those that take turns.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::turns::JobTurns;
use crate::backend::JobCounters;
use crate::job::turn_of;

/// A job that does not run.
#[derive(Clone)]
pub(super) struct WaitingJob {
    /// `None` for a job of another program.
    pub(super) id: Option<Arc<str>>,
    pub(super) text: Bytes,
    pub(super) counters: JobCounters,
}

/// The jobs that wait in a queue. Those that were given back are taken first, retried and fresh ones in turn. All of these together
/// have every second turn where others take turns by their keys.
#[derive(Default)]
pub(super) struct MemoryQueue {
    given_back: VecDeque<WaitingJob>,
    retried: VecDeque<WaitingJob>,
    fresh: VecDeque<WaitingJob>,
    turns: JobTurns,
    /// Whether the next job is one of `turns`, if there is one.
    takes_turn: bool,
    /// Whether the next job is a retried one, if there is one.
    takes_retried: bool,
    pub(super) is_paused: bool,
}

impl MemoryQueue {
    pub(super) fn len(&self) -> usize {
        self.given_back.len() + self.retried.len() + self.fresh.len() + self.turns.len()
    }

    pub(super) fn has_turns(&self) -> bool {
        self.turns.len() > 0
    }

    /// The jobs of the same key, if the job takes turns. A suspect waits for its node instead.
    fn turns_with(&mut self, job: &WaitingJob) -> Option<&mut VecDeque<WaitingJob>> {
        let key = turn_of(&job.text).filter(|_| !job.counters.is_suspect())?;
        self.turns.of(key)
    }

    pub(super) fn push(&mut self, job: WaitingJob) {
        if let Some(jobs) = self.turns_with(&job) {
            return jobs.push_back(job);
        }
        if job.counters == JobCounters::default() { self.fresh.push_back(job) } else { self.retried.push_back(job) }
    }

    pub(super) fn give_back(&mut self, job: WaitingJob) {
        if let Some(jobs) = self.turns_with(&job) {
            return jobs.push_front(job);
        }
        self.given_back.push_front(job);
    }

    /// The next job. Suspects are passed over unless one may run.
    pub(super) fn take(&mut self, takes_suspect: bool) -> Option<WaitingJob> {
        self.takes_turn = !self.takes_turn;
        let in_turn = if self.takes_turn { self.turns.take() } else { None };
        in_turn.or_else(|| self.take_listed(takes_suspect)).or_else(|| self.turns.take())
    }

    fn take_listed(&mut self, takes_suspect: bool) -> Option<WaitingJob> {
        let mut take_from = |list: usize| {
            let list = match list {
                0 => &mut self.given_back,
                1 => &mut self.retried,
                _ => &mut self.fresh,
            };
            let at = list.iter().position(|job| takes_suspect || !job.counters.is_suspect())?;
            list.remove(at)
        };
        let order = if self.takes_retried { [0, 1, 2] } else { [0, 2, 1] };
        let taken = order.into_iter().find_map(|list| take_from(list).map(|job| (list, job)));
        taken.map(|(list, job)| {
            self.takes_retried = if list == 0 { self.takes_retried } else { list == 2 };
            job
        })
    }

    /// The texts of the jobs at the heads of its lists.
    pub(super) fn heads(&self) -> impl Iterator<Item = &Bytes> {
        let lists = [&self.given_back, &self.retried, &self.fresh];
        lists.into_iter().filter_map(VecDeque::front).map(|job| &job.text).chain(self.turns.heads())
    }

    /// The texts of some jobs, about in the order in which they will be taken.
    pub(super) fn texts(&self, skip: usize, limit: usize) -> Vec<Bytes> {
        let listed = self.given_back.iter().chain(&self.retried).chain(&self.fresh).map(|job| &job.text);
        listed.chain(self.turns.texts()).skip(skip).take(limit).cloned().collect()
    }
}
