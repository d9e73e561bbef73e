//! The process that runs an application: from reading signals to its exit code, or a restart in place.

mod activation;
pub(crate) mod in_place;
pub(crate) mod parent;
mod pid_file;
mod signals;
mod sockets;
pub(crate) mod worker;

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use phalanx_core::error::Chain;
use phalanx_core::{Shutdown, StartError, StopReport, StopRequest, Successor};
use phalanx_supervisor::link::LinkError;
use phalanx_supervisor::{ProgramName, ServiceManager};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinError;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

pub(crate) use self::in_place::Inheritance;
use self::pid_file::PidFile;
use self::signals::Signals;
pub(crate) use self::sockets::Sockets;
use self::worker::{Parent, Worker};
use crate::app::{App, failed};
use crate::logging;
use crate::rlimit;
use crate::settings::Settings;

/// The time for a worker that was not ready yet to end.
const BOOT_STOP: Duration = Duration::from_secs(2);

/// The process that starts a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Launcher {
    /// A person, or a service manager.
    Operator,
    /// This process itself, which executed another program before.
    Predecessor,
    /// The parent process of `start cluster`.
    Parent,
}

/// The descriptors that the launcher has handed to this process.
#[derive(Debug)]
pub(crate) enum Launch {
    /// With the sockets of the service manager, if it has bound any.
    Plain(Sockets),
    InPlace(Result<Inheritance, LinkError>),
    Worker(Worker),
}

impl Launch {
    /// Takes it. To be called first: no child is to inherit it.
    ///
    /// # Errors
    ///
    /// The exit code if there is nothing to take, which has been reported.
    pub(crate) fn take(launcher: Launcher) -> Result<Self, ExitCode> {
        match launcher {
            Launcher::Operator => activation::take().map(Self::Plain).map_err(|error| failed(&error)),
            Launcher::Predecessor => match Inheritance::take().transpose() {
                Some(taken) => Ok(Self::InPlace(taken)),
                None => Err(misused(in_place::OPTION, "a node that restarts in place")),
            },
            Launcher::Parent => match Worker::take() {
                Ok(Some(worker)) => Ok(Self::Worker(worker)),
                Ok(None) => Err(misused(worker::OPTION, "the workers of `start cluster`")),
                Err(error) => Err(failed(&error)),
            },
        }
    }

    /// The id of the node, if the launcher has given one.
    pub(crate) fn node_id(&self) -> Option<&str> {
        match self {
            Self::Plain(_) | Self::InPlace(_) => None,
            Self::Worker(worker) => Some(worker.id()),
        }
    }

    /// Reports the reason why the process ends, also to its parent.
    pub(crate) fn failed(&self, reason: &str) -> ExitCode {
        if let Self::Worker(worker) = self {
            Worker::report_failure(&worker.link(), reason);
        }
        failed(&reason)
    }
}

/// Reports a hidden option on a command line of a person.
fn misused(option: &str, user: &str) -> ExitCode {
    failed(&format!("--{option} is for {user} alone: start a node without it"));
    ExitCode::from(2)
}

/// Runs an application until a signal or an error stops it.
pub(crate) fn serve(app: App, settings: Settings, launch: Launch) -> ExitCode {
    let program = ProgramName::of_process(); // read before a deploy replaces it
    let parent = match &launch {
        Launch::Plain(_) | Launch::InPlace(_) => None,
        Launch::Worker(worker) => Some(worker.link()),
    };
    let mut signals = match Signals::listen(parent.is_some()) {
        Ok(signals) => signals,
        Err(error) => return launch.failed(&error.to_string()),
    };
    match run_node(app, settings, launch, &mut signals) {
        Ok(ProcessEnd::Exit) => stopped(),
        Ok(ProcessEnd::Restart(inheritance)) => {
            logging::flush_at_exit();
            signals::block();
            match signals.take_pending() {
                Some(ProcessRequest::Restart) | None => failed(&in_place::execute(program, &inheritance)),
                Some(_) => stopped(),
            }
        }
        Err(Failure { reason, cut_work }) => {
            if let Some(parent) = parent {
                Worker::report_failure(&parent, &reason);
                if let Some(work) = &cut_work {
                    Worker::report_cut(&parent, work);
                }
            }
            failed(&match cut_work {
                Some(work) => format!("{reason}: {work}"),
                None => reason,
            })
        }
    }
}

/// The time for a node to end once its grace is over. Service managers are to wait a second longer.
const AFTER_GRACE: Duration = Duration::from_secs(9);

/// The delay of a timer that shows that the process did not run.
const LATE: Duration = Duration::from_secs(2);

/// The error with which the process ends.
struct Failure {
    reason: String,
    /// The names of the work that it has cut off.
    cut_work: Option<String>,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self { reason, cut_work: None }
    }
}

