//! The jobs of a queue that take turns: each key in turn has one taken.

use std::collections::VecDeque;

use bytes::Bytes;

use super::queue::WaitingJob;
use crate::backend::{MAX_TURN_KEYS, OTHER_TURNS};
use crate::metrics::bound_reached;

/// The jobs of each key that has any. The first key is the next one.
#[derive(Default)]
pub(super) struct JobTurns(VecDeque<(Box<str>, VecDeque<WaitingJob>)>);

impl JobTurns {
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|(_, jobs)| jobs.len()).sum()
    }

    /// The jobs of a key; those of further keys share one.
    pub(super) fn of(&mut self, key: &str) -> Option<&mut VecDeque<WaitingJob>> {
        let at = self.place(key).or_else(|| {
            let is_full = self.0.len() >= MAX_TURN_KEYS;
            if is_full {
                bound_reached("fair_keys");
            }
            let key = if is_full { OTHER_TURNS } else { key };
            self.place(key).or_else(|| {
                self.0.push_back((key.into(), VecDeque::new()));
                self.0.len().checked_sub(1)
            })
        });
        self.0.get_mut(at?).map(|(_, jobs)| jobs)
    }

    fn place(&self, key: &str) -> Option<usize> {
        self.0.iter().position(|(other, _)| **other == *key)
    }

    pub(super) fn take(&mut self) -> Option<WaitingJob> {
        let (key, mut jobs) = self.0.pop_front()?;
        let job = jobs.pop_front();
        if !jobs.is_empty() {
            self.0.push_back((key, jobs));
        }
        job
    }

    /// The text of the next job of each key.
    pub(super) fn heads(&self) -> impl Iterator<Item = &Bytes> {
        self.0.iter().filter_map(|(_, jobs)| jobs.front()).map(|job| &job.text)
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &Bytes> {
        self.0.iter().flat_map(|(_, jobs)| jobs).map(|job| &job.text)
    }
}
