//! How the end of an attempt is settled.

use std::time::Duration;

use phalanx_core::backend::{AttemptEnd, JobCounters};
use phalanx_core::error::Chain;
use phalanx_core::job::{AttemptOutcome, FailedRecord};
use phalanx_core::task::{RetryPolicy, TaskControl};
use phalanx_core::{ActionError, ErrorKind};

use crate::result::TaskResult;

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The function returned a value, which is kept if its task is tracked.
    Success(Option<TaskResult>),
    /// It returned an error, or panicked.
    Failure(ActionError),
    /// Its deadline passed.
    TimedOut,
    /// It was cancelled.
    Cancelled(CancelCause),
}

/// Why an attempt is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CancelCause {
    /// Its job was deleted.
    Deleted,
    /// The node cannot count on its lease, and the task is exclusive.
    LeaseLost,
    /// The node stops.
    Stopping,
    /// The node was taken for dead: the job runs elsewhere.
    Reaped,
}

/// The decision about a job.
#[derive(Debug, PartialEq)]
pub(crate) enum JobFate {
    Done,
    /// It is over, for this reason.
    Dropped(AttemptOutcome),
    /// It runs again after this time.
    Retry(Duration),
    /// It runs after this time instead.
    Snooze(Duration),
    GiveBack,
    /// It failed for good.
    Failed(FailureReason),
    /// Its input may be decodable elsewhere.
    Undecodable(FailureReason),
    /// Another node has the job.
    Nothing,
}

/// The reason of a failure, as it is kept with the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FailureReason {
    /// The code of the error.
    pub(crate) exception: String,
    /// The error with its causes, and its details.
    pub(crate) error: String,
}

impl FailureReason {
    pub(crate) fn new(exception: &str, error: impl Into<String>) -> Self {
        Self { exception: exception.to_owned(), error: error.into() }
    }

    fn of(error: &ActionError) -> Self {
        let mut text = Chain(error).to_string();
        for detail in error.details() {
            text.push_str(&format!("; {}: {}", detail.path, detail.message));
        }
        Self::new(error.code(), text)
    }

    /// The entry among the failed jobs.
    pub(crate) fn end(
        &self,
        worker: &str,
        queue: &str,
        text: &[u8],
        counters: JobCounters,
        failed_at_ms: u64,
    ) -> AttemptEnd {
        let (exception, error) = (&self.exception, &self.error);
        let record = FailedRecord { worker, queue, text, exception, error, failed_at_ms, counters };
        AttemptEnd::Failed { record: record.write() }
    }
}

/// Decides, where `random` returns a number from 0 to 1.
pub(crate) fn decide(ending: &Ending, policy: &RetryPolicy, attempts: u32, random: impl Fn() -> f32) -> JobFate {
    let pause = || policy.pause(attempts, random());
    let retry = |kind, pause, reason: FailureReason| {
        if policy.repeats(attempts, kind) { JobFate::Retry(pause) } else { JobFate::Failed(reason) }
    };
    match ending {
        Ending::Success(_) => JobFate::Done,
        Ending::TimedOut => {
            retry(ErrorKind::Timeout, pause(), FailureReason::new("timeout", "the deadline of the task passed"))
        }
        Ending::Cancelled(CancelCause::Deleted) => JobFate::Dropped(AttemptOutcome::Deleted),
        Ending::Cancelled(CancelCause::LeaseLost | CancelCause::Stopping) => JobFate::GiveBack,
        Ending::Cancelled(CancelCause::Reaped) => JobFate::Nothing,
        Ending::Failure(error) => match TaskControl::of(error) {
            Some(TaskControl::RetryIn(pause)) => retry(error.kind(), *pause, FailureReason::of(error)),
            Some(TaskControl::Snooze(pause)) => JobFate::Snooze(*pause),
            Some(TaskControl::Cancel(reason)) => JobFate::Failed(FailureReason::new("cancelled", reason.clone())),
            Some(TaskControl::Discard) => JobFate::Dropped(AttemptOutcome::Discarded),
            Some(TaskControl::Undecodable) => JobFate::Undecodable(FailureReason::of(error)),
            Some(_) | None => {
                let pause = error.retry_after().map_or_else(pause, |after| after.max(pause()));
                retry(error.kind(), pause, FailureReason::of(error))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 3,
        backoff: Duration::from_secs(1),
        max_backoff: Duration::from_secs(60),
        jitter: 0.0,
        not_retried: &[ErrorKind::NotFound],
    };

    fn check(ending: &Ending, attempts: u32, expected: &JobFate) {
        assert_eq!(decide(ending, &POLICY, attempts, || 0.5), *expected, "{ending:?} {attempts}");
    }

    #[test]
    fn each_end_of_an_attempt_decides_about_its_job() {
        let failed = |exception: &str, error: &str| JobFate::Failed(FailureReason::new(exception, error));
        let seconds = Duration::from_secs;
        let internal = || Ending::Failure(ActionError::internal("disk full"));
        check(&Ending::Success(None), 1, &JobFate::Done);
        check(&internal(), 1, &JobFate::Retry(seconds(1)));
        check(&internal(), 2, &JobFate::Retry(seconds(2)));
        check(&internal(), 3, &failed("internal", "internal error: disk full"));
        check(&Ending::Failure(ActionError::not_found("no user")), 1, &failed("not_found", "no user"));
        let later = ActionError::conflict("busy").with_retry_after(seconds(9));
        check(&Ending::Failure(later), 1, &JobFate::Retry(seconds(9)));
        let sooner = ActionError::conflict("busy").with_retry_after(Duration::from_millis(1));
        check(&Ending::Failure(sooner), 2, &JobFate::Retry(seconds(2)));
        check(&Ending::TimedOut, 1, &JobFate::Retry(seconds(1)));
        check(&Ending::TimedOut, 3, &failed("timeout", "the deadline of the task passed"));
        check(&Ending::Cancelled(CancelCause::Deleted), 1, &JobFate::Dropped(AttemptOutcome::Deleted));
        check(&Ending::Cancelled(CancelCause::LeaseLost), 3, &JobFate::GiveBack);
        check(&Ending::Cancelled(CancelCause::Stopping), 3, &JobFate::GiveBack);
        check(&Ending::Cancelled(CancelCause::Reaped), 1, &JobFate::Nothing);
    }

    #[test]
    fn a_task_decides_about_its_job_itself() {
        let carrying =
            |control: TaskControl| Ending::Failure(ActionError::conflict("a task decides").with_source(control));
        let seconds = Duration::from_secs;
        check(&carrying(TaskControl::RetryIn(seconds(7))), 2, &JobFate::Retry(seconds(7)));
        let exhausted = decide(&carrying(TaskControl::RetryIn(seconds(7))), &POLICY, 3, || 0.0);
        assert!(matches!(exhausted, JobFate::Failed(_)), "it counts as an attempt: {exhausted:?}");
        check(&carrying(TaskControl::Snooze(seconds(7))), 3, &JobFate::Snooze(seconds(7)));
        let cancelled = JobFate::Failed(FailureReason::new("cancelled", "unsubscribed"));
        check(&carrying(TaskControl::Cancel("unsubscribed".to_owned())), 1, &cancelled);
        check(&carrying(TaskControl::Discard), 1, &JobFate::Dropped(AttemptOutcome::Discarded));
        let undecodable = decide(&carrying(TaskControl::Undecodable), &POLICY, 1, || 0.0);
        assert!(matches!(undecodable, JobFate::Undecodable(_)), "{undecodable:?}");
    }
}
