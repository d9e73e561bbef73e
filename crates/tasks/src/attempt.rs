//! One attempt, on the runtime of tasks.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use phalanx_core::engine::attempts::StartedAttempt;
use phalanx_core::error::panicked;
use phalanx_core::task::AttemptClock;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::decide::{CancelCause, Ending};
use crate::result;

/// The end of an attempt, on its way to the loop.
pub(crate) struct AttemptReport {
    pub(crate) token: u64,
    pub(crate) ending: Ending,
}

/// Starts an attempt. Its report has a place in the channel: the channel is as long as there are slots.
pub(crate) fn spawn(
    runtime: &Handle,
    token: u64,
    attempt: StartedAttempt,
    (is_blocking, is_tracked): (bool, bool),
    reports: mpsc::Sender<AttemptReport>,
) {
    let running = async move {
        if !attempt.facts.try_take() {
            return; // it was given back
        }
        let ending = run(attempt, is_tracked).await;
        // The loop has ended if it is not received: the node stops.
        let _ = reports.send(AttemptReport { token, ending }).await;
    };
    if is_blocking {
        let within = runtime.clone();
        drop(runtime.spawn_blocking(move || within.block_on(running)));
    } else {
        drop(runtime.spawn(running));
    }
}

/// Runs an attempt until its end, its deadline, or its cancellation. A late or cancelled one is dropped inside, and its drop
/// may panic too.
async fn run(StartedAttempt { run, facts }: StartedAttempt, is_tracked: bool) -> Ending {
    let ending = async move {
        tokio::select! {
            biased;
            outcome = run => match outcome {
                Ok(answer) => Ending::Success(is_tracked.then(|| result::of(&answer, &facts.id)).flatten()),
                Err(error) => Ending::Failure(error),
            },
            // The loop knows the cause.
            () = facts.cancelled.cancelled() => Ending::Cancelled(CancelCause::Stopping),
            () = late(&facts.clock) => Ending::TimedOut,
        }
    };
    AssertUnwindSafe(ending).catch_unwind().await.unwrap_or_else(|panic| Ending::Failure(panicked(&*panic)))
}

/// Completes when the attempt's time is up, which a heartbeat may have moved meanwhile.
async fn late(clock: &AttemptClock) {
    while let Some(deadline) = clock.deadline() {
        if deadline <= Instant::now() {
            return;
        }
        sleep_until(deadline).await;
    }
    std::future::pending().await
}
