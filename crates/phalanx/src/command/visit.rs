//! Commands that visit the cluster as a guest.

use std::process::ExitCode;
use std::time::Duration;

use phalanx_core::config::Log;
use phalanx_core::error::Chain;
use phalanx_core::{Guest, Node, StartError};
use tokio::runtime::Runtime;
use tokio::time::{Instant, timeout, timeout_at};

use super::output::Printed;
use crate::app::{App, failed};
use crate::logging;
use crate::settings::{Settings, without_password};

/// How long a command waits for the cluster.
const LIMIT: Duration = Duration::from_secs(5);

/// The part of [`LIMIT`] that is left when the replies of nodes are not awaited any more: those that came are printed.
const AFTER_REPLIES: Duration = Duration::from_secs(1);

/// The time to leave, in which one command is sent to Redis.
const LEAVING: Duration = Duration::from_secs(1);

/// The time that a command may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VisitLimit {
    /// [`LIMIT`] with the way into the cluster.
    Whole,
    /// [`LIMIT`] for the way into the cluster; then what its steps take.
    Entrance,
}

/// Prepares a command that runs code of the application: its log, and a runtime.
pub(super) fn prepare(mut settings: Settings) -> Result<(Runtime, Settings), String> {
    let log = &mut settings.config.log;
    let is_default = *log == Log::default();
    log.file = false; // a file belongs to a node
    if is_default && std::env::var_os("RUST_LOG").is_none() {
        log.level = "warn".to_owned(); // the output says that the command went well
    }
    logging::install(&settings)?;
    Ok((Runtime::new().map_err(|error| error.to_string())?, settings))
}

/// Enters the cluster, if there is one.
///
/// # Errors
///
/// The reason, with the address of the Redis that does not answer.
pub(super) async fn enter(app: App, settings: Settings) -> Result<Guest, String> {
    let redis = settings.redis_url.as_deref().map(without_password);
    app.visit(settings).await.map_err(|error| match (&error, redis) {
        (StartError::Backend(_), Some(redis)) => format!("{} ({redis})", Chain(&error)),
        _ => Chain(&error).to_string(),
    })
}

/// Enters the cluster, runs `work` and prints its result. Exit codes: 0, or 1 with the reason on stderr.
pub(super) fn run(
    app: App,
    settings: Settings,
    as_json: bool,
    limit: VisitLimit,
    work: impl AsyncFnOnce(&Node, ReplyLimit) -> Result<Printed, String>,
) -> ExitCode {
    let Some(url) = &settings.redis_url else {
        return failed(&"the embedded backend is in the memory of its node, and only that reaches it: set REDIS_URL");
    };
    let redis = without_password(url);
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let printed = runtime.block_on(async {
        let deadline = Instant::now() + LIMIT;
        let late = |_| format!("{redis} did not answer within {LIMIT:?}");
        let guest = timeout_at(deadline, enter(app, settings)).await.map_err(late).flatten()?;
        let working = work(guest.node(), ReplyLimit(deadline - AFTER_REPLIES));
        let result = match limit {
            VisitLimit::Whole => timeout_at(deadline, working).await.map_err(late).flatten(),
            VisitLimit::Entrance => working.await,
        };
        let _ = timeout(LEAVING, guest.leave()).await;
        result
    });
    runtime.shutdown_background(); // an initializer may have left tasks running
    match printed {
        Ok(printed) => printed.print(as_json),
        Err(reason) => failed(&reason),
    }
}

/// The end of the wait for the replies of nodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyLimit(Instant);

impl ReplyLimit {
    pub(super) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// The problem of a result that lacks replies.
pub(super) fn missing(nodes: &[String]) -> Option<String> {
    (!nodes.is_empty()).then(|| format!("no reply in time: {}", nodes.join(", ")))
}
