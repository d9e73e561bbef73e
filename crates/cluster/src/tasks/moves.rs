//! Moves jobs back to their queues: delayed ones that are due, those of dead nodes, parked ones.

use std::borrow::Cow;

use bytes::Bytes;
use deadpool_redis::redis::{Value, cmd};
use phalanx_core::Generation;
use phalanx_core::backend::{
    AttemptKey, BackendError, BatchStage, Conviction, FetchedJob, GiveBackOutcome, JobCounters, MAX_DEATHS, MAX_REAPS,
    MAX_UNATTENDED, MOVE_BATCH, Promotion,
};
use phalanx_core::job::{FailedRecord, JobText};
use phalanx_core::metrics::record_batch_ends;

use super::attempts::{ListedField, split_batch};
use super::call::{ReplyItems, unexpected_reply};
use super::entry::{parse_counters, parse_field};
use super::unattended::report_dropped;
use super::{RedisTasks, now_ms, report_spoilt};

/// How long a node that moves delayed jobs keeps others from it.
const PROMOTER_MS: u64 = 200;

/// For how long the reap of a node may turn out to be a stall.
const REMEMBERED_MS: u64 = 24 * 60 * 60 * 1000;

/// Parked jobs of a class that are read at once, and the bytes of all after which no more are failed by one call.
const PARKED_SLICE: usize = 16;
const PARKED_BYTES: usize = 256 * 1024;

