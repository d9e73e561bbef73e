//! The process that runs an application: from reading signals to its exit code, or a restart in place.

mod pid_file;
mod program;
mod signals;

use std::process::ExitCode;
use std::time::Duration;

use phalanx_core::error::Chain;
use phalanx_core::{Shutdown, StartError, StopReport};
use tokio::task::JoinError;
use tracing::info;

use self::pid_file::PidFile;
use self::signals::Signals;
use crate::app::{App, failed};
use crate::logging;
use crate::rlimit;
use crate::settings::Settings;

/// Runs an application until a signal or an error stops it.
pub(crate) fn serve(app: App, settings: Settings) -> ExitCode {
    let program = program::path(); // read before a deploy replaces it
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return failed(&error),
    };
    // First of all: what follows belongs to one process of this id, its log file as well.
    let _pid_file = match PidFile::of_node(&settings) {
        Ok(held) => held,
        Err(error) => return failed(&error),
    };
    if let Err(error) = logging::install(&settings) {
        return failed(&error);
    }
    rlimit::raise(settings.config.web.max_connections);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let ended = runtime.block_on(run(app, settings, &mut signals));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(SignalRequest::Stop | SignalRequest::Cut) => stopped(),
        Ok(SignalRequest::Restart) => {
            logging::flush_at_exit();
            signals::block();
            match signals.take_pending() {
                Some(SignalRequest::Stop | SignalRequest::Cut) => stopped(),
                Some(SignalRequest::Restart) | None => failed(&program::restart(&program)),
            }
        }
        Err(reason) => failed(&reason),
    }
}

fn stopped() -> ExitCode {
    logging::flush_at_exit();
    ExitCode::SUCCESS
}

/// The request that a signal makes of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignalRequest {
    Stop,
    /// To end without the grace.
    Cut,
    Restart,
}

/// Starts the application and stops it on a signal, at any time, also while it still starts.
async fn run(app: App, settings: Settings, signals: &mut Signals) -> Result<SignalRequest, String> {
    let shutdown = Shutdown::default();
    // A task of its own, so that signals are handled even while the application's code blocks a thread.
    let mut node = tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            let running = match app.start_with(settings, shutdown.clone()).await {
                Ok(running) => running,
                Err(error) => return NodeEnd::NotStarted(error),
            };
            running.print_addresses();
            shutdown.requested().await;
            NodeEnd::Stopped(running.stop().await)
        }
    });
    let mut requested = None;
    loop {
        let request = tokio::select! {
            biased; // a signal that arrived before the node ended decides between exit and restart
            request = signals.next() => request,
            ended = &mut node => return exit_reason(requested, ended),
        };
        info!(signal = ?request, "requested by a signal"); // tests/it/process.rs counts these lines
        requested = match (requested, request) {
            (_, SignalRequest::Cut) => {
                return Err("interrupted a second time: running calls are cut off".to_owned());
            }
            // A stop wins over a restart, in either order.
            (Some(SignalRequest::Stop), _) => requested,
            (_, request) => Some(request),
        };
        shutdown.request();
    }
}

/// How the node of this process ended.
enum NodeEnd {
    Stopped(StopReport),
    NotStarted(StartError),
}

/// Whether the process exits or restarts once its node has ended, or the error to exit with.
fn exit_reason(requested: Option<SignalRequest>, ended: Result<NodeEnd, JoinError>) -> Result<SignalRequest, String> {
    let requested = requested.unwrap_or(SignalRequest::Stop);
    match ended.map_err(|panicked| panicked.to_string())? {
        NodeEnd::Stopped(StopReport { abandoned: 0, .. }) | NodeEnd::NotStarted(StartError::Stopped) => Ok(requested),
        NodeEnd::Stopped(_) if requested == SignalRequest::Restart => Ok(requested), // the log says how many were cut off
        NodeEnd::Stopped(StopReport { abandoned, .. }) => {
            Err(format!("general.grace was over: {abandoned} calls or connections were cut off"))
        }
        NodeEnd::NotStarted(error) => Err(Chain(&error).to_string()),
    }
}
