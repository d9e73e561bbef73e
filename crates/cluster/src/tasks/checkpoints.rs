//! Checkpoints: a text by the id of its job, written by the attempt that is listed, and removed with the job's success.

use bytes::Bytes;
use deadpool_redis::redis::cmd;
use phalanx_core::Generation;
use phalanx_core::backend::{AttemptKey, BackendError};

use super::RedisTasks;
use super::entry::field_of;

impl RedisTasks {
    pub(super) async fn store_checkpoint(
        &self,
        of: Generation,
        (attempt, id): (&AttemptKey, &str),
        value: &[u8],
        ttl_ms: u64,
    ) -> Result<bool, BackendError> {
        let keys = [self.keys.running(of), [&*self.keys.checkpoints(), id].concat()];
        let mut call = self.scripts.checkpoint.call(&keys);
        call.arg(field_of(attempt)).arg(value).arg(ttl_ms).run::<bool>(&self.shared).await
    }

    pub(super) async fn read_checkpoint(&self, id: &str) -> Result<Option<Bytes>, BackendError> {
        let key = [&*self.keys.checkpoints(), id].concat();
        let value: Option<Vec<u8>> = self.shared.read(&key, cmd("GET").arg(&key)).await?;
        Ok(value.map(Bytes::from))
    }
}
