//! Stores jobs.

use std::time::Duration;

use deadpool_redis::redis::Value;
use phalanx_core::backend::{BackendError, ENQUEUE_BATCH, EnqueueOutcome, NewJob};
use phalanx_core::job::turn_of;

use super::call::{ReplyItems, ScriptCall, unexpected_reply};
use super::{RedisTasks, batches, now_ms};

/// How long an id that the enqueuer chose is remembered after its job is due.
const ID_TTL: Duration = Duration::from_secs(24 * 60 * 60);

impl RedisTasks {
    pub(super) async fn enqueue_batch(
        &self,
        jobs: &[NewJob],
        until_us: u64,
    ) -> Result<Vec<EnqueueOutcome>, BackendError> {
        if jobs.len() > ENQUEUE_BATCH {
            return Err(BackendError::refused(format!("more than {ENQUEUE_BATCH} jobs at once")));
        }
        let keys = &self.keys;
        let mut all = vec![
            keys.queues(),
            keys.delayed(),
            keys.delayed_jobs(),
            keys.ready(),
            keys.ids(),
            keys.unique(),
            keys.deleted(),
        ];
        all.extend(jobs.first().and_then(|job| job.batch.as_ref()).map(|batch| [&*keys.batches(), batch].concat()));
        if jobs.iter().any(|job| job.tracked) {
            all.resize(8, keys.reports()); // the place of the batch
            self.add_keys_of_tracked(&mut all, jobs);
        }
        let takes_turns = jobs.iter().any(|job| turn_of(&job.text).is_some());
        let script = if takes_turns { &self.scripts.enqueue_in_turns } else { &self.scripts.enqueue };
        let mut call = script.call(&all);
        call.arg(until_us).arg(&self.channel).arg(ID_TTL.as_millis() as u64);
        for job in jobs {
            add_job(job, &mut call);
            call.arg(job.digest.map(hex).unwrap_or_default());
        }
        let reply = self.run_enqueue(&call).await?;
        if let Value::BulkString(key) = reply {
            return Err(BackendError::WrongKind { key: String::from_utf8_lossy(&key).into_owned() });
        }
        if let Value::Int(refusal) = reply {
            let refusal = batches::refusal(refusal).ok_or_else(unexpected_reply)?;
            return Ok(vec![EnqueueOutcome::NoMember(refusal); jobs.len()]);
        }
        let mut items = ReplyItems::of(reply).ok_or_else(unexpected_reply)?;
        let mut outcomes = Vec::with_capacity(jobs.len());
        for _ in jobs {
            let text = items.text().ok_or_else(unexpected_reply)?;
            outcomes.push(match text.strip_prefix('=') {
                Some(id) => EnqueueOutcome::Existing(id.into()),
                None if text.is_empty() => EnqueueOutcome::Stored,
                None => EnqueueOutcome::Conflict,
            });
        }
        Ok(outcomes)
    }
}

/// Adds id, queue, text, when it is due, and its claim.
pub(super) fn add_job(job: &NewJob, call: &mut ScriptCall<'_>) {
    call.arg(&*job.id).arg(&*job.queue).arg(&job.text[..]);
    call.arg(job.due_ms.map(|due_ms| due_ms.to_string()).unwrap_or_default());
    match &job.unique {
        Some(claim) => call.arg(&*claim.key).arg(claim.ttl_ms.max(1)),
        None => call.arg("").arg(""),
    };
}

/// For how long the id of a job is remembered whose enqueue is not the start of a script.
pub(super) fn id_ttl_ms(job: &NewJob) -> u64 {
    job.due_ms.map_or(0, |due_ms| due_ms.saturating_sub(now_ms())) + ID_TTL.as_millis() as u64
}

pub(super) fn hex(digest: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(digest))
}
