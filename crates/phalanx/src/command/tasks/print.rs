//! Results of the command `tasks`, as tables and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use phalanx_core::backend::TaskStats;
use phalanx_core::job::{FailedJob, JobText};
use phalanx_core::task::{ActiveAttempt, TaskSeries};
use serde_json::{Value, json};

use crate::command::output::{Printed, time_of_resque};
use crate::command::table::align;

/// A row of a list, for both.
pub(super) type ListRow<const COLUMNS: usize> = ([String; COLUMNS], Value);

/// A list with its heads.
pub(super) fn list<const COLUMNS: usize>(heads: [&str; COLUMNS], rows: Vec<ListRow<COLUMNS>>) -> Printed {
    let (cells, lines): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let rows: Vec<_> = std::iter::once(heads.map(str::to_owned)).chain(cells).collect();
    Printed { text: align(&rows), lines, ..Printed::default() }
}

pub(super) fn stats(stats: &TaskStats, now_ms: u64) -> Printed {
    let mut queues: BTreeMap<&str, u64> = stats.queues.iter().map(|(name, length)| (&**name, *length)).collect();
    for paused in &stats.paused {
        queues.entry(paused).or_default();
    }
    let oldest: BTreeMap<&str, u64> = stats.oldest.iter().map(|(name, since)| (&**name, *since)).collect();
    let (mut rows, mut lines) = (Vec::new(), Vec::new());
    for (name, length) in queues {
        let age_ms = oldest.get(name).map(|since| now_ms.saturating_sub(*since));
        let is_paused = stats.paused.iter().any(|paused| paused == name);
        let age = age_ms.map(Duration::from_millis).map(seconds).unwrap_or_default();
        let state = if is_paused { "paused" } else { "" };
        rows.push(([name.to_owned(), length.to_string(), age, state.to_owned()], Value::Null));
        lines.push(json!({ "queue": name, "length": length, "oldestMs": age_ms, "paused": is_paused }));
    }
    let mut text = list(["QUEUE", "LENGTH", "OLDEST", "STATE"], rows).text;
    let TaskStats { running, delayed, parked, batches, failed, processed, .. } = stats;
    let totals = [
        ("running", running),
        ("delayed", delayed),
        ("parked", parked),
        ("batches", batches),
        ("failed", failed),
        ("processed", processed),
    ];
    text.push('\n');
    text.push_str(&align(&totals.map(|(name, count)| [name.to_owned(), count.to_string()])));
    let line = json!({
        "queues": lines,
        "running": running,
        "delayed": delayed,
        "parked": parked,
        "batches": batches,
        "failed": failed,
        "processed": processed,
        "workers": stats.workers,
    });
    Printed { text, lines: vec![line], ..Printed::default() }
}

pub(super) const SERIES: [&str; 5] = ["TASK", "PROCESSED", "FAILED", "P50", "P99"];

pub(super) fn series(series: &TaskSeries) -> ListRow<5> {
    let TaskSeries { task, processed, failed, p50, p99, .. } = series;
    let ms = |time: &Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let shown = |time: &Duration| format!("{time:.1?}");
    let cells = [task.to_string(), processed.to_string(), failed.to_string(), shown(p50), shown(p99)];
    let line = json!({ "task": &**task, "processed": processed, "failed": failed, "p50Ms": ms(p50), "p99Ms": ms(p99) });
    (cells, line)
}

pub(super) const WAITING: [&str; 3] = ["ID", "TASK", "AGE"];

pub(super) fn waiting(text: &[u8], now_ms: u64) -> ListRow<3> {
    let Some(job) = JobText::read(text) else {
        return (["", "unreadable", ""].map(str::to_owned), json!({ "id": null, "task": "unreadable", "ageMs": null }));
    };
    let age_ms = job.could_begin_at().map(|since| now_ms.saturating_sub(since));
    let age = age_ms.map(Duration::from_millis).map(seconds).unwrap_or_default();
    let line = json!({ "id": job.id, "task": job.class, "ageMs": age_ms });
    ([job.id.unwrap_or_default().into_owned(), job.class.into_owned(), age], line)
}

pub(super) const RUNNING: [&str; 6] = ["ID", "TASK", "QUEUE", "ATTEMPT", "NODE", "AGE"];

pub(super) fn running(attempt: &ActiveAttempt) -> ListRow<6> {
    let node = attempt.node.as_deref();
    let cells = [
        attempt.id.to_string(),
        attempt.task.to_string(),
        attempt.queue.to_string(),
        attempt.attempt.to_string(),
        node.unwrap_or_default().to_owned(),
        attempt.age.map(seconds).unwrap_or_default(),
    ];
    let line = json!({
        "id": &*attempt.id,
        "task": &*attempt.task,
        "queue": &*attempt.queue,
        "attempt": attempt.attempt,
        "deaths": attempt.deaths,
        "node": node,
        "generation": attempt.generation.as_str(),
        "ageMs": attempt.age.map(|age| age.as_millis() as u64),
    });
    (cells, line)
}

pub(super) const FAILED: [&str; 6] = ["ID", "TASK", "QUEUE", "ATTEMPTS", "FAILED AT", "ERROR"];

pub(super) fn failed(job: &FailedJob) -> ListRow<6> {
    let error = format!("{}: {}", job.exception, job.error.lines().next().unwrap_or_default());
    let cells = [
        job.id.clone().unwrap_or_default(),
        job.task.clone(),
        job.queue.clone(),
        job.counters.attempts.to_string(),
        time_of_resque(&job.failed_at),
        error,
    ];
    let line = json!({
        "id": job.id,
        "task": job.task,
        "queue": job.queue,
        "attempts": job.counters.attempts,
        "deaths": job.counters.deaths,
        "worker": job.worker,
        "failedAt": time_of_resque(&job.failed_at),
        "exception": job.exception,
        "error": job.error,
        "payload": job.payload,
    });
    (cells, line)
}

pub(super) const NODES: [&str; 2] = ["NODE", "STATE"];

pub(super) fn node((id, quiet): (String, Option<bool>)) -> ListRow<2> {
    let state = match quiet {
        Some(true) => "quiet",
        Some(false) => "fetches jobs",
        None => "unknown",
    };
    let line = json!({ "node": id, "quiet": quiet });
    ([id, state.to_owned()], line)
}

fn seconds(age: Duration) -> String {
    format!("{:.1}s", age.as_secs_f64())
}
