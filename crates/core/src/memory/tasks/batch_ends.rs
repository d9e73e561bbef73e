//! The ends of members of batches, and those of batches.

use super::Jobs;
use super::batches::{MemberEnd, MemoryBatch};
use super::queue::WaitingJob;
use crate::backend::{AttemptEnd, BatchRefusal, BatchStage, Consequences, MemberName, SealOutcome};
use crate::job::JobText;

impl Jobs {
    /// Carries out the consequences of an end that was settled.
    pub(super) fn follow(&mut self, consequences: &Consequences, end: &AttemptEnd, now_ms: u64) {
        if matches!(end, AttemptEnd::Done) {
            consequences.follow_ups.iter().for_each(|job| drop(self.enqueue(job, now_ms)));
        }
        if let Some((member, end)) = consequences.member.as_deref().zip(MemberEnd::of(end)) {
            self.end_member(member, end, now_ms);
        }
    }

    /// Counts the end of a job that ended in no attempt, if it is a member.
    pub(super) fn end_member_of(&mut self, job: &WaitingJob, end: MemberEnd, now_ms: u64) {
        if let Some(member) = JobText::read(&job.text).and_then(|text| text.batch) {
            self.end_member(&member, end, now_ms);
        }
    }

    fn end_member(&mut self, member: &str, end: MemberEnd, now_ms: u64) {
        let Some(MemberName { batch: id, number }) = MemberName::read(member) else { return };
        let Some(batch) = self.batches.by_id.get_mut(id).filter(|batch| !batch.stored.stage.is_over()) else { return };
        if !batch.left.remove(&number) {
            return; // it was retried since it failed
        }
        match end {
            MemberEnd::Done => batch.stored.done += 1,
            MemberEnd::Failed => batch.stored.failed += 1,
            MemberEnd::Deleted => batch.stored.deleted += 1,
        }
        self.finish_batch(id, now_ms);
    }

    pub(super) fn seal_batch(&mut self, id: &str, now_ms: u64) -> SealOutcome {
        if let Some(refusal) = self.batches.refusal(id, 0) {
            return SealOutcome::Refused(refusal);
        }
        if let Some(batch) = self.batches.by_id.get_mut(id) {
            batch.stored.stage = BatchStage::Sealed;
        }
        self.finish_batch(id, now_ms);
        self.batches.status(id).map_or(SealOutcome::Refused(BatchRefusal::Unknown), SealOutcome::Sealed)
    }

    /// Ends a batch if it is sealed and no member is left.
    fn finish_batch(&mut self, id: &str, now_ms: u64) {
        let is_complete = |batch: &MemoryBatch| batch.stored.stage == BatchStage::Sealed && batch.left.is_empty();
        if self.batches.by_id.get(id).is_some_and(is_complete)
            && let Some(completion) = self.batches.close(id, BatchStage::Finished, now_ms)
        {
            self.store(completion, now_ms);
        }
    }

    /// Ends the batches whose deadlines have passed; returns how many jobs that enqueued.
    pub(super) fn expire_batches(&mut self, now_ms: u64) -> usize {
        let mut enqueued = 0;
        while self.batches.next_deadline_ms().is_some_and(|deadline_ms| deadline_ms <= now_ms) {
            let Some((_, id)) = self.batches.deadlines.pop_first() else { break };
            if let Some(completion) = self.batches.close(&id, BatchStage::Expired, now_ms) {
                self.store(completion, now_ms);
                enqueued += 1;
            }
        }
        enqueued
    }
}
