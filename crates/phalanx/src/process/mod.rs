//! The life of a process that runs an application: signals, the pid file, beginning anew in place.

mod pid_file;
mod program;
mod signals;

use std::process::ExitCode;
use std::time::Duration;

use phalanx_core::dispatch::Chain;
use phalanx_core::{Shutdown, StartError, Stopped};
use tokio::task::JoinError;
use tracing::info;

use self::pid_file::PidFile;
use self::signals::Signals;
use crate::app::{App, failed};
use crate::logging::{self, Log};
use crate::rlimit;
use crate::settings::Settings;

/// Runs an application until it is asked to stop, or cannot go on.
pub(crate) fn serve(app: App, settings: Settings) -> ExitCode {
    let program = program::started_as(); // before a deploy replaces it
    let log = match logging::install(&settings) {
        Ok(log) => log,
        Err(error) => return failed(&error),
    };
    rlimit::raise(settings.config.web.max_connections);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let mut signals = runtime.block_on(async { Signals::listen() });
    let ending = runtime.block_on(live(app, settings, &log, &mut signals));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ending {
        Ok(Ending::Stop) => ExitCode::SUCCESS,
        Ok(Ending::Restart) if signals.came_since(&log) == Some(Ending::Stop) => ExitCode::SUCCESS,
        Ok(Ending::Restart) => {
            drop(log);
            failed(&program::begin_anew(&program))
        }
        Err(reason) => failed(&reason),
    }
}

/// How a process ends that was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Stop,
    Restart,
}

/// Starts the application, and stops it when a signal says so: at any time, also while it starts.
async fn live(app: App, settings: Settings, log: &Log, signals: &mut Signals) -> Result<Ending, String> {
    let _pid_file = PidFile::write(&settings);
    let shutdown = Shutdown::default();
    // In a task of its own, so that signals are heard while the application's code holds a thread up.
    let mut life = tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            let running = app.start_with(settings, shutdown.clone()).await?;
            running.announce();
            shutdown.asked().await;
            Ok(running.stop().await)
        }
    });
    let mut asked = None;
    loop {
        let heard = tokio::select! {
            biased; // a signal that came before the end of a life decides how it ends
            heard = signals.next(log) => heard,
            ended = &mut life => return ending(asked, ended),
        };
        info!(signal = ?heard, "asked by a signal");
        asked = match (asked, heard) {
            (Some(Ending::Stop), Ending::Stop) => {
                return Err("asked to stop a second time: what still runs is broken off".to_owned());
            }
            // Whoever wants the node gone wins over whoever wants it back.
            (Some(Ending::Stop), Ending::Restart) => asked,
            (None | Some(Ending::Restart), heard) => Some(heard),
        };
        shutdown.ask();
    }
}

fn ending(asked: Option<Ending>, ended: Result<Result<Stopped, StartError>, JoinError>) -> Result<Ending, String> {
    let asked = asked.unwrap_or(Ending::Stop);
    match ended.map_err(|panicked| panicked.to_string())? {
        Ok(Stopped { abandoned: 0 }) | Err(StartError::Stopped) => Ok(asked),
        Ok(Stopped { .. }) if asked == Ending::Restart => Ok(asked), // the log says what was broken off
        Ok(Stopped { abandoned }) => {
            Err(format!("general.grace was over: {abandoned} calls or connections broken off"))
        }
        Err(error) => Err(Chain(&error).to_string()),
    }
}