/// An attempt of a dead generation that is to be moved.
struct DeadAttempt {
    field: String,
    job: FetchedJob,
    names: JobNames,
    /// The records of its failure without its counters, for each conviction; empty where its counters do not come to that.
    records: [Bytes; 2],
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
            keys.batches(),
            keys.batches_ended(),
            keys.batches_due(),
            keys.fair(),
        ]);
        call.arg(&self.name).arg(PROMOTER_MS).arg(&self.channel).arg(MOVE_BATCH).arg(self.failed_max);
        let mut items = ReplyItems::of(call.run(&*self.own.client().await?).await?).ok_or_else(unexpected_reply)?;
        let mut read = || Some((items.number()?, items.text()?, items.texts()?, items.number()?));
        let (moved, next_due, spoilt, expired) = read().ok_or_else(unexpected_reply)?;
        record_batch_ends(BatchStage::Expired, expired);
        report_spoilt(&spoilt);
        Ok(Promotion { moved: moved as usize, next_due_ms: next_due.parse().ok() })
    }

    pub(super) async fn give_back_batch(
        &self,
        by: Generation,
        dead: Generation,
        worker: &str,
    ) -> Result<GiveBackOutcome, BackendError> {
        let (client, running) = (self.own.client().await?, self.keys.running(dead));
        let (mut tokens, mut stuck) = (Vec::new(), None);
        for field in self.fields_of(&client, &running).await? {
            match std::str::from_utf8(&field.name).ok().and_then(parse_field) {
                Some(attempt) => tokens.push((attempt.token, field)),
                None => stuck = Some(format!("{running} {}", String::from_utf8_lossy(&field.name))),
            }
        }
        if let Some(key) = &stuck {
            report_spoilt(std::slice::from_ref(key));
        }
        // The last one first, so that the first one is at the head of its queue in the end.
        tokens.sort_by_key(|(token, _)| std::cmp::Reverse(*token));
        let fields: Vec<ListedField> = tokens.into_iter().map(|(_, field)| field).collect();
        let mut left = &fields[..];
        // All of them, until some move: those of a spoilt queue keep no others from it.
        while !left.is_empty() {
            let (batch, others) = split_batch(left);
            left = others;
            let texts = self.jobs_of(&client, &running, batch).await?;
            let jobs = batch.iter().zip(texts).filter_map(|(field, text)| Some((field, text?)));
            let attempts: Vec<DeadAttempt> =
                jobs.map(|(field, text)| dead_attempt(&field.name, text.into(), worker)).collect();
            match self.give_back_page(by, dead, attempts).await? {
                PageOutcome::ClaimLost => return Ok(GiveBackOutcome::ClaimLost),
                PageOutcome::Moved(convicted) => return Ok(GiveBackOutcome::Some(convicted)),
                PageOutcome::Stuck(Some(key)) => stuck = Some(key),
                PageOutcome::Stuck(None) => {} // they are gone
            }
        }
        match stuck {
            Some(key) => Err(BackendError::WrongKind { key }),
            None => Ok(GiveBackOutcome::Done),
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
            keys.unattended(),
            keys.unattended_of(),
            keys.returned(dead),
            keys.deaths_by(dead),
            keys.stalls_of(),
            keys.held(),
            keys.batches(),
            keys.batches_ended(),
            keys.batches_due(),
            keys.reports(),
            keys.fair(),
        ]);
        call.arg(by.as_str()).arg(dead.as_str()).arg(&self.channel).arg(self.failed_max).arg(MAX_UNATTENDED);
        call.arg(REMEMBERED_MS);
        for DeadAttempt { field, names, records: [poison, stalled], .. } in &attempts {
            call.arg(field).arg(&names.id).arg(&names.claim).arg(&names.class).arg(&names.member);
            call.arg(&poison[..]).arg(&stalled[..]);
        }
        let reply: Value = call.run(&*self.own.client().await?).await?;
        if reply == Value::Nil {
            return Ok(PageOutcome::ClaimLost);
        }
        let mut items = ReplyItems::of(reply).ok_or_else(unexpected_reply)?;
        let mut read = || Some((items.texts()?, items.texts()?, items.number()?, items.number()?));
        let (moved, mut spoilt, dropped, finished) = read().ok_or_else(unexpected_reply)?;
        record_batch_ends(BatchStage::Finished, finished);
        report_spoilt(&spoilt);
        report_dropped(dropped);
        if moved.is_empty() {
            return Ok(PageOutcome::Stuck(spoilt.pop()));
        }
        let convicted = moved.iter().filter_map(|moved| {
            let mut parts = moved.splitn(3, ' ');
            let (deaths, stalls, field) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
            let mut job = attempts.iter().find(|attempt| attempt.field == field)?.job.clone();
            (job.attempt.counters.deaths, job.attempt.counters.stalls) = (deaths, stalls);
            Some(job)
        });
        Ok(PageOutcome::Moved(convicted.collect()))
    }

    pub(super) async fn count_stalls(&self, generation: Generation) -> Result<(), BackendError> {
        let keys = &self.keys;
        let all = [keys.unused(), keys.returned(generation), keys.deaths_by(generation), keys.stalls_of()];
        self.scripts.came_back.call(&all).arg(REMEMBERED_MS).run::<u64>(&*self.own.client().await?).await?;
        Ok(())
    }

    pub(super) async fn fail_parked_batch(
        &self,
        before_ms: u64,
        worker: &str,
        known: &[&str],
    ) -> Result<usize, BackendError> {
        let keys = &self.keys;
        let mut call = self.scripts.fail_parked.call(&[
            keys.unused(),
            keys.parked(),
            keys.failed(),
            keys.failed_ids(),
            keys.failures(),
            keys.parked_of(),
            keys.unique(),
            keys.unattended(),
            keys.unattended_of(),
            keys.queues(),
            keys.ready(),
            keys.again(),
            keys.suspects(),
            keys.batches(),
            keys.batches_ended(),
            keys.batches_due(),
            keys.reports(),
            keys.fair(),
        ]);
        call.arg(self.failed_max).arg(MAX_UNATTENDED).arg(&self.channel);
        let parked = self.names_in(keys.parked()).await?;
        let client = self.own.client().await?;
        let (mut late, mut bytes) = (0, 0);
        'classes: for class in &parked {
            let list = [keys.parked_of().as_str(), class].concat();
            // The oldest one is the first: most of the time it is young, and nothing else is read.
            let head: Option<Vec<u8>> = match client.read(&list, cmd("LINDEX").arg(&list).arg(0)).await {
                Ok(head) => head,
                Err(BackendError::WrongKind { .. }) => continue,
                Err(error) => return Err(error),
            };
            let head = head.and_then(|entry| parse_parked(&entry.into()));
            // An entry of another form waits for nothing.
            let may_wait = |since_ms: u64| since_ms >= before_ms || known.contains(&class.as_str());
            if head.is_some_and(|(since_ms, ..)| may_wait(since_ms)) {
                continue;
            }
            for from in (0..MOVE_BATCH).step_by(PARKED_SLICE) {
                let mut range = cmd("LRANGE");
                range.arg(&list).arg(from).arg(from + PARKED_SLICE - 1);
                let entries: Vec<Vec<u8>> = client.read(&list, &range).await?;
                if entries.is_empty() {
                    break;
                }
                for entry in entries {
                    let entry = Bytes::from(entry);
                    let read = parse_parked(&entry);
                    if read.as_ref().is_some_and(|(since_ms, ..)| may_wait(*since_ms)) {
                        continue 'classes;
                    }
                    if late == MOVE_BATCH || bytes >= PARKED_BYTES {
                        break 'classes;
                    }
                    (late, bytes) = (late + 1, bytes + entry.len());
                    let (exception, error) = match &read {
                        Some(_) => {
                            ("unknown_task", "no node that serves its queue knew its task for tasks.unknown_grace")
                        }
                        None => ("unreadable", "an entry among the parked jobs is of another form"),
                    };
                    let unread = || (0, String::new(), JobCounters::default(), entry.clone());
                    let (_, queue, counters, text) = read.unwrap_or_else(unread);
                    let (queue, text) = (&queue, &text);
                    let record =
                        FailedRecord { worker, queue, text, exception, error, failed_at_ms: now_ms(), counters };
                    let names = JobNames::read(text);
                    call.arg(class).arg(&entry[..]).arg(names.id).arg(names.claim);
                    call.arg(names.member).arg(&record.write()[..]);
                }
            }
        }
        if late == 0 {
            return Ok(0);
        }
        type Moves = (usize, u64, Vec<String>, u64);
        let (moved, dropped, spoilt, finished): Moves = call.run(&*self.own.client().await?).await?;
        record_batch_ends(BatchStage::Finished, finished);
        report_spoilt(&spoilt);
        report_dropped(dropped);
        Ok(moved)
    }
}

