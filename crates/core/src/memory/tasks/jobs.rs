//! The ids of jobs: where each job is, ids that callers chose, and deletions of jobs that wait.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::backend::JobState;
use crate::id::Generation;

/// Most jobs that succeeded and are remembered.
const DONE: usize = 10_000;

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobPlace {
    /// In its queue, or parked.
    Waiting,
    /// Delayed, under this key.
    Delayed((u64, u64)),
    Running(Generation, u64),
    Failed,
}

impl JobPlace {
    pub(super) fn is_failed(self) -> bool {
        matches!(self, Self::Failed)
    }
}

#[derive(Default)]
pub(super) struct JobIds {
    places: HashMap<Arc<str>, JobPlace>,
    done: VecDeque<Arc<str>>,
    /// The content of jobs whose ids were chosen by callers, and until when that is remembered.
    digests: HashMap<Arc<str>, ([u8; 16], u64)>,
    /// The same in the order of their ends.
    digest_ends: VecDeque<(u64, Arc<str>)>,
    /// The jobs that are dropped instead of run, and until when that is remembered.
    buried: HashMap<Arc<str>, u64>,
}

impl JobIds {
    pub(super) fn set_place(&mut self, id: &Option<Arc<str>>, place: JobPlace) {
        if let Some(id) = id {
            self.places.insert(id.clone(), place);
        }
    }

    pub(super) fn set_done(&mut self, id: &Option<Arc<str>>) {
        let Some(id) = id else { return };
        self.places.remove(id);
        if self.done.len() >= DONE {
            self.done.pop_front();
        }
        self.done.push_back(id.clone());
    }

    pub(super) fn forget(&mut self, id: &Option<Arc<str>>) {
        if let Some(id) = id {
            self.places.remove(id);
        }
    }

    pub(super) fn forget_failed(&mut self, id: &str) {
        if self.place(id) == Some(JobPlace::Failed) {
            self.places.remove(id);
        }
    }

    pub(super) fn place(&self, id: &str) -> Option<JobPlace> {
        self.places.get(id).copied()
    }

    pub(super) fn state(&self, id: &str) -> JobState {
        match self.place(id) {
            Some(JobPlace::Waiting) => JobState::Waiting,
            Some(JobPlace::Delayed((due_ms, _))) => JobState::Delayed(due_ms),
            Some(JobPlace::Running(generation, _)) => JobState::Running(generation),
            Some(JobPlace::Failed) => JobState::Failed,
            None if self.done.iter().any(|done| **done == *id) => JobState::Done,
            None => JobState::Unknown,
        }
    }

    pub(super) fn digest(&self, id: &str) -> Option<[u8; 16]> {
        self.digests.get(id).map(|(digest, _)| *digest)
    }

    pub(super) fn remember(&mut self, id: &Arc<str>, digest: [u8; 16], until_ms: u64) {
        self.digests.insert(id.clone(), (digest, until_ms));
        self.digest_ends.push_back((until_ms, id.clone()));
    }

    /// Forgets the chosen ids and the deletions whose time is over.
    pub(super) fn forget_old(&mut self, now_ms: u64) {
        while self.digest_ends.front().is_some_and(|(until_ms, _)| *until_ms <= now_ms) {
            if let Some((_, id)) = self.digest_ends.pop_front() {
                self.digests.remove(&id);
            }
        }
        self.buried.retain(|_, until_ms| *until_ms > now_ms);
    }

    /// Marks a job that waits, so that it is dropped.
    pub(super) fn bury(&mut self, id: &str, until_ms: u64) {
        if let Some((id, _)) = self.places.get_key_value(id) {
            self.buried.insert(id.clone(), until_ms);
        }
    }

    /// Whether a job is to be dropped, which is said once.
    pub(super) fn take_tombstone(&mut self, id: &Option<Arc<str>>) -> bool {
        !self.buried.is_empty() && id.as_ref().is_some_and(|id| self.buried.remove(id).is_some())
    }
}
