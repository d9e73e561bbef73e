//! The attempts that a node holds.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use phalanx_core::Generation;
use phalanx_core::backend::{AttemptEnd, AttemptKey, Consequences, FetchedJob, JobReport, Settlement};
use phalanx_core::bound_reached;
use phalanx_core::job::AttemptOutcome;
use phalanx_core::task::AttemptFacts;
use tokio::time::Instant;

use crate::decide::{CancelCause, FailureReason};
use crate::result::TaskResult;
use crate::served::ServedTask;

/// An attempt that the node holds, from its fetch until its settlement was answered.
pub(crate) struct Slot {
    pub(crate) job: FetchedJob,
    /// The generation under which it is listed.
    pub(crate) generation: Generation,
    /// The job's own id; `None` for a job of another program.
    pub(crate) own_id: Option<Arc<str>>,
    /// Its name as a member of a batch.
    pub(crate) member: Option<Arc<str>>,
    /// The claim that its end releases.
    pub(crate) unique: Option<Arc<str>>,
    /// Whether the beginning of the attempt releases it.
    pub(crate) is_unique_until_start: bool,
    /// The value that the attempt returned, if it is kept.
    pub(crate) result: Option<TaskResult>,
    pub(crate) started: Instant,
    pub(crate) state: SlotState,
    /// Whether its thread has not returned by the deadline, so that it is settled while it runs.
    pub(crate) is_blocked: bool,
}

pub(crate) enum SlotState {
    /// The attempt runs.
    Running(RunningAttempt),
    /// It has ended, and its settlement was not answered yet.
    Settling(SettlingAttempt),
    /// There is nothing left to settle: its thread has not returned.
    Settled,
}

/// The handle of an attempt that runs.
pub(crate) struct RunningAttempt {
    pub(crate) task: Arc<ServedTask>,
    pub(crate) facts: Arc<AttemptFacts>,
    /// Why it is to end.
    pub(crate) cancelled: Option<CancelCause>,
}

/// An attempt that is being settled.
pub(crate) struct SettlingAttempt {
    pub(crate) outcome: AttemptOutcome,
    /// For the task's `on_failed`.
    pub(crate) failure: Option<(Arc<ServedTask>, Arc<AttemptFacts>, FailureReason)>,
    pub(crate) task: Option<Arc<ServedTask>>,
    /// Whether it was sent before, and its answer was lost.
    pub(crate) is_repeated: bool,
    /// Whether the store did not know its attempt: once, that shows a loss.
    pub(crate) is_doubted: bool,
}

impl Slot {
    /// Names the attempt in the store.
    pub(crate) fn key(&self) -> &AttemptKey {
        &self.job.attempt
    }

    /// The settlement of the attempt, after which it reports nothing more.
    pub(crate) fn settlement(&mut self, end: AttemptEnd) -> Settlement {
        let is_over = matches!(end, AttemptEnd::Done | AttemptEnd::Dropped | AttemptEnd::Failed { .. });
        let report = self.last_report(is_over);
        let consequences = self.consequences(&end);
        let (attempt, id, unique) = (self.key().clone(), self.own_id.clone(), self.unique.clone());
        Settlement { attempt, id, end, unique, report, consequences }
    }

    fn consequences(&self, end: &AttemptEnd) -> Option<Box<Consequences>> {
        let (follow_ups, has_checkpoint) = match &self.state {
            SlotState::Running(RunningAttempt { facts, .. }) => {
                (facts.children.close(), facts.has_checkpoint.load(Relaxed))
            }
            SlotState::Settling(_) | SlotState::Settled => (Vec::new(), false),
        };
        let follow_ups = if matches!(end, AttemptEnd::Done) { follow_ups } else { Vec::new() };
        if follow_ups.is_empty() && self.member.is_none() && !has_checkpoint {
            return None;
        }
        Some(Box::new(Consequences { member: self.member.clone(), follow_ups, has_checkpoint }))
    }

