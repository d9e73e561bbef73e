//! The process that runs an application: from reading signals to its exit code, or a restart in place.

pub(crate) mod in_place;
pub(crate) mod parent;
mod pid_file;
mod program;
mod signals;
mod sockets;

use std::process::ExitCode;
use std::time::Duration;

use phalanx_core::error::Chain;
use phalanx_core::{Shutdown, StartError, StopReport, StopRequest, Successor};
use phalanx_supervisor::link::LinkError;
use tokio::sync::oneshot;
use tokio::task::JoinError;
use tracing::{info, warn};

pub(crate) use self::in_place::Inheritance;
use self::pid_file::PidFile;
use self::signals::Signals;
pub(crate) use self::sockets::Sockets;
use crate::app::{App, failed};
use crate::logging;
use crate::rlimit;
use crate::settings::Settings;

/// The process that starts a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Launcher {
    /// A person, or a service manager.
    Operator,
    /// This process itself, which executed another program before.
    Predecessor,
}

/// The descriptors that the launcher has handed to this process.
#[derive(Debug)]
pub(crate) enum Launch {
    Plain,
    InPlace(Result<Inheritance, LinkError>),
}

impl Launch {
    /// Takes it. To be called first: no child is to inherit it.
    ///
    /// # Errors
    ///
    /// The exit code if there is nothing to take, which has been reported.
    pub(crate) fn take(launcher: Launcher) -> Result<Self, ExitCode> {
        match launcher {
            Launcher::Operator => Ok(Self::Plain),
            Launcher::Predecessor => match Inheritance::take().transpose() {
                Some(taken) => Ok(Self::InPlace(taken)),
                None => Err(misused(in_place::OPTION, "a node that restarts in place")),
            },
        }
    }
}

/// Reports a hidden option on a command line of a person.
fn misused(option: &str, user: &str) -> ExitCode {
    failed(&format!("--{option} is for {user} alone: start a node without it"));
    ExitCode::from(2)
}

/// Runs an application until a signal or an error stops it.
pub(crate) fn serve(app: App, settings: Settings, launch: Launch) -> ExitCode {
    let program = program::path(); // read before a deploy replaces it
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return failed(&error),
    };
    match run_node(app, settings, launch, &mut signals) {
        Ok(ProcessEnd::Exit) => stopped(),
        Ok(ProcessEnd::Restart(inheritance)) => {
            logging::flush_at_exit();
            signals::block();
            match signals.take_pending() {
                Some(SignalRequest::Stop | SignalRequest::Cut) => stopped(),
                Some(SignalRequest::Restart) | None => failed(&in_place::execute(&program, &inheritance)),
            }
        }
        Err(reason) => failed(&reason),
    }
}

/// How the process goes on once its node has ended.
enum ProcessEnd {
    Exit,
    /// It executes its program anew.
    Restart(Inheritance),
}

fn run_node(app: App, settings: Settings, launch: Launch, signals: &mut Signals) -> Result<ProcessEnd, String> {
    let (Inheritance { mut sockets, pid_file }, lost) = match launch {
        Launch::Plain => (Inheritance::default(), None),
        Launch::InPlace(Ok(inheritance)) => (inheritance, None),
        Launch::InPlace(Err(error)) => (Inheritance::default(), Some(error)),
    };
    // First of all: what follows belongs to one process of this id, its log file as well.
    let pid_file = PidFile::of_node(&settings, pid_file)?;
    logging::install(&settings)?;
    if let Some(error) = lost {
        warn!(%error, "the listening sockets of the last program are lost: clients were refused for a moment");
    }
    rlimit::raise(settings.config.web.max_connections);
    sockets.fit(&settings.config);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;
    let ended = runtime.block_on(run(app, settings, sockets, signals));
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(match ended? {
        Some(sockets) => ProcessEnd::Restart(Inheritance { sockets, pid_file }),
        None => ProcessEnd::Exit,
    })
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

/// Starts the application and stops it on a signal, at any time, also while it still starts. Returns the sockets for the
/// next program if the process is to restart.
async fn run(app: App, settings: Settings, sockets: Sockets, signals: &mut Signals) -> Result<Option<Sockets>, String> {
    let is_alone = settings.redis_url.is_none();
    let shutdown = Shutdown::default();
    // A restart that is requested before the node is ready hands these on: clients may wait already.
    let mut given = sockets.try_clone().map_err(|error| error.to_string())?;
    let (ready, mut is_ready) = oneshot::channel();
    // A task of its own, so that signals are handled even while the application's code blocks a thread.
    let mut node = tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            let running = match app.start_with(settings, sockets, shutdown.clone()).await {
                Ok(running) => running,
                Err(error) => return NodeEnd::NotStarted(error),
            };
            let _ = ready.send(()); // the process is there for as long as this task
            running.print_addresses();
            shutdown.requested().await;
            let (report, kept) = running.stop_and_keep().await;
            NodeEnd::Stopped(report, kept)
        }
    });
    let (mut requested, mut is_booting) = (None, true);
    loop {
        let request = tokio::select! {
            biased; // a signal that arrived before the node ended decides between exit and restart
            request = signals.next() => request,
            ready = &mut is_ready, if is_booting => {
                is_booting = false;
                if ready.is_ok() {
                    given = Sockets::default();
                }
                continue;
            }
            ended = &mut node => return exit_reason(requested, ended).map(|kept| kept.map(|kept| kept.or(given))),
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
        let successor = match requested {
            Some(SignalRequest::Restart) => Successor::NextProgram,
            _ => {
                given = Sockets::default();
                Successor::None
            }
        };
        if is_alone && successor == Successor::NextProgram {
            warn!("there is no Redis: queued jobs, the cache, locks and rooms are lost with the restart");
        }
        shutdown.request(StopRequest { successor, grace: None });
    }
}

/// How the node of this process ended.
enum NodeEnd {
    Stopped(StopReport, Sockets),
    NotStarted(StartError),
}

/// The sockets for the next program if the process restarts once its node has ended; or the error to exit with.
fn exit_reason(requested: Option<SignalRequest>, ended: Result<NodeEnd, JoinError>) -> Result<Option<Sockets>, String> {
    let restarts = requested == Some(SignalRequest::Restart);
    match ended.map_err(|panicked| panicked.to_string())? {
        NodeEnd::NotStarted(StartError::Stopped) => Ok(restarts.then(Sockets::default)),
        NodeEnd::Stopped(_, kept) if restarts => Ok(Some(kept)), // the log says how many were cut off
        NodeEnd::Stopped(StopReport { abandoned: 0, .. }, _) => Ok(None),
        NodeEnd::Stopped(StopReport { abandoned, .. }, _) => {
            Err(format!("general.grace was over: {abandoned} calls or connections were cut off"))
        }
        NodeEnd::NotStarted(error) => Err(Chain(&error).to_string()),
    }
}
