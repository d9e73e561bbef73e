//! The process of `start cluster`: it runs no code of the application after its settings.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;

use phalanx_core::config::{Admin, NodeRole, WorkerKind};
use phalanx_supervisor::machine::{Limits, MAX_WORKERS};
use phalanx_supervisor::{
    AdminEndpoint, BlockedSignals, Endpoint, ParentEnd, ParentOutput, ParentSettings, ProgramName, WorkerGroup,
};
use tracing::warn;

use super::pid_file::PidFile;
use super::{Sockets, activation};
use crate::app::failed;
use crate::command::cluster::{StartCluster, control_path};
use crate::logging;
use crate::settings::Settings;

/// The id of the parent, by which its files are named.
const ID: &str = "cluster";

/// The number of workers without a setting.
const WORKERS: u32 = 2;

/// Runs workers until a signal, a request or an error ends it.
pub(crate) fn serve(version: String, mut settings: Settings, start: StartCluster, options: Vec<OsString>) -> ExitCode {
    let sockets = match activation::take() {
        Ok(sockets) => sockets,
        Err(error) => return failed(&error),
    };
    // Before any thread: each inherits which signals are blocked.
    let signals = match BlockedSignals::block() {
        Ok(signals) => signals,
        Err(error) => return failed(&error),
    };
    let ignored_id = std::mem::replace(&mut settings.node_id, ID.to_owned());
    let is_named = !settings.config.general.id.is_empty() || std::env::var_os("PHALANX_TITLE").is_some();
    if settings.has_given_roles() && !settings.config.cluster.processes.is_empty() {
        failed(&"--roles and cluster.processes both name roles: each entry of cluster.processes has its own");
        return ExitCode::from(2);
    }
    let groups = groups(&settings, start);
    let started = check(&settings, &groups)
        .and_then(|()| PidFile::of_node(&settings, None))
        .and_then(|pid_file| logging::install(&settings).map(|()| pid_file));
    let _pid_file = match started {
        Ok(pid_file) => pid_file,
        Err(reason) => return failed(&reason),
    };
    if is_named {
        warn!(
            id = ignored_id,
            "general.id and PHALANX_TITLE name one node, and are ignored: see --worker-title-prefix"
        );
    }
    let output = ParentOutput { print_ready: logging::print_ready, reopen_log: logging::reopen };
    let ended = parent_settings(version, &settings, groups, options, sockets);
    match ended.and_then(|parent| phalanx_supervisor::run(parent, &signals, output)) {
        Ok(ParentEnd { code: 0, .. }) => {
            logging::flush_at_exit();
            ExitCode::SUCCESS
        }
        Ok(ParentEnd { reason, .. }) => failed(&reason.unwrap_or_default()),
        Err(reason) => failed(&reason),
    }
}

/// The mistakes that would show in each worker.
fn check(settings: &Settings, groups: &[WorkerGroup]) -> Result<(), String> {
    let workers = count(groups);
    if workers > MAX_WORKERS {
        return Err(format!("cluster.processes has {workers} workers, and there can be {MAX_WORKERS}"));
    }
    if settings.config.cluster.start_timeout <= settings.config.redis.boot_timeout {
        return Err(
            "cluster.start_timeout must be longer than redis.boot_timeout: a worker that waits for Redis would be \
                    killed before it reports that"
                .to_owned(),
        );
    }
    if settings.redis_url.is_none() && workers > 1 {
        return Err(format!(
            "{workers} workers need REDIS_URL, by which they share rooms, sessions and tasks: set it, or start one with \
             --workers 1"
        ));
    }
    Ok(())
}

fn count(groups: &[WorkerGroup]) -> u32 {
    groups.iter().map(|group| group.workers).fold(0, u32::saturating_add)
}

/// The workers by their roles. The number of the command line, and the plain prefix, are those of the first group that serves
/// clients.
fn groups(settings: &Settings, start: StartCluster) -> Vec<WorkerGroup> {
    let names = |roles: &[NodeRole]| roles.iter().map(|role| role.name().to_owned()).collect();
    let kinds = &settings.config.cluster.processes;
    if kinds.is_empty() {
        let roles = names(&settings.config.general.roles);
        return vec![WorkerGroup { prefix: start.prefix, roles, workers: start.workers.unwrap_or(WORKERS) }];
    }
    let scaled = scaled(kinds);
    let group = |(index, kind): (usize, &WorkerKind)| {
        let is_scaled = index == scaled;
        let prefix = if is_scaled { start.prefix.clone() } else { format!("{}{}-", start.prefix, kind.name) };
        let workers = start.workers.filter(|_| is_scaled).unwrap_or(kind.workers);
        WorkerGroup { prefix, roles: names(&kind.roles), workers }
    };
    kinds.iter().enumerate().map(group).collect()
}

/// The index of the first kind that serves clients.
fn scaled(kinds: &[WorkerKind]) -> usize {
    kinds.iter().position(|kind| kind.roles.contains(&NodeRole::Web)).unwrap_or(0)
}

fn parent_settings(
    version: String,
    settings: &Settings,
    groups: Vec<WorkerGroup>,
    options: Vec<OsString>,
    sockets: Sockets,
) -> Result<ParentSettings, String> {
    let config = &settings.config;
    let program = ProgramName::of_process().map_err(|error| format!("the program of this process: {error}"))?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (cpus / count(&groups) as usize).max(1);
    let silent_checks = u32::try_from(config.cluster.beat_timeout.as_secs()).unwrap_or(u32::MAX);
    let serves = groups.iter().any(|group| group.roles.iter().any(|role| role == NodeRole::Web.name()));
    let web = serves.then(|| match sockets.web {
        Some(socket) => Endpoint::Inherited(socket.into()),
        None => Endpoint::Bind(SocketAddr::new(config.web.bind, config.web.port)),
    });
    let arguments = ["start", "--supervised"].map(OsString::from).into_iter().chain(options);
    Ok(ParentSettings {
        version,
        program,
        arguments: arguments.collect(),
        groups,
        scaled: scaled(&config.cluster.processes),
        threads,
        web,
        admin: match sockets.admin {
            Some(socket) => Some(AdminEndpoint { endpoint: Endpoint::Inherited(socket.into()), or_free_port: false }),
            None => admin_endpoint(&config.admin)?,
        },
        control: control_path(settings),
        limits: Limits {
            start: config.cluster.start_timeout,
            grace: config.general.grace,
            stop_delay: config.general.stop_delay,
            silent_checks,
        },
    })
}

fn admin_endpoint(settings: &Admin) -> Result<Option<AdminEndpoint>, String> {
    if settings.bind.is_empty() {
        return Ok(None);
    }
    if settings.bind == Admin::AUTO {
        return Ok(Some(AdminEndpoint { endpoint: Endpoint::Bind(Admin::USUAL_BIND), or_free_port: true }));
    }
    let addr = settings.addr().ok_or_else(|| {
        format!("admin.bind {:?} is no address with a port, such as 127.0.0.1:9100 or localhost:9100", settings.bind)
    })?;
    Ok(Some(AdminEndpoint { endpoint: Endpoint::Bind(addr), or_free_port: false }))
}
