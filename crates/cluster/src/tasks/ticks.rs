//! Enqueues the ticks of periodic tasks.
//!
//! The hash of ticks has a field for each task: `<last> <since> <seen> <schedule>`, the last tick in ms, when the node of that
//! schedule that began last did so, and when a node with it was seen, both in µs. A tick is enqueued by the script that raises
//! the last one beyond it, so that it is enqueued once, and is not lost with the node.

use deadpool_redis::redis::Value;
use phalanx_core::backend::{
    BackendError, CLOCK_MARGIN_US, SCHEDULE_SILENCE_US, TICK_BATCH, TickCall, TickOutcome, TickRequest,
};

use super::call::{ReplyItems, unexpected_reply};
use super::enqueue::add_job;
use super::{RedisTasks, report_spoilt};

impl RedisTasks {
    pub(super) async fn tick_batch(&self, call: &TickCall<'_>) -> Result<Vec<TickOutcome>, BackendError> {
        if call.tasks.len() > TICK_BATCH {
            return Err(BackendError::refused(format!("the ticks of more than {TICK_BATCH} tasks at once")));
        }
        let keys = &self.keys;
        let mut all = vec![
            keys.ticks(),
            keys.queues(),
            keys.delayed_jobs(),
            keys.runners(),
            keys.ready(),
            keys.again(),
            keys.suspects(),
            keys.parked_of(),
            keys.unique(),
            keys.running_of(),
            keys.fair(),
        ];
        let jobs = call.tasks.iter().flat_map(|task| &task.due).filter_map(|tick| tick.job.as_ref());
        self.add_keys_of_tracked(&mut all, jobs);
        let mut script = self.scripts.tick.call(&all);
        script.arg(call.now_us).arg(call.until_us).arg(call.since_us).arg(CLOCK_MARGIN_US).arg(SCHEDULE_SILENCE_US);
        script.arg(&self.channel);
        for TickRequest { task, schedule, known_ms, next_ms, due } in call.tasks {
            script.arg(&**task).arg(&**schedule).arg(known_ms.unwrap_or(0)).arg(*next_ms).arg(due.len());
            for tick in due {
                script.arg(tick.at_ms);
                match &tick.job {
                    Some(job) => add_job(job, &mut script),
                    None => {
                        script.arg(&[""; 6]);
                    }
                }
            }
        }
        let reply: Vec<Value> = script.run(&*self.own.client().await?).await?;
        if reply.len() != call.tasks.len() {
            return Err(unexpected_reply());
        }
        reply.into_iter().map(|outcome| read_outcome(outcome).ok_or_else(unexpected_reply)).collect()
    }
}

fn read_outcome(outcome: Value) -> Option<TickOutcome> {
    if let Value::BulkString(text) = &outcome {
        let text = std::str::from_utf8(text).ok()?;
        if let Some(schedule) = text.strip_prefix('=') {
            return Some(TickOutcome::Superseded { schedule: schedule.to_owned() });
        }
        let key = text.strip_prefix('!')?.to_owned();
        report_spoilt(std::slice::from_ref(&key));
        return Some(TickOutcome::Spoilt { key });
    }
    let mut items = ReplyItems::of(outcome)?;
    let (last_ms, skipped, missed) = (items.text()?.parse().ok()?, items.number()?, items.number()?);
    let enqueued = items.texts()?.iter().map(|tick| tick.parse().ok()).collect::<Option<_>>()?;
    Some(TickOutcome::Ticked { last_ms, enqueued, skipped: skipped as usize, missed: missed as usize })
}
