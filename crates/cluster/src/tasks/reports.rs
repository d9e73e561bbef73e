//! The reports of jobs: a hash each, written by the attempt that is listed, and gone a day after it.

use bytes::Bytes;
use deadpool_redis::redis::{cmd, pipe};
use phalanx_core::Generation;
use phalanx_core::backend::{AttemptKey, BackendError, JobReport, JobState, StoredStatus};

use super::entry::{field_of, parse_field};
use super::{RedisTasks, report_spoilt};

/// A report as it is stored.
#[derive(Default)]
struct ReadReport {
    /// The attempt, and its field in the hash of its generation.
    attempt: Option<(Generation, AttemptKey, String)>,
    progress: Option<Bytes>,
    result: Option<Bytes>,
}

impl RedisTasks {
    pub(super) async fn keep_report(
        &self,
        of: Generation,
        attempt: &AttemptKey,
        report: &JobReport,
        ttl_ms: u64,
    ) -> Result<bool, BackendError> {
        let keys = [self.keys.running(of), [&self.keys.reports(), &*report.id].concat()];
        let mut call = self.scripts.report.call(&keys);
        call.arg(of.as_str()).arg(field_of(attempt)).arg(report.progress.as_deref().unwrap_or_default()).arg(ttl_ms);
        call.run::<bool>(&self.shared).await
    }

    pub(super) async fn find_status(&self, id: &str) -> Result<StoredStatus, BackendError> {
        // The place first: a job that ends between the two looks shows its result.
        let place = self.find_place(id).await?;
        let ReadReport { attempt, progress, result } = self.read_report(id).await?;
        let reported = attempt.as_ref().map(|(generation, key, _)| (*generation, key.counters.attempts));
        let (state, running) = match (place, &attempt) {
            (Some(state), _) => (state, None),
            (None, _) if result.is_some() => (JobState::Done, None),
            // A job that reported is found without a search.
            (None, Some((generation, key, field))) if self.is_listed(*generation, field).await? => {
                (JobState::Running(*generation), Some((*generation, key.counters.attempts)))
            }
            (None, _) => self.search(id).await?,
        };
        Ok(StoredStatus { state, attempt: running.or(reported), progress, result })
    }

    async fn read_report(&self, id: &str) -> Result<ReadReport, BackendError> {
        let key = [&self.keys.reports(), id].concat();
        let mut looks = pipe();
        // The result first: a progress that was stored with it is seen with it.
        for field in ["result", "progress", "attempt"] {
            looks.cmd("HGET").arg(&key).arg(field);
        }
        type Fields = (Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);
        let (result, progress, attempt): Fields = match self.shared.read_all(&key, &looks).await {
            Ok(fields) => fields,
            Err(BackendError::WrongKind { key }) => {
                report_spoilt(&[key]);
                return Ok(ReadReport::default());
            }
            Err(error) => return Err(error),
        };
        let attempt = attempt.and_then(|attempt| {
            let attempt = String::from_utf8(attempt).ok()?;
            let (generation, field) = attempt.split_once(' ')?;
            Some((Generation::parse(generation)?, parse_field(field)?, field.to_owned()))
        });
        Ok(ReadReport { attempt, progress: progress.map(Bytes::from), result: result.map(Bytes::from) })
    }

    async fn is_listed(&self, generation: Generation, field: &str) -> Result<bool, BackendError> {
        let running = self.keys.running(generation);
        self.shared.read(&running, cmd("HEXISTS").arg(&running).arg(field)).await
    }
}