    /// The report that goes with a settlement. The end of a tracked job always has one, for those who wait for it. So has that of
    /// a job that did not begin, whose task this node may not have: the store knows whether it is tracked.
    fn last_report(&mut self, is_over: bool) -> Option<Box<JobReport>> {
        let SlotState::Running(RunningAttempt { facts, task, .. }) = &self.state else {
            let id = self.own_id.clone().filter(|_| is_over)?;
            return Some(Box::new(JobReport { id, progress: None, result: None, missing: None }));
        };
        let progress = facts.progress.close();
        let (result, missing) = match self.result.take() {
            Some(Ok(result)) => (Some(result), None),
            Some(Err(missing)) => (None, Some(missing)),
            None => (None, None),
        };
        let reports = progress.is_some() || result.is_some() || (is_over && task.def.tracked);
        reports.then(|| Box::new(JobReport { id: facts.id.clone(), progress, result, missing }))
    }
}

/// Most attempts beyond `tasks.concurrency` that a node keeps because they cannot be settled.
const MAX_STUCK: usize = 1000;

/// Hashes a token. The node chooses it: the several look-ups of a job need no defence.
#[derive(Default)]
struct TokenHasher(u64);

impl Hasher for TokenHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, token: u64) {
        // Tokens are consecutive; the table takes its place from the low bits, and its tag from the high ones.
        self.0 = (self.0 ^ token).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// The attempts by token.
#[derive(Default)]
pub(crate) struct Slots {
    by_token: HashMap<u64, Slot, BuildHasherDefault<TokenHasher>>,
    /// Those whose settlement a spoilt key prevented: nothing of theirs runs.
    stuck: HashSet<u64>,
}

impl Slots {
    pub(crate) fn len(&self) -> usize {
        self.by_token.len()
    }

    pub(crate) fn insert(&mut self, slot: Slot) {
        self.by_token.insert(slot.key().token, slot);
    }

    pub(crate) fn get(&self, token: u64) -> Option<&Slot> {
        self.by_token.get(&token)
    }

    /// The generation under which an attempt is listed.
    pub(crate) fn generation(&self, token: u64) -> Option<Generation> {
        self.get(token).map(|slot| slot.generation)
    }

    pub(crate) fn get_mut(&mut self, token: u64) -> Option<&mut Slot> {
        self.by_token.get_mut(&token)
    }

    pub(crate) fn remove(&mut self, token: u64) -> Option<Slot> {
        self.stuck.remove(&token);
        self.by_token.remove(&token)
    }

    pub(crate) fn tokens(&self) -> HashSet<u64> {
        self.by_token.keys().copied().collect()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.by_token.values_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.by_token.values()
    }

    /// Notes that a spoilt key prevented a settlement. A thread that has not returned still needs its slot.
    pub(crate) fn set_stuck(&mut self, token: u64) {
        if self.by_token.get(&token).is_some_and(|slot| !slot.is_blocked) {
            self.stuck.insert(token);
            if self.stuck.len() > MAX_STUCK {
                bound_reached("spoilt_settlements");
            }
        }
    }

    pub(crate) fn is_stuck(&self, token: u64) -> bool {
        self.stuck.contains(&token)
    }

    /// How many attempts need a slot: without those that cannot be settled, up to a bound.
    pub(crate) fn needed(&self) -> usize {
        self.len() - self.stuck.len().min(MAX_STUCK)
    }

    /// Whether a job that may be what kills nodes is among them.
    pub(crate) fn has_suspect(&self) -> bool {
        self.iter().any(|slot| slot.key().counters.is_suspect())
    }

    /// Whether all that is left are threads that have not returned.
    pub(crate) fn are_settled(&self) -> bool {
        self.iter().all(|slot| matches!(slot.state, SlotState::Settled))
    }

    /// The slots whose threads have not returned.
    pub(crate) fn blocked(&self) -> usize {
        self.iter().filter(|slot| slot.is_blocked).count()
    }
}
