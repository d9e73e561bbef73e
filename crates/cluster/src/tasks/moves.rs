//! Moves jobs back to their queues: delayed ones that are due, those of dead nodes, parked ones.

use std::sync::Arc;

use bytes::Bytes;
use deadpool_redis::redis::{Value, cmd};
use phalanx_core::Generation;
use phalanx_core::backend::{
    AttemptKey, BackendError, FetchedJob, GiveBackOutcome, JobCounters, MAX_DEATHS, MOVE_BATCH, Promotion,
};
use phalanx_core::job::{FailedRecord, JobText};

use super::call::{ReplyItems, unexpected_reply};
use super::entry::{parse_field, split_counters};
use super::{RedisTasks, now_ms, report_spoilt};

/// How long a node that moves delayed jobs keeps others from it.
const PROMOTER_MS: u64 = 200;

/// An attempt of a dead generation that is to be moved.
struct DeadAttempt {
    field: String,
    job: FetchedJob,
    id: String,
    claim: String,
    /// The record of its failure, if it is convicted.
    record: Bytes,
}

impl RedisTasks {
    pub(super) async fn promote_batch(&self) -> Result<Promotion, BackendError> {
        let keys = &self.keys;
        let mut call = self.scripts.promote.call(&[
            keys.unused(),
            keys.delayed(),
            keys.delayed_jobs(),
            keys.promoter(),
            keys.schedule(),
            keys.queues(),
            keys.ready(),
            keys.again(),
            keys.suspects(),
            keys.delayed_at(),
            keys.timestamps(),
            keys.failed(),
            keys.failed_ids(),
            keys.failures(),
        ]);
        call.arg(&self.name).arg(PROMOTER_MS).arg(&self.channel).arg(MOVE_BATCH).arg(self.failed_max);
        let mut items = ReplyItems::of(call.run(&*self.own.client().await?).await?).ok_or_else(unexpected_reply)?;
        let mut read = || Some((items.number()?, items.text()?, items.texts()?));
        let (moved, next_due, spoilt) = read().ok_or_else(unexpected_reply)?;
        report_spoilt(&spoilt);
        Ok(Promotion { moved: moved as usize, next_due_ms: next_due.parse().ok() })
    }

    pub(super) async fn give_back_batch(
        &self,
        by: Generation,
        dead: Generation,
        worker: &str,
    ) -> Result<GiveBackOutcome, BackendError> {
        let running = self.keys.running(dead);
        let (mut cursor, mut stuck) = ("0".to_owned(), None);
        loop {
            let (next, page) = self.scan_running(&running, &cursor).await?;
            let mut attempts: Vec<DeadAttempt> =
                page.into_iter().map(|(field, text)| dead_attempt(&field, text.into(), worker)).collect();
            // The last one first, so that the first one is at the head of its queue in the end.
            attempts.sort_by_key(|attempt| std::cmp::Reverse(attempt.job.attempt.token));
            attempts.truncate(MOVE_BATCH);
            if !attempts.is_empty() {
                match self.give_back_page(by, dead, attempts).await? {
                    PageOutcome::ClaimLost => return Ok(GiveBackOutcome::ClaimLost),
                    PageOutcome::Moved(convicted) => return Ok(GiveBackOutcome::Some(convicted)),
                    PageOutcome::Stuck(key) => stuck = Some(key),
                }
            }
            if next == "0" {
                return match stuck {
                    Some(key) => Err(BackendError::WrongKind { key }),
                    None => Ok(GiveBackOutcome::Done),
                };
            }
            cursor = next;
        }
    }

    async fn give_back_page(
        &self,
        by: Generation,
        dead: Generation,
        attempts: Vec<DeadAttempt>,
    ) -> Result<PageOutcome, BackendError> {
        let keys = &self.keys;
        let mut call = self.scripts.give_back.call(&[
            keys.unused(),
            keys.reapers(),
            keys.running(dead),
            keys.queues(),
            keys.ready(),
            keys.again(),
            keys.suspects(),
            keys.unique(),
            keys.failed(),
            keys.failed_ids(),
            keys.failures(),
            keys.deleted(),
            keys.serving(),
        ]);
        call.arg(by.as_str()).arg(dead.as_str()).arg(&self.channel).arg(self.failed_max);
        for attempt in &attempts {
            call.arg(&attempt.field).arg(&attempt.id).arg(&attempt.claim).arg(&attempt.record[..]);
        }
        let reply: Value = call.run(&*self.own.client().await?).await?;
        if reply == Value::Nil {
            return Ok(PageOutcome::ClaimLost);
        }
        let mut items = ReplyItems::of(reply).ok_or_else(unexpected_reply)?;
        let mut read = || Some((items.texts()?, items.texts()?));
        let (moved, mut spoilt) = read().ok_or_else(unexpected_reply)?;
        report_spoilt(&spoilt);
        if moved.is_empty()
            && let Some(key) = spoilt.pop()
        {
            return Ok(PageOutcome::Stuck(key));
        }
        let convicted = attempts.into_iter().filter(|attempt| moved.contains(&attempt.field));
        Ok(PageOutcome::Moved(convicted.map(|attempt| attempt.job).collect()))
    }

