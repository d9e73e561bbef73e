//! The reports of jobs: a hash each, written by the attempt that is listed, and gone a day after it.
//!
//! That of a tracked job is there from its enqueue on, and has its end: so a caller that waits for the end looks at one key,
//! wherever the job is.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use deadpool_redis::redis::cmd;
use phalanx_core::Generation;
use phalanx_core::backend::{AttemptKey, BackendError, JobReport, JobState, NewJob, ResultMissing, StoredStatus};
use tokio::time::{Instant, timeout, timeout_at};

use super::entry::{field_of, parse_field};
use super::{RedisTasks, report_spoilt};

/// A caller that waits looks again after this time if a look failed.
const AGAIN: Duration = Duration::from_secs(1);

/// Where Redis came back without its data, nodes list within this time again which jobs run, and which of them are tracked.
const LISTED_AGAIN: Duration = Duration::from_secs(15);

/// A report as it is stored.
#[derive(Default)]
struct ReadReport {
    /// The attempt, and its field in the hash of its generation.
    attempt: Option<(Generation, AttemptKey, String)>,
    progress: Option<Bytes>,
    result: Option<Bytes>,
    missing: Option<ResultMissing>,
    is_tracked: bool,
    /// How the job has ended.
    end: Option<JobState>,
}

impl ReadReport {
    /// The attempt that reported last.
    fn reported(&self) -> Option<(Generation, u32)> {
        self.attempt.as_ref().map(|(generation, key, _)| (*generation, key.counters.attempts))
    }
}

/// The result of a report as it is stored: JSON, or `!` and why there is none.
pub(super) fn stored_result(report: &JobReport) -> Vec<u8> {
    match (&report.result, report.missing) {
        (Some(result), _) => result.to_vec(),
        (None, Some(missing)) => ["!", missing.as_str()].concat().into_bytes(),
        (None, None) => Vec::new(),
    }
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

    /// The keys of the reports of those that are tracked.
    pub(super) fn keys_of_tracked<'a>(
        &self,
        jobs: impl IntoIterator<Item = &'a NewJob>,
    ) -> impl Iterator<Item = String> {
        let reports = self.keys.reports();
        jobs.into_iter().filter(|job| job.tracked).map(move |job| [&reports, &*job.id].concat())
    }

    /// Adds the start of these keys, and the keys, if some are tracked.
    pub(super) fn add_keys_of_tracked<'a>(&self, keys: &mut Vec<String>, jobs: impl IntoIterator<Item = &'a NewJob>) {
        let mut tracked = self.keys_of_tracked(jobs).peekable();
        if tracked.peek().is_some() {
            keys.push(self.keys.reports());
            keys.extend(tracked);
        }
    }

    pub(super) async fn find_status(&self, id: &str) -> Result<StoredStatus, BackendError> {
        // The place first: a job that ends between the two looks shows its result.
        let place = self.find_place(id).await?;
        let report = self.read_report(id).await?;
        let over = report.end.clone().or_else(|| report.result.as_ref().map(|_| JobState::Done));
        let (state, running) = match (place, &report.attempt) {
            (Some(state), _) => (state, None),
            // A job that reported is found without a search.
            (None, Some((generation, key, field))) if over.is_none() && self.is_listed(*generation, field).await? => {
                (JobState::Running(*generation), Some((*generation, key.counters.attempts)))
            }
            (None, _) => match over {
                Some(end) => (end, None),
                None => self.search(id).await?,
            },
        };
        let attempt = running.or(report.reported());
        let ReadReport { progress, result, missing, .. } = report;
        Ok(StoredStatus { state, attempt, progress, result, missing })
    }

    /// Waits for the end of a tracked job.
    pub(super) async fn await_end(&self, id: &str) -> Result<Option<StoredStatus>, BackendError> {
        let first = self.read_report(id).await?;
        if !first.is_tracked || first.end.is_some() {
            return Ok(tracked_end(first).flatten());
        }
        let mut end = self.ends.enter(id);
        if end.is_first() {
            end.announced().await; // it is subscribed
        }
        let mut missing_since = None;
        loop {
            match self.read_report(id).await.map(tracked_end) {
                Ok(None) => {
                    let until = *missing_since.get_or_insert_with(Instant::now) + LISTED_AGAIN;
                    if Instant::now() >= until {
                        return Ok(None);
                    }
                    drop(timeout_at(until, end.announced()).await);
                }
                Ok(Some(Some(status))) => return Ok(Some(status)),
                Ok(Some(None)) => {
                    missing_since = None;
                    end.announced().await;
                }
                // A new subscription, after which all look again, may have been first to find Redis back.
                Err(_) => drop(timeout(AGAIN, end.announced()).await),
            }
        }
    }

    async fn read_report(&self, id: &str) -> Result<ReadReport, BackendError> {
        let key = [&self.keys.reports(), id].concat();
        let read = self.shared.read::<HashMap<String, Vec<u8>>>(&key, cmd("HGETALL").arg(&key)).await;
        let mut fields = match read {
            Ok(fields) => fields,
            Err(BackendError::WrongKind { key }) => {
                report_spoilt(&[key]);
                return Ok(ReadReport::default());
            }
            Err(error) => return Err(error),
        };
        let mut text = |name: &str| fields.remove(name).and_then(|text| String::from_utf8(text).ok());
        let attempt = text("attempt").and_then(|attempt| {
            let (generation, field) = attempt.split_once(' ')?;
            Some((Generation::parse(generation)?, parse_field(field)?, field.to_owned()))
        });
        let end = text("end").and_then(|end| match end.as_str() {
            "done" => Some(JobState::Done),
            "failed" => Some(JobState::Failed),
            "dropped" => Some(JobState::Dropped),
            _ => None,
        });
        let is_tracked = fields.remove("tracked").is_some();
        let (mut result, mut missing) = (fields.remove("result").map(Bytes::from), None);
        if let Some(reason) = result.as_ref().and_then(|result| result.strip_prefix(b"!")) {
            missing = std::str::from_utf8(reason).ok().and_then(ResultMissing::parse);
            result = None;
        }
        Ok(ReadReport {
            attempt,
            progress: fields.remove("progress").map(Bytes::from),
            result,
            missing,
            is_tracked,
            end,
        })
    }

    async fn is_listed(&self, generation: Generation, field: &str) -> Result<bool, BackendError> {
        let running = self.keys.running(generation);
        self.shared.read(&running, cmd("HEXISTS").arg(&running).arg(field)).await
    }
}

/// The status of a tracked job that is over, `Some(None)` if it is not over yet; `None` for a job that is not tracked.
fn tracked_end(report: ReadReport) -> Option<Option<StoredStatus>> {
    let attempt = report.reported();
    let ReadReport { progress, result, missing, is_tracked, end, .. } = report;
    is_tracked.then(|| end.map(|state| StoredStatus { state, attempt, progress, result, missing }))
}