enum PageOutcome {
    Moved(Vec<FetchedJob>),
    /// None was moved: this key is spoilt, or they are gone.
    Stuck(Option<String>),
    ClaimLost,
}

/// The names in a job's text, empty for none.
#[derive(Default)]
struct JobNames {
    id: String,
    claim: String,
    class: String,
    member: String,
}

impl JobNames {
    fn read(text: &[u8]) -> Self {
        let own = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned).unwrap_or_default();
        let names = |job: JobText<'_>| Self {
            id: own(job.id),
            claim: own(job.unique),
            class: job.class.into_owned(),
            member: own(job.batch),
        };
        JobText::read(text).map(names).unwrap_or_default()
    }
}

fn dead_attempt(field: &[u8], text: Bytes, worker: &str) -> DeadAttempt {
    let field = String::from_utf8_lossy(field).into_owned();
    let names = JobNames::read(&text);
    let attempt = parse_field(&field).unwrap_or_else(|| AttemptKey {
        token: 0,
        queue: "".into(),
        counters: JobCounters::default(),
    });
    let record = |conviction: Conviction| {
        let record = FailedRecord {
            worker,
            queue: &attempt.queue,
            text: &text,
            exception: conviction.exception(),
            error: conviction.error(),
            failed_at_ms: now_ms(),
            counters: attempt.counters,
        };
        record.write_without_counters()
    };
    let reaps = attempt.counters.reaps().saturating_add(1);
    // The number of deaths is known to the script.
    let records = [(Conviction::Poison, MAX_DEATHS), (Conviction::Stalled, MAX_REAPS)]
        .map(|(conviction, least)| if reaps >= least { record(conviction) } else { Bytes::new() });
    DeadAttempt { field, job: FetchedJob { attempt, text }, names, records }
}

/// Reads `<since ms> <queue> <attempts> <deaths> <stalls> <job>`.
pub(super) fn parse_parked(entry: &Bytes) -> Option<(u64, String, JobCounters, Bytes)> {
    let mut parts = entry.splitn(3, |byte| *byte == b' ');
    let (since, queue) = (std::str::from_utf8(parts.next()?).ok()?, std::str::from_utf8(parts.next()?).ok()?);
    parts.next()?;
    let (counters, text) = parse_counters(&entry.slice(since.len() + queue.len() + 2..))?;
    Some((since.parse().ok()?, queue.to_owned(), counters, text))
}
