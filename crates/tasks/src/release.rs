//! The release of a claim that a job has until an attempt begins.

use std::sync::Arc;
use std::time::Duration;

use phalanx_core::ActionError;
use phalanx_core::backend::TaskStore;
use phalanx_core::engine::attempts::StartedAttempt;
use phalanx_core::task::TaskControl;
use tracing::warn;

/// When an attempt begins again whose claim could not be released.
const PAUSE: Duration = Duration::from_secs(1);

/// Has an attempt release its claim first. Its function must not begin before: an enqueue that comes while it runs would be
/// answered with a job that has read what the enqueuer has changed since. Without an answer it begins later, uncounted.
pub(crate) fn before(
    attempt: StartedAttempt,
    store: Arc<dyn TaskStore>,
    (key, id): (Arc<str>, Arc<str>),
) -> StartedAttempt {
    let StartedAttempt { run, facts } = attempt;
    let run = Box::pin(async move {
        match store.release(&key, &id).await {
            Ok(_) => run.await,
            Err(error) => {
                warn!(%error, job = %id, "the unique key of a job was not released: it begins later");
                Err(ActionError::from(error).with_source(TaskControl::Snooze(PAUSE)))
            }
        }
    });
    StartedAttempt { run, facts }
}
