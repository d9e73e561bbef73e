//! One attempt: where it runs, and its end.

use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::task::AtomicWaker;
use phalanx_core::answer::Outcome;
use phalanx_core::engine::attempts::StartedAttempt;
use phalanx_core::error::panicked;
use phalanx_core::task::{AttemptClock, AttemptFacts};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use crate::decide::{CancelCause, Ending};
use crate::metrics;
use crate::result;
use crate::served::ServedTask;

/// The longest first poll of a quick attempt: about as long as the hand-over to another thread and back. Code of a debug
/// build takes ten times as long.
const QUICK: Duration = Duration::from_micros(if cfg!(debug_assertions) { 200 } else { 20 });

/// The end of an attempt, on its way to the loop.
pub(crate) struct AttemptReport {
    pub(crate) token: u64,
    pub(crate) ending: Ending,
}

/// The reports that the loop has not taken yet; there are slots for all of them.
#[derive(Default)]
pub(crate) struct Reports {
    waiting: Mutex<Vec<AttemptReport>>,
    waker: AtomicWaker,
}

impl Reports {
    /// Adds one. The loop finds it when it is polled, for which [`Self::wake`] is.
    fn add(&self, report: AttemptReport) {
        self.lock().push(report);
    }

    /// Has the loop take what was added.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Completes when there are some.
    pub(crate) async fn added(&self) {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            if self.lock().is_empty() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Takes all, in exchange for an empty list.
    pub(crate) fn take(&self, taken: &mut Vec<AttemptReport>) {
        std::mem::swap(&mut *self.lock(), taken);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<AttemptReport>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt that nothing was done for yet.
pub(crate) struct NewAttempt {
    pub(crate) token: u64,
    pub(crate) task: Arc<ServedTask>,
    pub(crate) started: StartedAttempt,
    pub(crate) reports: Arc<Reports>,
}

impl NewAttempt {
    /// Runs it on the runtime of attempts.
    pub(crate) fn spawn(self, runtime: &Handle) {
        if self.task.def.blocking {
            let within = runtime.clone();
            drop(runtime.spawn_blocking(move || within.block_on(self.run())));
        } else {
            drop(runtime.spawn(self.run()));
        }
    }

    async fn run(mut self) {
        if !self.started.facts.try_take() {
            return; // it was given back
        }
        let first_poll = poll_fn(|cx| Poll::Ready(self.poll_first(cx)));
        match first_poll.await {
            Poll::Ready(ending) => {
                self.report(ending);
                self.reports.wake();
            }
            Poll::Pending => self.run_on().await,
        }
    }

    /// Polls it where it is called, which must not be within a runtime. One that is pending then runs on.
    pub(crate) fn poll_in_place(mut self, runtime: &Handle) {
        if !self.task.is_quick() {
            return self.spawn(runtime); // since it was queued, one was not
        }
        if !self.started.facts.try_take() {
            return;
        }
        match self.poll_first(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ending) => self.report(ending),
            Poll::Pending => drop(runtime.spawn(self.run_on())),
        }
    }

    /// Polls it for the first time, and notes whether it was quick. One that fails is not: a function may panic only where it is
    /// polled.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let began = Instant::now();
        let run = &mut self.started.run;
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let polled = run.as_mut().poll(cx);
            if polled.is_ready() {
                *run = Box::pin(pending()); // here, because its drop may panic too; this one takes no memory
            }
            polled
        }));
        let polled = polled.unwrap_or_else(|panic| Poll::Ready(Err(panicked(&*panic))));
        let is_quick = !self.task.def.blocking && matches!(polled, Poll::Ready(Ok(_))) && began.elapsed() <= QUICK;
        self.task.set_quick(is_quick);
        polled.map(|outcome| ending_of(outcome, &self.task, &self.started.facts))
    }

    fn report(&self, ending: Ending) {
        self.reports.add(AttemptReport { token: self.token, ending });
    }

    /// Runs one that was pending until its end, its deadline, or its cancellation. One that is late or cancelled is dropped
    /// inside, and its drop may panic too.
    async fn run_on(self) {
        let Self { token, task, started: StartedAttempt { run, facts }, reports } = self;
        let running = async {
            tokio::select! {
                biased;
                outcome = run => ending_of(outcome, &task, &facts),
                // The loop knows the cause.
                () = facts.cancelled.cancelled() => Ending::Cancelled(CancelCause::Stopping),
                () = late(&facts.clock) => Ending::TimedOut,
            }
        };
        let ending = AssertUnwindSafe(running).catch_unwind().await;
        let ending = ending.unwrap_or_else(|panic| Ending::Failure(panicked(&*panic)));
        reports.add(AttemptReport { token, ending });
        reports.wake();
    }
}

fn ending_of(outcome: Outcome, task: &ServedTask, facts: &AttemptFacts) -> Ending {
    match outcome {
        Ok(answer) if task.def.tracked => {
            let result = result::of(&answer, &facts.id);
            if let Err(missing) = result {
                metrics::record_result_missing(task.def.name, missing);
            }
            Ending::Success(Some(result))
        }
        Ok(_) => Ending::Success(None),
        Err(error) => Ending::Failure(error),
    }
}

/// Completes when the attempt's time is up, which a heartbeat may have moved meanwhile.
async fn late(clock: &AttemptClock) {
    while let Some(deadline) = clock.deadline() {
        if deadline <= Instant::now() {
            return;
        }
        sleep_until(deadline).await;
    }
    pending().await
}
