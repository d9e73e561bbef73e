//! Batches, and how their members may end.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::backend::{
    AttemptEnd, BATCH_TTL_MS, BackendError, BatchRefusal, BatchStage, MAX_BATCH, MemberName, NewBatch, NewJob,
    StoredBatch,
};
use crate::metrics::{bound_reached, record_batch_ends};

/// Most batches; beyond, those that are over are forgotten, the oldest first, and if all go on the store is full.
const MAX_BATCHES: usize = 100_000;

/// The end of a member, as it counts.
#[derive(Clone, Copy)]
pub(super) enum MemberEnd {
    Done,
    Failed,
    Deleted,
}

impl MemberEnd {
    /// The end of a member whose attempt was settled; `None` if its job runs again.
    pub(super) fn of(end: &AttemptEnd) -> Option<Self> {
        match end {
            AttemptEnd::Done => Some(Self::Done),
            AttemptEnd::Failed { .. } => Some(Self::Failed),
            AttemptEnd::Dropped => Some(Self::Deleted),
            AttemptEnd::Retry { .. } | AttemptEnd::Snooze { .. } | AttemptEnd::GiveBack | AttemptEnd::Park { .. } => {
                None
            }
        }
    }
}

pub(super) struct MemoryBatch {
    pub(super) stored: StoredBatch,
    completion: Option<NewJob>,
    /// The numbers of the members that have not ended.
    pub(super) left: HashSet<u64>,
    /// When it expires, or is forgotten.
    until_ms: u64,
}

/// The batches by id.
#[derive(Default)]
pub(super) struct MemoryBatches {
    pub(super) by_id: HashMap<Arc<str>, MemoryBatch>,
    /// Those that are not over, by their deadlines.
    pub(super) deadlines: BTreeSet<(u64, Arc<str>)>,
    /// Those that are over, by the times at which they are forgotten.
    over: BTreeSet<(u64, Arc<str>)>,
}

impl MemoryBatches {
    /// Stores a batch, unless there is one of its id: then returns that.
    pub(super) fn create(&mut self, new: &NewBatch, now_ms: u64) -> Result<Option<StoredBatch>, BackendError> {
        while self.over.first().is_some_and(|(until_ms, _)| *until_ms <= now_ms) {
            if let Some((_, id)) = self.over.pop_first() {
                self.by_id.remove(&id);
            }
        }
        if let Some(existing) = self.status(&new.id) {
            return Ok(Some(existing));
        }
        if self.by_id.len() >= MAX_BATCHES {
            bound_reached("memory_batches");
            // The numbers of the one that has been over for longest, before a batch is refused that counts.
            let Some((_, oldest)) = self.over.pop_first() else { return Err(BackendError::Full) };
            self.by_id.remove(&oldest);
        }
        let completion = new.completion.as_ref().map(|job| job.id.clone());
        let stored = StoredBatch { stage: BatchStage::Open, total: 0, done: 0, failed: 0, deleted: 0, completion };
        let (completion, left, until_ms) = (new.completion.clone(), HashSet::new(), new.deadline_ms);
        self.deadlines.insert((until_ms, new.id.clone()));
        self.by_id.insert(new.id.clone(), MemoryBatch { stored, completion, left, until_ms });
        Ok(None)
    }

    pub(super) fn status(&self, id: &str) -> Option<StoredBatch> {
        self.by_id.get(id).map(|batch| batch.stored.clone())
    }

    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// The reason for which a batch does not take so many members.
    pub(super) fn refusal(&self, id: &str, count: usize) -> Option<BatchRefusal> {
        let Some(MemoryBatch { stored, .. }) = self.by_id.get(id) else { return Some(BatchRefusal::Unknown) };
        match stored.stage {
            BatchStage::Expired => Some(BatchRefusal::Expired),
            BatchStage::Sealed | BatchStage::Finished => Some(BatchRefusal::Sealed),
            BatchStage::Open => (stored.total + count as u64 > MAX_BATCH).then_some(BatchRefusal::TooLarge),
        }
    }

    /// Counts a further member; returns its text with its number.
    pub(super) fn add_member(&mut self, id: &str, text: &[u8]) -> Option<Bytes> {
        let batch = self.by_id.get_mut(id)?;
        let number = batch.stored.total;
        batch.stored.total += 1;
        batch.left.insert(number);
        Some(MemberName::number_text(text, number))
    }

    /// Ends a batch; returns the job that it enqueues.
    pub(super) fn close(&mut self, id: &str, stage: BatchStage, now_ms: u64) -> Option<NewJob> {
        let (id, _) = self.by_id.get_key_value(id)?;
        let id = id.clone();
        let batch = self.by_id.get_mut(&id)?;
        record_batch_ends(stage, 1);
        batch.stored.stage = stage;
        batch.left = HashSet::new();
        self.deadlines.remove(&(batch.until_ms, id.clone()));
        batch.until_ms = now_ms + BATCH_TTL_MS;
        self.over.insert((batch.until_ms, id));
        batch.completion.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_that_are_over_are_forgotten_for_new_ones_and_others_are_not() {
        let mut batches = MemoryBatches::default();
        let new = |number: usize| NewBatch { id: number.to_string().into(), deadline_ms: u64::MAX, completion: None };
        for number in 0..MAX_BATCHES {
            batches.create(&new(number), 0).unwrap();
        }
        assert!(matches!(batches.create(&new(MAX_BATCHES), 0), Err(BackendError::Full)));
        batches.close("7", BatchStage::Finished, 1);
        batches.close("5", BatchStage::Finished, 2);
        batches.create(&new(MAX_BATCHES), 3).unwrap();
        assert!(batches.status("7").is_none() && batches.status("5").is_some() && batches.status("0").is_some());
    }
}