    pub(super) async fn unpark_classes(&self, known: &[Arc<str>]) -> Result<usize, BackendError> {
        let mut moved = 0;
        let keys = &self.keys;
        let parked = self.names_in(keys.parked()).await?;
        for class in parked.iter().filter(|class| known.iter().any(|known| **known == ***class)) {
            let mut call = self.scripts.unpark.call(&[
                keys.unused(),
                keys.parked(),
                keys.queues(),
                keys.ready(),
                keys.again(),
                keys.suspects(),
                keys.parked_of(),
            ]);
            call.arg(&self.channel).arg(MOVE_BATCH).arg(class);
            let mut items = ReplyItems::of(call.run(&*self.own.client().await?).await?).ok_or_else(unexpected_reply)?;
            let mut read = || Some((items.number()?, items.texts()?));
            let (count, spoilt) = read().ok_or_else(unexpected_reply)?;
            report_spoilt(&spoilt);
            moved += count as usize;
        }
        Ok(moved)
    }

    pub(super) async fn fail_parked_batch(&self, before_ms: u64, worker: &str) -> Result<usize, BackendError> {
        let keys = &self.keys;
        let mut call = self.scripts.fail_parked.call(&[
            keys.unused(),
            keys.parked(),
            keys.failed(),
            keys.failed_ids(),
            keys.failures(),
            keys.parked_of(),
            keys.unique(),
        ]);
        call.arg(self.failed_max);
        let parked = self.names_in(keys.parked()).await?;
        let mut late = 0;
        for class in &parked {
            let mut range = cmd("LRANGE");
            range.arg([keys.parked_of().as_str(), class].concat()).arg(0).arg(MOVE_BATCH - late);
            let Ok(entries) = self.own.client().await?.read::<Vec<Vec<u8>>>("parked:*", &range).await else { continue };
            for entry in entries {
                let entry = Bytes::from(entry);
                let Some((since_ms, queue, counters, text)) = parse_parked(&entry) else { continue };
                if since_ms >= before_ms || late == MOVE_BATCH {
                    break;
                }
                late += 1;
                let record = FailedRecord {
                    worker,
                    queue: &queue,
                    text: &text,
                    exception: "unknown_task",
                    error: "no node knew its task for tasks.unknown_grace",
                    failed_at_ms: now_ms(),
                    counters,
                };
                let (id, claim) = id_and_claim(&text);
                call.arg(class).arg(&entry[..]).arg(id).arg(claim).arg(&record.write()[..]);
            }
        }
        if late == 0 {
            return Ok(0);
        }
        call.run::<usize>(&*self.own.client().await?).await
    }
}

enum PageOutcome {
    Moved(Vec<FetchedJob>),
    /// None was moved: this key is spoilt.
    Stuck(String),
    ClaimLost,
}

/// The id and the claim of a job, empty for none.
fn id_and_claim(text: &[u8]) -> (String, String) {
    let read = JobText::read(text);
    let own = |text: Option<std::borrow::Cow<'_, str>>| text.map(std::borrow::Cow::into_owned).unwrap_or_default();
    read.map(|job| (own(job.id), own(job.unique))).unwrap_or_default()
}

fn dead_attempt(field: &[u8], text: Bytes, worker: &str) -> DeadAttempt {
    let field = String::from_utf8_lossy(field).into_owned();
    let (id, claim) = id_and_claim(&text);
    let mut attempt = parse_field(&field).unwrap_or_else(|| AttemptKey {
        token: 0,
        queue: "".into(),
        counters: JobCounters::default(),
    });
    attempt.counters.deaths += 1;
    let is_convicted = attempt.counters.deaths >= MAX_DEATHS;
    let record = is_convicted.then(|| {
        let record = FailedRecord {
            worker,
            queue: &attempt.queue,
            text: &text,
            exception: "poison",
            error: "three nodes died while they ran it",
            failed_at_ms: now_ms(),
            counters: attempt.counters,
        };
        record.write()
    });
    DeadAttempt { field, job: FetchedJob { attempt, text }, id, claim, record: record.unwrap_or_default() }
}

/// Reads `<since ms> <queue> <attempts> <deaths> <stalls> <job>`.
pub(super) fn parse_parked(entry: &Bytes) -> Option<(u64, String, JobCounters, Bytes)> {
    let mut parts = entry.splitn(3, |byte| *byte == b' ');
    let (since, queue) = (std::str::from_utf8(parts.next()?).ok()?, std::str::from_utf8(parts.next()?).ok()?);
    let (counters, text) = split_counters(&entry.slice(since.len() + queue.len() + 2..));
    Some((since.parse().ok()?, queue.to_owned(), counters, text))
}
