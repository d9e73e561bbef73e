//! The life of a process that runs an application: signals, the pid file, beginning anew in place.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use phalanx_core::dispatch::Chain;
use phalanx_core::{Shutdown, StartError, Stopped};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinError;
use tracing::{info, warn};

use crate::app::{App, failed};
use crate::descriptors;
use crate::logging::{self, Log};
use crate::settings::Settings;

/// Runs an application until it is asked to stop, or cannot go on.
pub(crate) fn serve(app: App, settings: Settings) -> ExitCode {
    let program = program(); // before a deploy replaces it
    let log = match logging::install(&settings) {
        Ok(log) => log,
        Err(error) => return failed(&error),
    };
    descriptors::raise(settings.config.web.max_connections);
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
            failed(&begin_anew(&program))
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

/// The signals that a node understands.
struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr2: Signal,
}

impl Signals {
    fn listen() -> Self {
        let listen = |kind| signal(kind).expect("the runtime's signal driver is on");
        Self {
            term: listen(SignalKind::terminate()),
            int: listen(SignalKind::interrupt()),
            hup: listen(SignalKind::hangup()),
            usr2: listen(SignalKind::user_defined2()),
        }
    }

    /// Waits until the process is asked to stop (TERM, INT) or to restart (USR2); HUP reopens the log.
    async fn next(&mut self, log: &Log) -> Ending {
        loop {
            tokio::select! {
                biased; // where several came, whoever wants the node gone is heard first
                _ = self.term.recv() => return Ending::Stop,
                _ = self.int.recv() => return Ending::Stop,
                _ = self.usr2.recv() => return Ending::Restart,
                _ = self.hup.recv() => log.reopen(),
            }
        }
    }

    /// What came since they were listened to last, also while no runtime was there to hear it.
    fn came_since(&mut self, log: &Log) -> Option<Ending> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async {
            tokio::select! {
                biased;
                heard = self.next(log) => Some(heard),
                () = tokio::task::yield_now() => None, // by then the runtime has looked
            }
        })
    }
}

/// The file that holds the process id from the start of the boot to the end of the process.
struct PidFile(PathBuf);

impl PidFile {
    fn write(settings: &Settings) -> Self {
        let path = settings.config.paths.pid.join(format!("{}.pid", settings.file_stem()));
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        if let Err(error) = written.and_then(|()| std::fs::write(&path, Self::content())) {
            warn!(%error, path = %path.display(), "the pid file was not written");
        }
        Self(path)
    }

    fn content() -> String {
        std::process::id().to_string()
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // By now it may be the file of another process of this name.
        if std::fs::read_to_string(&self.0).is_ok_and(|pid| pid == Self::content()) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

/// What this process was started as. A path is kept as it was given, links and all, so that it leads to what stands there
/// later; the system's own answer would name the file that is running, even where it has been replaced.
fn program() -> PathBuf {
    let running = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let given = std::env::args_os().next().map(PathBuf::from);
    let given = given.filter(|given| given.components().count() > 1 && is_file(given, &running));
    given.and_then(|given| std::path::absolute(given).ok()).unwrap_or(running)
}

/// Whether a path leads to that file: the first argument is whatever the parent wanted it to be.
fn is_file(path: &Path, file: &Path) -> bool {
    path.canonicalize().is_ok_and(|path| path == file)
}

/// Begins anew in this very process: same pid, same arguments, fresh program. Returns only if it cannot.
fn begin_anew(program: &Path) -> String {
    let error: io::Error = Command::new(program).args(std::env::args_os().skip(1)).exec();
    format!("cannot restart as {}: {error}", program.display())
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[test]
    fn a_signal_that_comes_when_no_runtime_is_left_is_heard_before_the_process_begins_anew() {
        let log = Log::default();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let mut signals = runtime.block_on(async { Signals::listen() });
        runtime.shutdown_timeout(Duration::from_secs(1));
        assert_eq!(signals.came_since(&log), None);
        kill_process(getpid(), Signal::TERM).unwrap();
        let heard = loop {
            match signals.came_since(&log) {
                Some(heard) => break heard,
                None => std::thread::yield_now(), // another thread is about to take it
            }
        };
        assert_eq!(heard, Ending::Stop);
    }
}
