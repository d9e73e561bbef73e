//! One attempt, on the runtime of tasks.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use phalanx_core::engine::attempts::StartedAttempt;
use phalanx_core::error::panicked;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::decide::{CancelCause, Ending};

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
    cancelled: CancellationToken,
    is_blocking: bool,
    reports: mpsc::Sender<AttemptReport>,
) {
    let running = async move {
        let ending = run(attempt, cancelled).await;
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
async fn run(StartedAttempt { run, deadline }: StartedAttempt, cancelled: CancellationToken) -> Ending {
    let ending = async move {
        tokio::select! {
            biased;
            outcome = run => match outcome {
                Ok(_) => Ending::Success,
                Err(error) => Ending::Failure(error),
            },
            // The loop knows the cause.
            () = cancelled.cancelled() => Ending::Cancelled(CancelCause::Stopping),
            () = until(deadline) => Ending::TimedOut,
        }
    };
    AssertUnwindSafe(ending).catch_unwind().await.unwrap_or_else(|panic| Ending::Failure(panicked(&*panic)))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
