//! Batches: a hash each, and a bitmap of the members that have ended. Their deadlines are in a sorted set.

use std::sync::Arc;

use deadpool_redis::redis::cmd;
use phalanx_core::backend::{BATCH_TTL_MS, BackendError, BatchRefusal, BatchStage, NewBatch, SealOutcome, StoredBatch};
use phalanx_core::metrics::record_batch_ends;

use super::call::unexpected_reply;
use super::{RedisTasks, now_ms};

/// The refusal by its number in the reply of an enqueue.
pub(super) fn refusal(number: i64) -> Option<BatchRefusal> {
    match number {
        1 => Some(BatchRefusal::Unknown),
        2 => Some(BatchRefusal::Sealed),
        3 => Some(BatchRefusal::Expired),
        4 => Some(BatchRefusal::TooLarge),
        _ => None,
    }
}

impl RedisTasks {
    pub(super) async fn store_batch(
        &self,
        batch: &NewBatch,
        until_us: u64,
    ) -> Result<Option<StoredBatch>, BackendError> {
        let NewBatch { id, deadline_ms, completion } = batch;
        let kept_ms = deadline_ms.saturating_sub(now_ms()) + BATCH_TTL_MS;
        let mut all = vec![[&*self.keys.batches(), id].concat(), self.keys.batches_due()];
        all.extend(self.keys_of_tracked(completion));
        let mut call = self.scripts.create_batch.call(&all);
        call.arg(until_us).arg(&**id).arg(deadline_ms).arg(kept_ms).arg(&self.channel);
        if let Some(job) = completion {
            call.arg(&*job.id).arg(&*job.queue).arg(&job.text[..]);
        }
        let is_new: bool = call.run(&self.shared).await?;
        if is_new { Ok(None) } else { self.read_batch(id).await }
    }

    pub(super) async fn close_batch(&self, id: &str) -> Result<SealOutcome, BackendError> {
        let keys = &self.keys;
        let mut call = self.scripts.seal_batch.call(&[
            keys.unused(),
            [&*keys.batches(), id].concat(),
            keys.queues(),
            keys.batches_due(),
            keys.batches(),
            keys.batches_ended(),
            keys.ready(),
            keys.again(),
            keys.suspects(),
            keys.fair(),
        ]);
        let reply: String = call.arg(id).arg(&self.channel).run(&self.shared).await?;
        Ok(SealOutcome::Refused(match (&*reply, reply.strip_prefix('!')) {
            ("" | "finished", _) => {
                record_batch_ends(BatchStage::Finished, (reply == "finished").into());
                let stored = self.read_batch(id).await?;
                return Ok(stored.map_or(SealOutcome::Refused(BatchRefusal::Unknown), SealOutcome::Sealed));
            }
            ("unknown", _) => BatchRefusal::Unknown,
            ("sealed", _) => BatchRefusal::Sealed,
            ("expired", _) => BatchRefusal::Expired,
            (_, Some(key)) => return Err(BackendError::WrongKind { key: key.to_owned() }),
            _ => return Err(unexpected_reply()),
        }))
    }

    pub(super) async fn read_batch(&self, id: &str) -> Result<Option<StoredBatch>, BackendError> {
        let key = [&*self.keys.batches(), id].concat();
        let mut look = cmd("HMGET");
        look.arg(&key);
        for field in ["end", "sealed", "id", "total", "done", "failed", "deleted"] {
            look.arg(field);
        }
        let fields: [Option<String>; 7] = self.shared.read(&key, &look).await?;
        let [end, sealed, completion, total, done, failed, deleted] = fields;
        let stage = match (end.as_deref(), sealed) {
            (Some("expired"), _) => BatchStage::Expired,
            (Some(_), _) => BatchStage::Finished,
            (None, Some(_)) => BatchStage::Sealed,
            (None, None) => BatchStage::Open,
        };
        let number = |field: Option<String>| field?.parse().ok();
        let Some(total) = number(total) else { return Ok(None) };
        let [done, failed, deleted] = [done, failed, deleted].map(|field| number(field).unwrap_or(0));
        let completion = completion.map(Arc::from);
        Ok(Some(StoredBatch { stage, total, done, failed, deleted, completion }))
    }
}