/// How the process goes on once its node has ended.
enum ProcessEnd {
    Exit,
    /// It executes its program anew.
    Restart(Inheritance),
}

fn run_node(app: App, mut settings: Settings, launch: Launch, signals: &mut Signals) -> Result<ProcessEnd, Failure> {
    let descriptors = rlimit::prepare(rlimit::needed(&settings.config));
    let mut requests = Requests { signals, parent: None, may_be_kept: false };
    let mut lost = None;
    let Inheritance { sockets, pid_file, is_activated } = match launch {
        Launch::Plain(sockets) => {
            let is_activated = sockets.web.is_some() || sockets.admin.is_some();
            Inheritance { sockets, pid_file: None, is_activated }
        }
        Launch::InPlace(Ok(mut inheritance)) => {
            if !inheritance.is_activated {
                inheritance.sockets.fit(&settings.config);
            }
            inheritance
        }
        Launch::InPlace(Err(error)) => {
            lost = Some(error);
            Inheritance::default()
        }
        Launch::Worker(mut worker) => {
            requests.parent = Some(worker.watch().map_err(|error| error.to_string())?);
            Inheritance { sockets: worker.prepare(&mut settings)?, ..Inheritance::default() }
        }
    };
    requests.may_be_kept = is_activated || requests.parent.is_some();
    // First of all: what follows belongs to one process of this id, its log file as well.
    let pid_file = PidFile::of_node(&settings, pid_file)?;
    logging::install(&settings)?;
    if let Some(error) = lost {
        warn!(%error, "the listening sockets of the last program are lost: clients were refused for a moment");
    }
    if requests.parent.is_some() {
        worker::raise_oom_score();
        Worker::warn_of_other_address(&sockets, &settings);
    }
    descriptors.log(settings.config.web.max_connections);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if settings.config.general.threads > 0 {
        builder.worker_threads(settings.config.general.threads);
    }
    let runtime = builder.enable_all().build().map_err(|error| error.to_string())?;
    // Of this thread alone: requests are handled whatever the application's code does with the threads of the node.
    let own_runtime = signals::signal_runtime().map_err(|error| error.to_string())?;
    let shutdown = Shutdown::default();
    let node = (runtime.handle(), &shutdown);
    let ended = own_runtime.block_on(run(app, settings, sockets, node, &mut requests));
    runtime.shutdown_timeout(Duration::from_secs(1)); // drops what runs, which is noted by name
    let ended = ended.map_err(|reason| Failure { reason, cut_work: shutdown.cut_work() })?;
    Ok(match ended {
        Some(sockets) => ProcessEnd::Restart(Inheritance { sockets, pid_file, is_activated }),
        None => ProcessEnd::Exit,
    })
}

fn stopped() -> ExitCode {
    logging::flush_at_exit();
    ExitCode::SUCCESS
}

/// A request to the process, by a signal or by its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProcessRequest {
    Stop,
    /// To stop while other workers go on.
    StopBesideOthers,
    /// To stop while all other workers do.
    StopWithAll,
    /// To stop because the parent is gone.
    StopOrphaned,
    /// To end without the grace.
    Cut,
    Restart,
}

impl ProcessRequest {
    /// How the node is to stop for it, by whether other processes may go on with its listening sockets.
    fn stop_request(self, may_be_kept: bool) -> StopRequest {
        let alone = if may_be_kept { Successor::Unknown } else { Successor::None };
        match self {
            Self::Stop | Self::StopWithAll | Self::Cut => StopRequest { successor: alone, grace: None },
            Self::StopBesideOthers => StopRequest { successor: Successor::Neighbours, grace: None },
            Self::StopOrphaned => StopRequest { successor: alone, grace: Some(worker::ORPHAN_GRACE) },
            Self::Restart => StopRequest { successor: Successor::NextProgram, grace: None },
        }
    }
}

/// The sources of requests.
struct Requests<'a> {
    signals: &'a mut Signals,
    parent: Option<Parent>,
    /// Whether other processes may go on with the listening sockets: the other workers, or the service manager.
    may_be_kept: bool,
}

/// The time for the parent's word after a signal to a worker.
const PARENT_WORD: Duration = Duration::from_millis(50);

impl Requests<'_> {
    /// Returns what the parent says about a stop for which a signal came: a terminal sends INT to all processes of a group,
    /// and the parent knows that all of them stop.
    async fn with_word_of_parent(&mut self, request: ProcessRequest) -> ProcessRequest {
        let (ProcessRequest::Stop, Some(parent)) = (request, &mut self.parent) else { return request };
        timeout(PARENT_WORD, parent.requests.recv()).await.ok().flatten().unwrap_or(request)
    }

    async fn next(&mut self) -> ProcessRequest {
        let of_parent = async {
            match &mut self.parent {
                Some(parent) => parent.requests.recv().await,
                None => None,
            }
        };
        tokio::select! {
            biased;
            request = self.signals.next() => {
                info!(signal = ?request, "requested by a signal"); // tests/it/process.rs counts these lines
                request
            }
            Some(request) = of_parent => {
                info!(?request, "requested by the parent process, or by its end");
                request
            }
        }
    }
}

