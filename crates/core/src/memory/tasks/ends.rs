//! The failed jobs, and the ends of jobs that no attempt settles.

use std::sync::Arc;

use bytes::Bytes;

use super::Jobs;
use super::batches::MemberEnd;
use super::jobs::JobPlace;
use super::queue::WaitingJob;
use crate::backend::{FailedTake, JobState, TakeOutcome};
use crate::job::{FailedJob, FailedRecord, JobText};
use crate::metrics::bound_reached;

impl Jobs {
    /// Ends a job that failed in no attempt of a living node, with all that follows from it.
    pub(super) fn end_failed(&mut self, job: &WaitingJob, record: &FailedRecord<'_>, max: usize) {
        let (now_ms, record) = (record.failed_at_ms, record.write());
        self.unattended.keep(&job.text, &record);
        self.fail(&job.id, record, max);
        self.reports.end(&job.id, JobState::Failed, now_ms);
        self.drop_claim_of(job);
        self.end_member_of(job, MemberEnd::Failed, now_ms);
    }

    /// Ends a job that was deleted, with all that follows from it.
    pub(super) fn end_deleted(&mut self, job: &WaitingJob, now_ms: u64) {
        self.count -= 1;
        self.ids.forget(&job.id);
        self.reports.end(&job.id, JobState::Dropped, now_ms);
        self.drop_claim_of(job);
        self.end_member_of(job, MemberEnd::Deleted, now_ms);
    }

    /// Puts a record among the failed jobs; the oldest beyond the bound is dropped.
    pub(super) fn fail(&mut self, id: &Option<Arc<str>>, record: Bytes, max: usize) {
        self.count -= 1;
        self.ids.set_place(id, JobPlace::Failed);
        self.failed.push_back(record);
        if self.failed.len() > max {
            bound_reached("tasks.failed_max");
            if let Some(id) = self.failed.pop_front().and_then(|dropped| FailedJob::read(&dropped).id) {
                self.ids.forget_failed(&id);
            }
        }
    }

    pub(super) fn take_failed(&mut self, FailedTake { record, retry }: &FailedTake, now_ms: u64) -> TakeOutcome {
        let Some(at) = self.failed.iter().position(|failed| failed == record) else { return TakeOutcome::NotFound };
        let unique = retry.as_ref().and_then(|job| job.unique.as_ref());
        if let Some(claimant) = unique.and_then(|unique| self.claimant(&unique.key, now_ms)) {
            return TakeOutcome::Claimed(claimant);
        }
        if let Some(id) = self.failed.remove(at).and_then(|record| FailedJob::read(&record).id) {
            self.ids.forget_failed(&id);
        }
        if let Some(job) = retry {
            self.store(job.clone(), now_ms);
        }
        TakeOutcome::Taken
    }

    /// Releases the claim of a job that is deleted.
    fn drop_claim_of(&mut self, job: &WaitingJob) {
        let Some(key) = JobText::read(&job.text).and_then(|text| text.unique) else { return };
        if self.claims.get(&*key).is_some_and(|claim| Some(&claim.id) == job.id.as_ref()) {
            self.claims.remove(&*key);
        }
    }
}
