//! The commands of `start cluster`'s parent.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{NonEmptyStringValueParser, RangedU64ValueParser};
use clap::{Arg, ArgMatches, Command};
use phalanx_supervisor::machine::MAX_WORKERS;
use phalanx_supervisor::{ClusterStatus, ControlClient, ControlReply, ControlRequest};

use super::confirm::{ask, can_ask, needs_yes, yes_option};
use super::output::{print, print_table};
use super::{json_option, table};
use crate::app::failed;
use crate::settings::Settings;

/// The prefix of the workers' ids.
const TITLE_PREFIX: &str = "phalanx-worker-";

/// `start cluster`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StartCluster {
    /// How many, if the command line says so.
    pub(crate) workers: Option<u32>,
    /// The workers' ids are this and a number.
    pub(crate) prefix: String,
}

/// A request to a parent that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterCommand {
    request: ControlRequest,
    as_json: bool,
    /// Whether it is confirmed.
    yes: bool,
}

/// The arguments of `start cluster`.
pub(super) fn start_command() -> Command {
    Command::new("cluster")
        .about("Starts workers that share the listening socket, and replaces them")
        .arg(workers().long("workers").value_name("N").help("How many; 2 by default"))
        .arg(
            Arg::new("prefix")
                .long("worker-title-prefix")
                .value_name("PREFIX")
                .value_parser(NonEmptyStringValueParser::new())
                .default_value(TITLE_PREFIX)
                .help("The ids of the workers are this and a number"),
        )
}

fn workers() -> Arg {
    let number: RangedU64ValueParser<u32> = RangedU64ValueParser::new().range(1..=u64::from(MAX_WORKERS));
    Arg::new("workers").value_parser(number)
}

/// Reads the arguments of `start cluster`, which clap has accepted.
pub(super) fn read_start(matches: &ArgMatches) -> StartCluster {
    let prefix = matches.get_one::<String>("prefix").cloned();
    StartCluster {
        workers: matches.get_one("workers").copied(),
        prefix: prefix.unwrap_or_else(|| TITLE_PREFIX.to_owned()),
    }
}

pub(super) fn clap_command() -> Command {
    Command::new("cluster")
        .about("Shows and changes the workers of `start cluster` on this machine")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("status").about("Prints the parent and its workers").arg(json_option()))
        .subcommand(Command::new("roll").about("Replaces the workers one by one, and waits for it"))
        .subcommand(
            Command::new("scale")
                .about("Changes the number of workers, and waits until they are ready")
                .arg(workers().value_name("N").required(true)),
        )
        .subcommand(Command::new("stop").about("Stops all workers and the parent, and waits for it").arg(yes_option()))
        .subcommand(Command::new("reopen").about("Reopens the logs, after they were rotated"))
}

/// Reads what clap has accepted.
pub(super) fn read(matches: &ArgMatches) -> ClusterCommand {
    let (name, inner) = matches.subcommand().unwrap_or(("status", matches));
    let request = match name {
        "roll" => ControlRequest::Roll,
        "scale" => ControlRequest::Scale { workers: inner.get_one("workers").copied().unwrap_or(1) },
        "stop" => ControlRequest::Stop,
        "reopen" => ControlRequest::Reopen,
        _ => ControlRequest::Status,
    };
    let as_json = name == "status" && inner.get_flag("json");
    let yes = name != "stop" || inner.get_flag("yes");
    ClusterCommand { request, as_json, yes }
}

/// The path of the control socket; `None` if `paths.pid` is empty.
pub(crate) fn control_path(settings: &Settings) -> Option<PathBuf> {
    let folder = &settings.config.paths.pid;
    (!folder.as_os_str().is_empty()).then(|| folder.join("cluster.sock"))
}

/// Sends the request to the parent, and prints its reply until the end.
pub(crate) fn run(app: &str, settings: &Settings, command: &ClusterCommand) -> ExitCode {
    let Some(path) = control_path(settings) else {
        return failed(&"paths.pid is empty, so a parent of workers has no control socket");
    };
    if !command.yes {
        if !can_ask() {
            failed(&needs_yes(app, settings));
            return ExitCode::from(2);
        }
        if let Err(reason) = confirm_stop(app, settings, &path) {
            return failed(&reason);
        }
    }
    let mut client = match ControlClient::send(&path, &command.request) {
        Ok(client) => client,
        Err(error) => return failed(&format!("{}: {error}", path.display())),
    };
    loop {
        let end = match client.receive() {
            Ok(ControlReply::Progress { text }) => print(&format!("{text}\n")),
            Ok(ControlReply::Done { text }) => return print(&format!("{text}\n")),
            Ok(ControlReply::Failed { reason }) => return failed(&reason),
            Ok(ControlReply::Status(status)) if command.as_json => return print_json(&status),
            Ok(ControlReply::Status(status)) => return print_table(&status_table(&status)),
            Err(error) => return failed(&format!("{}: {error}", path.display())),
        };
        if end != ExitCode::SUCCESS {
            return end;
        }
    }
}

/// Asks whether to stop the workers, whose number the parent says.
fn confirm_stop(app: &str, settings: &Settings, path: &Path) -> Result<(), String> {
    let reply = ControlClient::send(path, &ControlRequest::Status).and_then(|mut client| client.receive());
    let workers = match reply {
        Ok(ControlReply::Status(status)) => status.workers.len(),
        Ok(_) => 0,
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let cluster = settings.config.cluster.name_of(app);
    ask(&format!("stop {workers} workers of this machine"), cluster, &settings.environment.0)
}

fn print_json(status: &ClusterStatus) -> ExitCode {
    match serde_json::to_string(status) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => failed(&error),
    }
}

/// The state for people.
fn status_table(status: &ClusterStatus) -> String {
    let mut text = format!(
        "parent {}, version {}, up {}: {}, {} of {} workers ready\n",
        status.pid,
        status.version,
        uptime(status.uptime_seconds),
        status.state,
        status.ready,
        status.target,
    );
    let roll = status.last_roll.as_ref().map(|roll| {
        let reason = roll.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("roll {} {} {} ago{reason}\n", roll.number, roll.result, uptime(roll.seconds_ago))
    });
    text.push_str(&roll.unwrap_or_default());
    let heads = ["ID", "PID", "STATE", "VERSION", "UPTIME", "RESTARTS", "MEMORY", "CONNECTIONS", "SOCKETS", "ADMIN"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(status.workers.iter().map(|worker| {
        let reason = worker.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        [
            worker.id.clone(),
            worker.pid.to_string(),
            worker.state.clone() + &reason,
            worker.version.clone().unwrap_or_default(),
            uptime(worker.uptime_seconds),
            worker.restarts.to_string(),
            worker.memory_bytes.map(|bytes| format!("{} MiB", bytes >> 20)).unwrap_or_default(),
            worker.connections.to_string(),
            worker.sockets.to_string(),
            worker.admin.map(|addr| addr.to_string()).unwrap_or_default(),
        ]
    }));
    text + &table::align(&rows)
}

/// A time in its two largest units.
fn uptime(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests;
