//! The attempts that are listed under a generation.

use deadpool_redis::redis::cmd;
use phalanx_core::Generation;
use phalanx_core::backend::{BackendError, FetchedJob, MOVE_BATCH};
use tracing::warn;

use super::RedisTasks;
use super::entry::{field_of, parse_attempt};

/// The cursor of the next page, fields and texts.
type RunningPage = (String, Vec<(Vec<u8>, Vec<u8>)>);

impl RedisTasks {
    /// Reads about a batch of the attempts of a generation.
    pub(super) async fn scan_running(&self, running: &str, cursor: &str) -> Result<RunningPage, BackendError> {
        self.own.client().await?.read(running, cmd("HSCAN").arg(running).arg(cursor).arg("COUNT").arg(MOVE_BATCH)).await
    }

    pub(super) async fn attempts_of(&self, generation: &str) -> Result<Vec<FetchedJob>, BackendError> {
        let running = [&self.keys.running_of(), generation].concat();
        let (mut cursor, mut attempts) = ("0".to_owned(), Vec::new());
        loop {
            let (next, page) = self.scan_running(&running, &cursor).await?;
            for (field, text) in page {
                match parse_attempt(&field, text.into()) {
                    Some(attempt) => attempts.push(attempt),
                    None => warn!(running, field = %String::from_utf8_lossy(&field), "an attempt is unreadable"),
                }
            }
            if next == "0" {
                break;
            }
            cursor = next;
        }
        // A scan may return an attempt twice.
        attempts.sort_by_key(|job| job.attempt.token);
        attempts.dedup_by_key(|job| job.attempt.token);
        Ok(attempts)
    }

    pub(super) async fn list_all_again(&self, of: Generation, attempts: &[FetchedJob]) -> Result<(), BackendError> {
        let keys = &self.keys;
        for batch in attempts.chunks(MOVE_BATCH) {
            let mut call = self.scripts.list_again.call(&[
                keys.unused(),
                keys.leases(),
                keys.running(of),
                keys.names_of(of),
                keys.running_of(),
            ]);
            call.arg(of.as_str());
            for job in batch {
                call.arg(field_of(&job.attempt)).arg(&job.text[..]);
            }
            call.run::<u64>(&*self.own.client().await?).await?;
        }
        Ok(())
    }
}
