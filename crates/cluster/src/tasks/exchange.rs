//! Settles and fetches many jobs in one call.

use std::time::Duration;

use bytes::Bytes;
use deadpool_redis::redis::Value;
use phalanx_core::backend::{
    AttemptEnd, BackendError, BatchStage, Consequences, FetchedJob, JobCounters, SettleOutcome, Settlement, WorkerCall,
    WorkerReply,
};
use phalanx_core::bound_reached;
use phalanx_core::metrics::record_batch_ends;
use tracing::warn;

use super::call::{BATCHES, PLACER, ReplyItems, SHARED, TaskScript, unexpected_reply};
use super::enqueue::{add_job, hex, id_ttl_ms};
use super::entry::{begun, field_of, split_counters, write_field};
use super::jobs::id_of;
use super::limits;
use super::reports::stored_result;
use super::{RedisTasks, report_spoilt};
use crate::keys::Keys;

/// The most bytes of jobs of one call: Redis serves no other client while it writes them.
const MAX_BYTES: usize = 256 * 1024;

/// How often a node says that it serves its queues.
pub(super) const SERVING: Duration = Duration::from_secs(1);

/// The place in the script of the functions that only ends with consequences use.
const FUNCTIONS_HERE: &str = "--[[ of shared.lua, placer.lua, batches.lua, follow_ups.lua ]]";

/// The script. Its text has its keys, so that they are no arguments of each call: all but that of the running attempts, which
/// differs from generation to generation.
pub(super) struct Exchange(TaskScript);

impl Exchange {
    pub(super) fn new(keys: &Keys, channel: &str, failed_max: usize) -> Self {
        let running = keys.running_of();
        let texts = [
            ("UNUSED", keys.unused()),
            ("LEASES", keys.leases()),
            ("PROCESSED", keys.processed()),
            ("DONE", keys.done()),
            ("PAUSED", keys.paused()),
            ("DELETED", keys.deleted()),
            ("DELAYED", keys.delayed()),
            ("SCHEDULE", keys.schedule()),
            ("READY", keys.ready()),
            ("AGAIN", keys.again()),
            ("SUSPECTS", keys.suspects()),
            ("SERVING", keys.serving()),
            ("FAILURES", keys.failures()),
            ("FAILED", keys.failed()),
            ("FAILED_IDS", keys.failed_ids()),
            ("DELAYED_JOBS", keys.delayed_jobs()),
            ("PARKED", keys.parked()),
            ("PARKED_OF", keys.parked_of()),
            ("QUEUES", keys.queues()),
            ("RUNNERS", keys.runners()),
            ("CLAIMS", keys.claims()),
            ("RUNNING_OF", running.clone()),
            ("UNIQUE", keys.unique()),
            ("IDS", keys.ids()),
            ("CHECKPOINTS", keys.checkpoints()),
            ("REPORTS", keys.reports()),
            ("HELD", keys.held()),
            ("RATES", keys.rates()),
            ("FAIR", keys.fair()),
            ("BATCHES", keys.batches()),
            ("BATCHES_ENDED", keys.batches_ended()),
            ("BATCHES_DUE", keys.batches_due()),
            ("CHANNEL", channel.to_owned()),
        ];
        let mut constants: String = texts.iter().map(|(name, text)| constant(name, &quote(text))).collect();
        constants.push_str(&constant("FAILED_MAX", &failed_max.to_string()));
        let limits = limits::fragment("ARGV[2]", NUMBERS_BYTES + 1);
        // Within the block of ends with consequences: a function that is defined costs each call.
        let shared = SHARED.of_names(&["delay", "fail", "release", "track", "report"]);
        let functions = [&*shared, PLACER, BATCHES, include_str!("../lua/tasks/follow_ups.lua")].concat();
        let text = include_str!("../lua/tasks/exchange.lua").replacen(FUNCTIONS_HERE, &functions, 1);
        let text = [&constants, &*limits, &text].concat();
        Self(TaskScript::new(format!("{running}*"), &text))
    }
}

