//! Metrics of jobs and slots.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use phalanx_core::backend::{HeldUpQueue, ResultMissing, TaskStats};
use phalanx_core::job::AttemptOutcome;

/// The label of jobs whose task this node does not have.
const UNKNOWN: &str = "unknown";

/// Describes the metrics; called once by a node that has tasks.
pub(crate) fn describe() {
    describe_counter!("phalanx_tasks_total", "Attempts of jobs that ended on this node, by task and outcome");
    describe_histogram!("phalanx_task_duration_seconds", "Time from the start of an attempt to its end, by task");
    describe_histogram!("phalanx_task_pickup_seconds", "Time from when a job could begin to its first attempt");
    describe_gauge!("phalanx_tasks_running", "Attempts that this node holds");
    describe_gauge!("phalanx_tasks_quiet", "1 while an operator wants this node to fetch no jobs");
    describe_gauge!(
        "phalanx_tasks_foreign_queues",
        "1 while no jobs are fetched because another cluster uses the queues"
    );
    describe_gauge!("phalanx_tasks_blocked", "Slots whose task did not return at its deadline");
    describe_gauge!("phalanx_tasks_waiting", "Jobs that wait, by queue, in the whole cluster");
    describe_gauge!("phalanx_tasks_oldest_seconds", "Age of the oldest job at the heads of a queue");
    describe_gauge!("phalanx_tasks_stored", "Jobs that are delayed, parked, or failed, in the whole cluster, by state");
    describe_gauge!("phalanx_tasks_batches_open", "Batches that are not over, in the whole cluster");
    describe_counter!(
        "phalanx_tasks_results_missing_total",
        "Jobs of tracked tasks whose result was not kept, by task and reason"
    );
    describe_counter!(
        "phalanx_tasks_unique_lost_total",
        "Jobs whose unique key was another's, or expired, at their end"
    );
    describe_counter!(
        "phalanx_tasks_held_up_total",
        "Fetches that left jobs in a queue because of its limit or its rate"
    );
    describe_counter!("phalanx_tasks_spoilt_total", "Settlements and fetches that a spoilt key of the store prevented");
    describe_counter!(
        "phalanx_tasks_adopted_total",
        "Attempts whose fetch was not answered, found in the store's list"
    );
    describe_counter!("phalanx_tasks_series_lost_total", "Additions to the minute series that the store did not take");
    describe_counter!("phalanx_tasks_call_failures_total", "Calls to the store that failed, or were not answered");
}

/// Describes the metrics of a node that has periodic tasks.
pub(crate) fn describe_ticks() {
    describe_counter!("phalanx_tasks_ticks_total", "Ticks of periodic tasks by this node, by task and outcome");
    describe_histogram!("phalanx_tasks_tick_late_seconds", "Time from a tick to the enqueue of its job");
}

pub(crate) fn record_tick(task: &'static str, late: Duration) {
    counter!("phalanx_tasks_ticks_total", "task" => task, "outcome" => "enqueued").increment(1);
    histogram!("phalanx_tasks_tick_late_seconds").record(late);
}

pub(crate) fn record_ticks_left_out(task: &'static str, skipped: usize, missed: usize) {
    for (outcome, count) in [("skipped", skipped), ("missed", missed)] {
        if count > 0 {
            counter!("phalanx_tasks_ticks_total", "task" => task, "outcome" => outcome).increment(count as u64);
        }
    }
}

/// The handles of a task, or of all jobs whose task this node does not have. To look one up takes longer than to record.
#[derive(Default)]
pub(crate) struct TaskMetrics {
    done: OnceLock<Counter>,
    duration: OnceLock<Histogram>,
}

impl TaskMetrics {
    /// Records the end of an attempt.
    pub(crate) fn record_end(&self, task: Option<&'static str>, outcome: AttemptOutcome, took: Duration) {
        let task = task.unwrap_or(UNKNOWN);
        let ended = || counter!("phalanx_tasks_total", "task" => task, "outcome" => outcome.as_str());
        match outcome {
            AttemptOutcome::Done => self.done.get_or_init(ended).increment(1),
            _ => ended().increment(1),
        }
        self.duration.get_or_init(|| histogram!("phalanx_task_duration_seconds", "task" => task)).record(took);
    }
}

/// The handles of what is recorded for each job or each call.
pub(crate) struct WorkerMetrics {
    pickup: Histogram,
    running: Gauge,
    blocked: Gauge,
}

impl WorkerMetrics {
    pub(crate) fn new() -> Self {
        Self {
            pickup: histogram!("phalanx_task_pickup_seconds"),
            running: gauge!("phalanx_tasks_running"),
            blocked: gauge!("phalanx_tasks_blocked"),
        }
    }

    pub(crate) fn record_pickup(&self, waited: Duration) {
        self.pickup.record(waited);
    }

    pub(crate) fn record_slots(&self, held: usize, blocked: usize) {
        self.running.set(held as f64);
        self.blocked.set(blocked as f64);
    }
}

pub(crate) fn record_quiet(is_quiet: bool) {
    gauge!("phalanx_tasks_quiet").set(f64::from(u8::from(is_quiet)));
}

pub(crate) fn record_foreign_queues(are_foreign: bool) {
    gauge!("phalanx_tasks_foreign_queues").set(f64::from(u8::from(are_foreign)));
}

pub(crate) fn record_stats(stats: &TaskStats, now_ms: u64, served: impl Fn(&str) -> bool) {
    let oldest: HashMap<&str, u64> = stats.oldest.iter().map(|(queue, since_ms)| (&**queue, *since_ms)).collect();
    for (queue, length) in stats.queues.iter().filter(|(queue, _)| served(queue)) {
        gauge!("phalanx_tasks_waiting", "queue" => queue.clone()).set(*length as f64);
        // Zero where none waits.
        let since_ms = oldest.get(&**queue).copied().unwrap_or(now_ms);
        let age = Duration::from_millis(now_ms.saturating_sub(since_ms));
        gauge!("phalanx_tasks_oldest_seconds", "queue" => queue.clone()).set(age.as_secs_f64());
    }
    for (state, count) in [("delayed", stats.delayed), ("parked", stats.parked), ("failed", stats.failed)] {
        gauge!("phalanx_tasks_stored", "state" => state).set(count as f64);
    }
    gauge!("phalanx_tasks_batches_open").set(stats.batches as f64);
}

pub(crate) fn record_result_missing(task: &'static str, missing: ResultMissing) {
    counter!("phalanx_tasks_results_missing_total", "task" => task, "reason" => missing.as_str()).increment(1);
}

pub(crate) fn record_unique_lost() {
    counter!("phalanx_tasks_unique_lost_total").increment(1);
}

pub(crate) fn record_spoilt(count: usize) {
    counter!("phalanx_tasks_spoilt_total").increment(count as u64);
}

pub(crate) fn record_held_up(held_up: &HeldUpQueue) {
    let by = if held_up.opens_in.is_some() { "rate" } else { "limit" };
    counter!("phalanx_tasks_held_up_total", "queue" => held_up.queue.to_string(), "by" => by).increment(1);
}

pub(crate) fn record_adopted(count: usize) {
    counter!("phalanx_tasks_adopted_total").increment(count as u64);
}

pub(crate) fn record_series_lost() {
    counter!("phalanx_tasks_series_lost_total").increment(1);
}

pub(crate) fn record_call_failure() {
    counter!("phalanx_tasks_call_failures_total").increment(1);
}