/// Starts the application and stops it on a signal, at any time, also while it still starts. Returns the sockets for the
/// next program if the process is to restart.
async fn run(
    app: App,
    settings: Settings,
    sockets: Sockets,
    (runtime, shutdown): (&Handle, &Shutdown),
    requests: &mut Requests<'_>,
) -> Result<Option<Sockets>, String> {
    let (is_alone, version) = (settings.redis_url.is_none(), app.version_text().to_owned());
    let parent = requests.parent.as_ref().map(|parent| parent.link.clone());
    let is_worker = parent.is_some();
    // A restart that is requested before the node is ready hands these on: clients may wait already.
    let mut given =
        if is_worker { Sockets::default() } else { sockets.try_clone().map_err(|error| error.to_string())? };
    let (ready, mut is_ready) = oneshot::channel();
    let general = &settings.config.general;
    let longest_stop = general.stop_delay.saturating_add(general.grace).saturating_add(AFTER_GRACE);
    let mut node = runtime.spawn({
        let shutdown = shutdown.clone();
        async move {
            let running = match app.start_with(settings, sockets, shutdown.clone()).await {
                Ok(running) => running,
                Err(error) => return NodeEnd::NotStarted(error),
            };
            let _ = ready.send(()); // the process is there for as long as this task
            match &parent {
                Some(parent) => Worker::report_ready(parent, version, &running),
                None => {
                    running.print_addresses();
                    ServiceManager::of_process().ready();
                }
            }
            shutdown.requested().await;
            let (report, kept) = running.stop_and_keep().await;
            NodeEnd::Stopped(report, kept)
        }
    });
    let mut requested: Option<ProcessRequest> = None;
    let mut is_booting = true;
    let (mut boot_end, mut stop_end) = (pin!(sleep(Duration::MAX)), pin!(sleep(Duration::MAX)));
    loop {
        let request = tokio::select! {
            biased; // a signal that arrived before the node ended decides between exit and restart
            request = requests.next() => request,
            ready = &mut is_ready, if is_booting => {
                is_booting = false;
                if ready.is_ok() {
                    given = Sockets::default();
                }
                continue;
            }
            ended = &mut node => return exit_reason(requested, ended).map(|kept| kept.map(|kept| kept.or(given))),
            // Its parent waits for it, and nothing of it was ready.
            () = &mut boot_end, if is_booting => return Ok(None),
            () = &mut stop_end => {
                if stop_end.deadline().elapsed() > LATE {
                    stop_end.set(sleep(AFTER_GRACE)); // the process was stopped meanwhile
                    continue;
                }
                shutdown.cut().await;
                return Err(format!("the node did not stop within general.grace and {AFTER_GRACE:?}"));
            }
        };
        let request = requests.with_word_of_parent(request).await;
        if requested.is_none() {
            stop_end.set(sleep(longest_stop));
        }
        requested = match (requested, request) {
            (_, ProcessRequest::Cut) => {
                shutdown.cut().await;
                let cause =
                    if is_worker { "the parent process has requested the end" } else { "interrupted a second time" };
                return Err(format!("{cause}: running calls are cut off"));
            }
            // A stop wins over a restart, in either order.
            (Some(earlier), ProcessRequest::Restart) if earlier != ProcessRequest::Restart => continue,
            (_, request) => Some(request),
        };
        if request != ProcessRequest::Restart {
            given = Sockets::default();
        } else if is_alone {
            warn!("there is no Redis: queued jobs, the cache, locks and rooms are lost with the restart");
        }
        if !is_worker {
            let manager = ServiceManager::of_process();
            match requested {
                Some(ProcessRequest::Restart) => manager.reloading_now(),
                _ => manager.stopping(),
            }
        }
        if is_booting && is_worker {
            boot_end.set(sleep(BOOT_STOP));
        }
        // The others that stop may serve for general.stop_delay still, for which one that boots does not wait.
        let is_last = request == ProcessRequest::StopWithAll && !is_booting;
        shutdown.request(request.stop_request(requests.may_be_kept && !is_last));
    }
}

/// How the node of this process ended.
enum NodeEnd {
    Stopped(StopReport, Sockets),
    NotStarted(StartError),
}

/// The sockets for the next program if the process restarts once its node has ended; or the error to exit with.
fn exit_reason(
    requested: Option<ProcessRequest>,
    ended: Result<NodeEnd, JoinError>,
) -> Result<Option<Sockets>, String> {
    let restarts = requested == Some(ProcessRequest::Restart);
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