pub(super) fn constant(name: &str, value: &str) -> String {
    format!("local {name} = {value}\n")
}

/// A text as Lua reads it. A prefix may have any characters.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::from("'");
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'\'' | b'\\') {
            quoted.push(byte.into());
        } else {
            quoted.push_str(&format!("\\{byte:03}"));
        }
    }
    quoted.push('\'');
    quoted
}

/// The bytes of the numbers of a call. Behind them is what the script needs of limits of queues, if the node knows any.
const NUMBERS_BYTES: usize = 8 + 9 * 4;

/// A token is sent in two parts: Redis's Lua takes long to format a number of all its digits.
const MILLION: u64 = 1_000_000;

/// The numbers of a call, in one argument: each argument takes Redis longer than all of these together.
fn numbers(call: &WorkerCall<'_>, announces: bool, ends: [usize; 3]) -> Vec<u8> {
    let low = (call.first_token % MILLION) as usize;
    let bytes = call.max_bytes.clamp(1, MAX_BYTES);
    let [successes, ids, others] = ends;
    let (suspect, announces) = (call.takes_suspect.into(), announces.into());
    let counts = [call.wanted, low, bytes, suspect, announces, call.queues.len(), successes, ids, others];
    let counts = counts.into_iter().flat_map(|count| u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
    (call.fetch_until_us as f64).to_le_bytes().into_iter().chain(counts).collect()
}

/// Whether an end has no consequences: it is settled by one command with others of its kind.
pub(super) fn is_plain(settlement: &Settlement) -> bool {
    matches!(settlement.end, AttemptEnd::Done)
        && settlement.unique.is_none()
        && settlement.report.is_none()
        && settlement.consequences.is_none()
}

impl RedisTasks {
    pub(super) async fn exchange_batch(&self, call: &WorkerCall<'_>) -> Result<WorkerReply, BackendError> {
        let plain = || call.settlements.iter().filter(|settlement| is_plain(settlement));
        let others = || call.settlements.iter().filter(|settlement| !is_plain(settlement));
        let ids = || plain().filter_map(|settlement| settlement.id.as_deref());
        let plain_ends = plain().count();
        let ends = [plain_ends, ids().count(), call.settlements.len() - plain_ends];
        let mut invocation = self.exchange.0.call(&[self.keys.running(call.generation)]);
        invocation.arg(call.generation.as_str());
        let mut numbers = numbers(call, self.serving.is_due(call.generation), ends);
        limits::write_meetings(call, &mut numbers);
        limits::write(call, &mut numbers);
        invocation.arg(numbers);
        match call.first_token / MILLION {
            0 => invocation.arg(""),
            millions => invocation.arg(millions),
        };
        for queue in call.queues {
            invocation.arg(&**queue);
        }
        let mut field = Vec::new();
        for settlement in limits::sorted(call, plain) {
            invocation.arg(write_field(&settlement.attempt, &mut field));
        }
        for id in ids() {
            invocation.arg(id);
        }
        for settlement in others() {
            add_end(settlement, &mut invocation);
        }
        for limit in call.limits {
            match limit {
                &usize::MAX => invocation.arg(""),
                limit => invocation.arg(limit),
            };
        }
        let reply: Value = invocation.run(&*self.calls.client().await?).await?;
        if reply == Value::Nil {
            let settled = vec![SettleOutcome::Superseded; call.settlements.len()];
            return Ok(WorkerReply { settled, is_reaped: true, ..WorkerReply::default() });
        }
        let (mut reply, marks) = read(reply, call, plain_ends).ok_or_else(unexpected_reply)?;
        report_spoilt(&reply.spoilt);
        if marks > 0 && !reply.fetched.is_empty() {
            reply.deleted = self.find_deleted(&reply.fetched).await;
        }
        Ok(reply)
    }

    pub(super) async fn take_parked_jobs(
        &self,
        call: &WorkerCall<'_>,
        classes: &[String],
    ) -> Result<WorkerReply, BackendError> {
        let keys = &self.keys;
        let mut invocation = self.scripts.take_parked.call(&[
            keys.unused(),
            keys.leases(),
            keys.running(call.generation),
            keys.parked(),
            keys.paused(),
            keys.parked_of(),
        ]);
        let mut limited = Vec::new();
        limits::write(call, &mut limited);
        invocation.arg(call.generation.as_str()).arg(call.fetch_until_us).arg(call.wanted).arg(call.first_token);
        invocation.arg(call.max_bytes.clamp(1, MAX_BYTES)).arg(u8::from(call.takes_suspect));
        invocation.arg(call.queues.len()).arg(call.limits.len()).arg(limited);
        for queue in call.queues {
            invocation.arg(&**queue);
        }
        for limit in call.limits {
            invocation.arg(limit);
        }
        for class in classes {
            invocation.arg(class);
        }
        let reply: Value = invocation.run(&*self.calls.client().await?).await?;
        if reply == Value::Nil {
            return Ok(WorkerReply { is_reaped: true, ..WorkerReply::default() });
        }
        let mut reply = read_parked(reply, call).ok_or_else(unexpected_reply)?;
        report_spoilt(&reply.spoilt);
        reply.deleted = self.find_deleted(&reply.fetched).await;
        Ok(reply)
    }

    /// The tokens of the jobs that are marked as deleted.
    async fn find_deleted(&self, fetched: &[FetchedJob]) -> Vec<u64> {
        self.deleted_among(fetched).await.unwrap_or_else(|error| {
            warn!(%error, "whether jobs were deleted is not known: they run");
            Vec::new()
        })
    }

    pub(super) async fn deleted_among(&self, fetched: &[FetchedJob]) -> Result<Vec<u64>, BackendError> {
        let (tokens, ids): (Vec<_>, Vec<_>) =
            fetched.iter().filter_map(|job| Some((job.attempt.token, id_of(&job.text)?))).unzip();
        let deleted = self.are_deleted(&ids).await?;
        Ok(tokens.into_iter().zip(deleted).filter_map(|(token, is)| is.then_some(token)).collect())
    }
}

/// Adds field, verb, id, claim, what belongs to the verb, the report, and the other consequences.
fn add_end(settlement: &Settlement, invocation: &mut super::call::ScriptCall<'_>) {
    let due;
    let (verb, x): (&str, &[u8]) = match &settlement.end {
        AttemptEnd::Done => ("done", b""),
        AttemptEnd::Dropped => ("dropped", b""),
        AttemptEnd::Retry { due_ms } | AttemptEnd::Snooze { due_ms } => {
            due = due_ms.to_string();
            (if matches!(settlement.end, AttemptEnd::Retry { .. }) { "retry" } else { "snooze" }, due.as_bytes())
        }
        AttemptEnd::GiveBack => ("back", b""),
        AttemptEnd::Park { class } => ("park", class.as_bytes()),
        AttemptEnd::Failed { record } => ("failed", record),
    };
    let is_over = matches!(settlement.end, AttemptEnd::Done | AttemptEnd::Dropped | AttemptEnd::Failed { .. });
    let consequences = settlement.consequences.as_deref().filter(|_| is_over);
    let verb = if consequences.is_some() { format!("{verb}+") } else { verb.to_owned() };
    invocation.arg(field_of(&settlement.attempt)).arg(verb).arg(settlement.id.as_deref().unwrap_or_default());
    invocation.arg(settlement.unique.as_deref().unwrap_or_default()).arg(x);
    match settlement.report.as_deref() {
        Some(report) => {
            invocation.arg(&*report.id).arg(report.progress.as_deref().unwrap_or_default());
            invocation.arg(stored_result(report));
        }
        None => {
            invocation.arg("").arg("").arg("");
        }
    }
    let Some(Consequences { member, follow_ups, has_checkpoint }) = consequences else { return };
    let follow_ups = if matches!(settlement.end, AttemptEnd::Done) { &follow_ups[..] } else { &[] };
    invocation.arg(member.as_deref().unwrap_or_default()).arg(u8::from(*has_checkpoint)).arg(follow_ups.len());
    for job in follow_ups {
        add_job(job, invocation);
        invocation.arg(job.digest.map(hex).unwrap_or_default()).arg(id_ttl_ms(job)).arg(u8::from(job.tracked));
    }
}

/// Reads the reply; also returns how many jobs are marked as deleted.
fn read(reply: Value, call: &WorkerCall<'_>, plain: usize) -> Option<(WorkerReply, u64)> {
    let mut items = ReplyItems::of(reply)?;
    let missing = items.number()? as usize;
    let dropped = items.number()?;
    if dropped > 0 {
        bound_reached("tasks.failed_max");
        warn!(dropped, "the oldest failed jobs are dropped: there are more than tasks.failed_max");
    }
    let next_due_ms = items.text()?.parse().ok();
    let marks = items.number()?;
    let has_more = items.number()? > 0;
    let (others, spoilt, held_up) = match items.list_or_zero()? {
        Some(mut rare) => (rare.texts()?, rare.texts()?, limits::read_held_up(&mut rare, call)?),
        None => Default::default(),
    };
    let mut fetched = Vec::with_capacity(call.wanted.min(64));
    while items.len() > 0 {
        let (queue, has_counters) = (call.queues.get(items.number()? as usize)?, items.number()? == 1);
        for _ in 0..items.number()? {
            let entry = items.bytes()?;
            let (counters, text): (JobCounters, Bytes) =
                if has_counters { split_counters(&entry) } else { (JobCounters::default(), entry) };
            let attempt = begun(call.first_token + fetched.len() as u64, queue, counters);
            fetched.push(FetchedJob { attempt, text });
        }
    }
    let settled = outcomes(call.settlements, others, missing, plain)?;
    let reply = WorkerReply { settled, fetched, next_due_ms, has_more, spoilt, held_up, ..WorkerReply::default() };
    Some((reply, marks))
}

/// Reads the reply to a call for parked jobs.
fn read_parked(reply: Value, call: &WorkerCall<'_>) -> Option<WorkerReply> {
    let mut items = ReplyItems::of(reply)?;
    let (mut jobs, mut fetched) = (items.list()?, Vec::new());
    while jobs.len() > 0 {
        let queue = jobs.text()?;
        let queue = call.queues.iter().find(|known| ***known == *queue)?;
        let (counters, text) = split_counters(&jobs.bytes()?);
        let attempt = begun(call.first_token + fetched.len() as u64, queue, counters);
        fetched.push(FetchedJob { attempt, text });
    }
    Some(WorkerReply { fetched, spoilt: items.texts()?, ..WorkerReply::default() })
}

/// The outcomes in the order of the settlements. Of plain ends, which are settled in one step, only the number of those that
/// were missing is known: if it is not all, they were settled by a call whose reply was lost.
fn outcomes(
    settlements: &[Settlement],
    others: Vec<String>,
    missing: usize,
    plain: usize,
) -> Option<Vec<SettleOutcome>> {
    let of_plain = if missing == plain { SettleOutcome::Superseded } else { SettleOutcome::Accepted };
    let mut others = others.into_iter();
    let outcome = |settlement: &Settlement| {
        if is_plain(settlement) {
            return Some(of_plain.clone());
        }
        Some(match others.next()?.as_str() {
            outcome @ ("accepted" | "accepted+" | "claim lost" | "claim lost+") => {
                record_batch_ends(BatchStage::Finished, outcome.ends_with('+').into());
                if outcome.starts_with("accepted") { SettleOutcome::Accepted } else { SettleOutcome::ClaimLost }
            }
            "superseded" => SettleOutcome::Superseded,
            key => {
                report_spoilt(&[key.to_owned()]);
                SettleOutcome::Spoilt { key: key.to_owned() }
            }
        })
    };
    settlements.iter().map(outcome).collect()
}
